"""Texts inside texts: runs of base64, hex and percent-escapes, decoded once and judged by the rules
that ask for it.

In charge of `config.decode` of kind `injection` (guardrails.md §5.6), for whole texts of requests.
What is decoded of one text is capped, and more than that is itself a hit, of family `encoded`.
"""

import base64
import binascii
import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from proxy.guardrails.linear import Regex
from proxy.guardrails.matching import Attempt, Breaks, RuleSet
from proxy.guardrails.redact import Hit
from proxy.guardrails.rules import LiveRule
from proxy.guardrails.scoring import ENCODED
from proxy.guardrails.view import View
from proxy.model.policy import Encoding

CAP_BYTES: Final = 10 * 1024  # of decoded text, of one text

_RUNS: Final[dict[Encoding, Regex]] = {
    # wrapped lines go on, as in mail
    "base64": Regex(r"[A-Za-z0-9+/_-]{16,}(?:\r?\n[A-Za-z0-9+/_-]{16,})*={0,2}"),
    "hex": Regex(r"(?:[0-9A-Fa-f]{2}){12,}"),
    "url": Regex(r"[^\s%]*(?:%[0-9A-Fa-f]{2}[^\s%]*){3,}"),
}
_ANY: Final = Regex(r"[A-Za-z0-9+/_-]{16}|(?:%[0-9A-Fa-f]{2}[^\s%]*){3}")


@dataclass(frozen=True, slots=True)
class Run:
    """`start`..`end`: bytes of the text.  `size`: bytes of all that it decodes to; `text` may hold
    less of it."""

    start: int
    end: int
    size: int
    text: str


class Decoder:
    """The rules of one plan that look into runs, by encoding."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[LiveRule], attempt: Attempt) -> None:
        self._rules = {
            encoding: RuleSet([rule for rule in rules if encoding in rule.decode], attempt)
            for encoding in _RUNS
            if any(encoding in rule.decode for rule in rules)
        }

    def __bool__(self) -> bool:
        return bool(self._rules)

    def untouched(self, data: bytes) -> bool:
        """There is surely no run in the text."""
        return _ANY.search_start(data, 0) < 0

    def scan(self, view: View, breaks: Breaks) -> list[Hit]:
        """Hits in what the text's runs decode to; the span of each is its whole run."""
        hits: list[Hit] = []
        face, left = view.raw, CAP_BYTES
        for encoding, rules in self._rules.items():
            for run in runs(encoding, face.data, left):
                left -= run.size
                start, end = face.char(run.start), face.char(run.end)
                found = rules.scan(View(run.text), breaks)
                hits += [_moved(hit, start, end) for hit in found]
                if left < 0:
                    return hits + _too_long(rules, start, end)
        return hits


def _moved(hit: Hit, start: int, end: int) -> Hit:
    hit.first = hit.start = start
    hit.last = hit.end = end
    return hit


def _too_long(rules: RuleSet, start: int, end: int) -> list[Hit]:
    """One hit for each pack, of its strongest rule."""
    first = {rule.pack.policy_id: rule for rule in reversed(rules.rules)}
    return [
        Hit(rule, start, end, start, end, True, rule.confidence, family=ENCODED)
        for rule in first.values()
    ]


# ---- runs


def runs(encoding: Encoding, data: bytes, left: int) -> Iterator[Run]:
    """The runs that are text when decoded, until more than `left` bytes were decoded."""
    regex, decode = _RUNS[encoding], _DECODERS[encoding]
    at = 0
    while left >= 0 and (found := regex.search(data, at)) is not None:
        start, at = found[0]
        inner = decode(data[start:at])
        text = _text(inner[:left])
        if text:
            yield Run(start, at, len(inner), text)
            left -= len(inner)


def _text(data: bytes) -> str:
    """Valid UTF-8, of which the last character may be cut; "" when it is not."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return ""


def _from_base64(run: bytes) -> bytes:
    plain = run.replace(b"\r", b"").replace(b"\n", b"").rstrip(b"=")
    plain = plain.replace(b"-", b"+").replace(b"_", b"/")
    plain = plain[:-1] if len(plain) % 4 == 1 else plain
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4))
    except binascii.Error:  # cannot be: the run has no other characters
        return b""


def _from_hex(run: bytes) -> bytes:
    return bytes.fromhex(run.decode("ascii"))


def _from_url(run: bytes) -> bytes:
    return unquote_to_bytes(run.replace(b"+", b" "))


_DECODERS: Final[dict[Encoding, Callable[[bytes], bytes]]] = {
    "base64": _from_base64,
    "hex": _from_hex,
    "url": _from_url,
}
