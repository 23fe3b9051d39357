"""The plain event of a stream, read without a parser: the bytes before and after its text.

Nearly every event of an answer differs from the one before it in one string.  So a stream's reader
casts a mould of an event that it has understood, and what fits the mould is understood as well.

Law: what fits means what a parser would have made of it.  The text is plain (UTF-8, printable, no
quote, no backslash), so JSON writes it as it is; and a mould is tried with another text, by the
parser, before it is used.
"""

from collections.abc import Callable
from typing import Final

from proxy.model.exchange import Part, Seen
from proxy.wire import jsonbody

LESSONS: Final = 16  # castings of one stream: some providers change more with every event
MAX_BYTES: Final = 4096
_TRIAL: Final = "Parapet"
_PADDING: Final = b',"obfuscation":"'  # OpenAI's random letters, so that sizes tell nothing
_PADDED_END: Final = b'"}\n\n'


class Mould:
    """`lane`: where the text belongs."""

    __slots__ = (
        "_after", "_before", "_padded", "_rest", "_shown_after", "_shown_before", "_skip", "lane",
    )  # fmt: skip

    def __init__(
        self,
        lane: tuple[int, Part, int],
        came: tuple[bytes, bytes],
        shown: tuple[bytes, bytes],
        rest: bytes,
    ) -> None:
        """`came`, `shown`: what stands around the text in the provider's event and in ours; `rest`:
        what follows both, another in every event; empty where there is no padding."""
        self.lane = lane
        self._before, self._after = came
        self._shown_before, self._shown_after = shown
        self._skip = len(self._before)
        self._padded = rest != b""
        self._rest = rest

    def __repr__(self) -> str:
        return f"<Mould {self._skip}+{len(self._after)} bytes{', padded' if self._padded else ''}>"

    def text(self, raw: bytes) -> str | None:
        """The text of an event that fits.  None: it does not, or its text is not plain."""
        if not raw.startswith(self._before):
            return None
        end = raw.find(b'"', self._skip)
        if not raw.startswith(self._after, end):
            return None
        rest = raw[end + len(self._after) :]
        if (rest and not (self._padded and _is_padding(rest))) or len(raw) > MAX_BYTES:
            return None
        try:
            text = raw[self._skip : end].decode()
        except UnicodeDecodeError:
            return None
        if not text or "\\" in text or not text.isprintable():
            return None
        self._rest = rest
        return text

    def event(self, text: str) -> bytes:
        """The event that fitted last, with another text."""
        written = jsonbody.dump_text(text)
        return b"".join((self._shown_before, written, self._shown_after, self._rest))


def cast(seen: Seen, render: Callable[[Seen], bytes]) -> Mould | None:
    """The mould of an event that is one piece of text.  None where the bytes do not tell which of
    them are the text."""
    raw, doc, delta = seen.raw, seen.doc, seen.deltas[0]
    text = delta.text
    if not text.isprintable() or "\\" in text or '"' in text or len(raw) > MAX_BYTES:
        return None
    before, found, after = raw.partition(b'"' + text.encode() + b'"')
    if not found or b"\r" in raw or not after.endswith(b"\n\n") or b"\n" in after[:-2]:
        return None
    trial = _TRIAL + text
    delta.holder[delta.member] = trial
    try:
        line = (before + b'"' + trial.encode() + b'"' + after[:-2]).rpartition(b"\n")[2]
        if not line.startswith(b"data: ") or jsonbody.loads(line[6:]) != doc:
            return None
        first, _, second = render(seen).partition(b'"' + trial.encode() + b'"')
    except ValueError:
        return None
    finally:
        delta.holder[delta.member] = text
    if trial.encode() in first + second or not second.endswith(b"\n\n"):
        return None
    at = after.find(_PADDING) + len(_PADDING)
    rest = after[at:]
    if at < len(_PADDING) or not _is_padding(rest) or not second.endswith(_PADDING + rest):
        return Mould(delta.lane, (before + b'"', b'"' + after), (first, second), b"")
    shown = first, second.removesuffix(rest)
    return Mould(delta.lane, (before + b'"', b'"' + after[:at]), shown, rest)


def _is_padding(rest: bytes) -> bool:
    return rest.endswith(_PADDED_END) and rest[: -len(_PADDED_END)].isalnum()
