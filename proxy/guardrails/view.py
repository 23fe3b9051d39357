"""A text to be searched: as bytes, raw and folded, with the way back to its characters.

In charge of offsets: RE2 counts bytes of UTF-8, everybody else characters of the original.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

from proxy.guardrails.fold import Folding

_BECOME_ASCII: Final = ("\u212a", "\u0130")  # k, and i with a dot behind it
PIECE: Final = 1 << 16  # bytes whose words are looked at together
_WORDS: Final = b"0123456789abcdefghijklmnopqrstuvwxyz"
_APART: Final = bytes([code if code in _WORDS else 32 for code in range(256)])
STEP: Final = 64  # characters between two places whose bytes are known


def encoded(text: str) -> bytes:
    """UTF-8; an unpaired surrogate is one `?`."""
    return text.encode("utf-8", "replace")


def alike(text: str) -> str:
    """Lower case, one character for one; what `lower` makes equal is equal here.  That one makes
    two of a capital I with a dot, and one of two of a capital sigma."""
    lowered = text.replace("\u0130", "i").replace("\u03a3", "\u03c3").lower()
    return lowered.replace("\u03c2", "\u03c3")


class Face:
    """A text as bytes, with the way back from byte offsets to characters of the original."""

    __slots__ = (
        "_at_byte", "_at_char", "_gone", "_lowered", "_marks", "_vanished", "_walked", "data",
        "lowers_alike", "plain", "text",
    )  # fmt: skip

    def __init__(self, text: str, vanished: Sequence[int] = (), data: bytes | None = None) -> None:
        self.text = text
        self.data = encoded(text) if data is None else data
        self.plain = len(self.data) == len(text)  # bytes and characters are the same
        self._vanished = vanished  # characters of the original that have none here
        self._gone = [at - index for index, at in enumerate(vanished)]  # where they would stand
        self._at_byte = self._at_char = 0
        self._walked = 0  # bytes that were gone over to find characters
        self._marks: list[int] = []
        self._lowered: bytes | None = None
        self.lowers_alike = True

    @property
    def lowered(self) -> bytes:
        """The bytes, what is ASCII in lower case; `lowers_alike`: nothing else becomes ASCII in
        lower case."""
        if self._lowered is None:
            self._lowered = self.data.lower()
            self.lowers_alike = not any(sign in self.text for sign in _BECOME_ASCII)
        return self._lowered

    def char(self, byte: int) -> int:
        """Characters of this face before a byte offset; cheap near the one asked for last."""
        if self.plain:
            return byte
        self._walked += abs(byte - self._at_byte)
        if byte < self._at_byte or self._walked > 4 * len(self.data):
            at = bisect_right(self._marked(), byte) - 1
            self._at_byte, self._at_char = self._marks[at], at * STEP
        self._at_char += len(self.data[self._at_byte : byte].decode())
        self._at_byte = byte
        return self._at_char

    def byte(self, char: int) -> int:
        if self.plain or char == 0:
            return max(char, 0)
        char = max(min(char, len(self.text)), 0)
        at = char // STEP
        return self._marked()[at] + len(encoded(self.text[at * STEP : char]))

    def _marked(self) -> list[int]:
        """The byte offset of every STEP-th character."""
        if not self._marks:
            text, byte = self.text, 0
            for at in range(0, len(text) + 1, STEP):
                self._marks.append(byte)
                byte += len(encoded(text[at : at + STEP]))
        return self._marks

    def after(self, byte: int) -> int:
        """The next character's offset."""
        byte += 1
        while byte < len(self.data) and self.data[byte] & 0xC0 == 0x80:
            byte += 1
        return byte

    def source(self, char: int) -> int:
        """The character of the original that this one was made of."""
        return char + bisect_right(self._gone, char) if self._gone else char

    def begin(self, original: int) -> int:
        """The byte offset where the original's character `original` begins."""
        return self.byte(original - bisect_left(self._vanished, original))


def standing(lowered: bytes, words: frozenset[bytes], piece: int = PIECE) -> dict[bytes, list[int]]:
    """Where each of the words, of plain letters and digits, stands whole; `piece`: of so many bytes
    the words are looked at together."""
    found: dict[bytes, list[int]] = {word: [] for word in words}
    begin, size = 0, len(lowered)
    while begin < size:
        end = _apart(lowered, begin + piece)
        at = begin
        for word in lowered[begin:end].translate(_APART).split(b" "):
            places = found.get(word)
            if places is not None:
                places.append(at)
            at += len(word) + 1
        begin = end
    return found


def _apart(lowered: bytes, at: int) -> int:
    """The first place from `at` on where no word goes on."""
    while at < len(lowered):
        place = lowered[at : at + PIECE].translate(_APART).find(b" ")
        if place >= 0:
            return at + place
        at += PIECE
    return len(lowered)


class View:
    """One text to be searched, raw and folded as rules need it.

    `names`: of the members that lead to the text, in lower case.  `data`: the text, encoded."""

    __slots__ = ("_folded", "_lowered", "_sought", "_standing", "names", "raw", "text")

    def __init__(self, text: str, names: str = "", data: bytes | None = None) -> None:
        self.text = text
        self.names = names
        self.raw = Face(text, (), data)
        self._folded: dict[Folding, Face] = {}
        self._lowered: str | None = None
        self._sought: frozenset[bytes] = frozenset()
        self._standing: dict[bytes, list[int]] | None = None

    def seek(self, words: frozenset[bytes]) -> None:
        """Several of these will be asked for: one pass over the text finds all of them."""
        if words is not self._sought:
            self._sought, self._standing = words, None

    def standing(self, word: bytes) -> Sequence[int] | None:
        """Where a word of plain letters and digits, in lower case, stands whole, in bytes; None: it
        is not among those that are sought."""
        if word not in self._sought:
            return None
        if self._standing is None:
            self._standing = standing(self.raw.lowered, self._sought)
        return self._standing[word]

    @property
    def lowered(self) -> str:
        """The text in lower case, character by character: see `alike`."""
        if self._lowered is None:
            self._lowered = self.text.lower() if self.text.isascii() else alike(self.text)
        return self._lowered

    def face(self, folding: Folding | None) -> Face:
        if folding is None:
            return self.raw
        face = self._folded.get(folding)
        if face is None:
            text = self.text
            folded = folding.text(text)
            vanished = folding.vanished(text) if len(folded) < len(text) else []
            face = Face(folded, vanished)
            self._folded[folding] = face
        return face
