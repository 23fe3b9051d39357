"""Kind `url`: addresses in running text, in Markdown and in HTML, and what is wrong with them.

In charge of guardrails.md §5.8: the patterns that find addresses, and the judgement of a match.
Patterns are loose, the judgement decides; both look at the match alone, so a stream decides as a
whole text does.  Of an image the whole is the span, for half of one would be fetched again; of
anything else it is the address.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from proxy.guardrails.checks.address import (
    HOSTED,
    Address,
    domains,
    is_foreign,
    is_number,
    read,
    readings,
    within,
)
from proxy.guardrails.linear import Regex

UrlCheck = Literal[
    "authority", "userinfo", "scheme", "domain", "ip_literal", "punycode", "query", "image"
]
Place = Literal["image", "definition", "address"]

# East Asian signs end an address in running text, where no space does.
_SIGNS: Final = r"\x{3000}-\x{303f}\x{ff01}-\x{ff0d}\x{ff1a}-\x{ff20}"
_AUTHORITY: Final = rf"[^\s/?#\x22'<>\x60)\[\]{{}}|^{_SIGNS}]*"
_TAIL: Final = rf"(?:[/?#][^\s\x22'<>\x60)\]}}|{_SIGNS}]*)?"
_HOST: Final = rf"{_AUTHORITY}(?:\[[0-9a-f:.%]*\]{_AUTHORITY})?{_TAIL}"
_BEFORE_AT: Final = r"[^\s/?#\x22'<>\x60)\[\]{}|^\x{2e80}-\x{ffff}]*"
_AT: Final = r"(?:@|&#0{0,6}64;?|&#x0{0,6}40;?|&commat;)"
_BEGINS: Final = r"(?:https?:|[/\\]{2}|[/a-z]{0,8}[&\\])"  # of an address that leads elsewhere
_BALANCED: Final = r"(?:[^\s<>()]|\((?:[^\s<>()]|\([^\s<>()]*\))*\))*"
_WORD: Final = r"[^\s\[\]\\]*"
_WORDS: Final = rf"(?:{_WORD}(?:\s|\\.)){{0,24}}{_WORD}"  # counted: code has `![` and `[`, too
_FEW: Final = rf"(?:{_WORD}(?:\s|\\.)){{0,6}}{_WORD}"
_ALT: Final = rf"{_WORDS}(?:\[{_FEW}\]{_WORDS})?"
_LABEL: Final = r"(?:[^\s\[\]\\,^]|\\.)(?:[^\s\[\]\\,]*(?:[ \t]|\\.)){0,6}[^\s\[\]\\,]*"
_TITLE: Final = r"(?:\s{1,4}(?:\x22[^\x22\n]*\x22|'[^'\n]*'))?"
_LINK: Final = r"(?:\]\(\s*<?|\bhref\s*=\s*[\x22']?\s*)"
_SPACED: Final = r"j\s*a\s*v\s*a\s*s\s*c\s*r\s*i\s*p\s*t\s*:"

# Each has the address in its first group that takes part.
_IMAGES: Final[tuple[tuple[Place, str], ...]] = (
    (
        "image",
        (
            rf"!\[{_ALT}\]\(\s{{0,8}}<?({_BEGINS}{_BALANCED})"
            rf">?{_TITLE}\s{{0,4}}\)?"
        ),
    ),
    (
        "image",
        (
            rf"<img\b[^<>]*?[\s/\x22'\x60]src(?:set)?\s*=\s*(?:\x22\s*({_BEGINS}[^\x22]*)\x22?"
            rf"|'\s*({_BEGINS}[^']*)'?|({_BEGINS}[^\s<>\x22']*))"
        ),
    ),
    (
        "definition",
        (rf"\[{_LABEL}\]:\s*<?({_BEGINS}[^\s<>]*)>?"),
    ),
)
_OBSCURE: Final = rf"{_LINK}((?:[/\\]{{2}}|[/a-z]{{0,8}}[&\\])[^\s<>\x22')]*)"
_WITHOUT_HOST: Final = {
    "javascript": (
        rf"{_LINK}((?:{_SPACED}|[a-z]{{0,9}}[&\\])[^\s<>\x22]*)",
        r"(\bjavascript:[^\s\x22'<>\x60()=%\\/]*(?:[(=\x60\\]|%[0-9a-f]{2}|//)[^\s\x22<>]*)",
    ),
    "data": (
        (
            r"(\bdata:(?:[a-z]+/[a-z0-9.+-]+(?:;[a-z0-9=.+_-]+)*|(?:;[a-z0-9=.+_-]+)+),"
            rf"[^\s\x22'<>\x60)\]{_SIGNS}]*)"
        ),
    ),
    "file": (rf"(\bfile:[/\\]+[^\s\x22'<>\x60)\]{_SIGNS}]+)",),
}
SCHEMES: Final = (*HOSTED, *_WITHOUT_HOST)

_DATA: Final = re.compile(r"[A-Za-z0-9_%=+/-]")
_AMBIGUOUS: Final = re.compile(r"[&\\]")
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TRAILING: Final = ".,;:!?*_~'\\"  # of a sentence, not of the address


@dataclass(frozen=True, slots=True)
class Aim:
    """What is asked of an address.  `checks`: those that count.  Domains stand for themselves and
    all below them; an empty `allow_domains` allows every one, an empty `image_domains` none."""

    checks: frozenset[UrlCheck]
    allow_domains: tuple[str, ...]
    deny_domains: tuple[str, ...]
    schemes: frozenset[str]
    max_query_chars: int
    image_domains: tuple[str, ...]
    max_data_chars: int


def patterns_of(aim: Aim) -> list[tuple[Place, str]]:
    """What finds the addresses that the checks are about, and none that they are not about: a
    stream waits for the end of each."""
    checks = aim.checks
    texts: list[str] = []
    unwanted = [name for name in SCHEMES if name not in aim.schemes and "scheme" in checks]
    hosted = "|".join(name for name in HOSTED if name in unwanted)
    if checks - {"userinfo", "scheme", "image"}:
        texts += [_OBSCURE, rf"(\b(?:https?|ftp):[/\\]+{_HOST})", rf"(\bwww\.{_HOST})"]
    else:
        if "userinfo" in checks:
            texts.append(rf"(\b(?:https?|ftp):[/\\]+{_BEFORE_AT}{_AT}{_HOST})")
            texts.append(rf"{_LINK}([/\\]{{2}}{_BEFORE_AT}{_AT}{_HOST})")
        if hosted:
            texts.append(rf"(\b(?:{hosted}):[/\\]+{_HOST})")
    for name, patterns in _WITHOUT_HOST.items():
        texts += patterns if name in unwanted else ()
    addresses: list[tuple[Place, str]] = [("address", text) for text in texts]
    return [*_IMAGES, *addresses] if "image" in checks else addresses


class Judge:
    """Says of a match which part of it counts, or None; and whether that is settled already."""

    def __init__(self, aim: Aim) -> None:
        self._aim = aim
        self._allow = domains(aim.allow_domains)
        self._deny = domains(aim.deny_domains)
        self._images = domains(aim.image_domains)
        self._readers = [
            (place, Regex(rf"\A(?:{text})", ignore_case=True)) for place, text in patterns_of(aim)
        ]

    def __call__(self, match: str) -> tuple[int, int] | None:
        found = self._found(match)
        if found is None:
            return None
        place, start, end = found
        if not any(self._is_wrong(one, place) for one in readings(match[start:end])):
            return None
        return (start, end) if place == "address" else (0, len(match))

    def settled(self, match: str) -> bool:
        """However the match goes on, its verdict is the one on so much of it."""
        found = self._found(match)
        if found is None:
            return False
        place, start, end = found
        address = read(match[start:end])
        if address is None or not address.ended:
            return False
        if self._is_wrong(address, place):
            return True
        if _AMBIGUOUS.search(address.authority or "&") or "query" in self._aim.checks:
            return False
        at_home = all(within(host, self._images) for host in address.hosts)
        return place == "address" or "image" not in self._aim.checks or at_home

    def _found(self, match: str) -> tuple[Place, int, int] | None:
        """Where the address of a match stands, in characters."""
        data = match.encode("utf-8", "replace")
        for place, regex in self._readers:
            for group in range(1, regex.groups + 1):
                found = regex.match(data, 0, group)
                if found is None or found[1][0] < 0:
                    continue
                start = len(data[: found[1][0]].decode())
                address = data[found[1][0] : found[1][1]].decode()
                if place == "address":
                    address = _without_what_follows(address)
                return place, start, start + len(address)
        return None

    def _is_wrong(self, address: Address, place: Place) -> bool:
        checks, aim = self._aim.checks, self._aim
        if "scheme" in checks and address.scheme and address.scheme not in aim.schemes:
            return True
        if address.authority is None:
            return False
        if "query" in checks and len(address.query) > aim.max_query_chars:
            return True
        if "image" in checks and self._carries_data(address, place):
            return True
        return self._has_wrong_host(address.authority, address.hosts)

    def _carries_data(self, address: Address, place: Place) -> bool:
        """Of a definition only the query counts: most of them are of links."""
        if place == "address" or all(within(host, self._images) for host in address.hosts):
            return False
        sent = address.sent if place == "image" else address.query
        return len(_DATA.findall(sent)) > self._aim.max_data_chars

    def _has_wrong_host(self, authority: str, hosts: Iterable[str]) -> bool:
        checks = self._aim.checks
        if "userinfo" in checks and "@" in authority:
            return True
        if "authority" in checks and _is_malformed(authority):
            return True
        for host in hosts:
            if "domain" in checks and self._is_unwelcome(host):
                return True
            if "ip_literal" in checks and is_number(host):
                return True
            if "punycode" in checks and is_foreign(host):
                return True
        return False

    def _is_unwelcome(self, host: str) -> bool:
        return bool(self._allow and not within(host, self._allow)) or within(host, self._deny)


def _without_what_follows(address: str) -> str:
    """Without the end of a sentence, and without a bracket that was opened before the address."""
    address = address.rstrip(_TRAILING)
    while address.endswith(")") and address.count(")") > address.count("("):
        address = address[:-1].rstrip(_TRAILING)
    return address


def _is_malformed(authority: str) -> bool:
    """Control characters, a backslash (but for that of an escaped slash), an escaped host."""
    authority = authority.removesuffix("\\")
    host = authority.rpartition("@")[2]
    return "\\" in authority or "%" in host or _UNSEEN.search(authority) is not None
