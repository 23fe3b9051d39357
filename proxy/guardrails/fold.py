"""Seeing through disguise: a map per code point, free of context, to one character or to none.

In charge of the fold of guardrails.md §4.3: compatibility form (NFKD, when it is one character),
lower case, combining marks (Mn, Me) and format characters (Cf) to nothing, look-alikes to ASCII;
`leet` adds digits and signs.  Invariant: the map never looks at a neighbour, so spans map back
exactly and a stream folds like its whole text.  Ligatures (two letters in one) stay as they are.

The look-alikes are the Cyrillic and Greek letters that common fonts draw like Latin ones, a small
part of UTS #39: what is not in the table is not seen through.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final, Literal

from proxy.guardrails.charset import Ranges, merge

_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_ASCII: Final = bytes(range(128))
FEW: Final = 12  # different characters, each of which is quicker replaced in all of a text

Mode = Literal["fold", "leet"]

# Escapes, for the point of these letters is that nobody can tell them from their Latin twins.
_LOOKALIKES: Final = {
    # Cyrillic
    0x0430: "a", 0x0432: "b", 0x0435: "e", 0x043A: "k", 0x043C: "m", 0x043D: "h",
    0x043E: "o", 0x0440: "p", 0x0441: "c", 0x0442: "t", 0x0443: "y", 0x0445: "x", 0x044C: "b",
    0x0455: "s", 0x0456: "i", 0x0457: "i", 0x0458: "j", 0x045B: "h", 0x0461: "w", 0x0475: "v",
    0x04AF: "y", 0x04BB: "h", 0x04CF: "l", 0x0501: "d", 0x051B: "q", 0x051D: "w",
    # Greek
    0x03B1: "a", 0x03B2: "b", 0x03B3: "y", 0x03B5: "e", 0x03B6: "z", 0x03B7: "n", 0x03B9: "i",
    0x03BA: "k", 0x03BC: "u", 0x03BD: "v", 0x03BF: "o", 0x03C1: "p", 0x03C4: "t", 0x03C5: "u",
    0x03C7: "x", 0x03C9: "w", 0x03F2: "c", 0x03F3: "j",
    # Latin letters and signs of other alphabets
    0x0131: "i", 0x0237: "j", 0x0251: "a", 0x0261: "g", 0x0269: "i", 0x01C0: "l", 0x0561: "w",
    0x0570: "h", 0x0575: "j", 0x0578: "n", 0x057D: "u", 0x0585: "o", 0x0581: "g", 0x0566: "q",
    0x212F: "e", 0x2113: "l", 0x2C9F: "o", 0x2CA3: "p", 0x2CA5: "c",
}  # fmt: skip
_LEET: Final = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s"}
_LEET_LAST: Final = {"!": "i"}
_PLANES: Final = (
    range(0x3000), range(0xA640, 0xAB70), range(0xFE00, 0x10000), range(0x1D400, 0x1D800),
    range(0x1F130, 0x1F18A), range(0xE0000, 0xE01F0),
)  # fmt: skip


class _Table(dict[int, str]):
    """For `str.translate`, which takes long over characters that are not in a table."""

    def __missing__(self, code: int) -> str:
        if code < 0x10000:  # a bounded cache
            self[code] = chr(code)
        return chr(code)


class Folding:
    """One fold: text to folded text, and the way back for spans and for sets."""

    __slots__ = ("_ascii", "_leet", "_preimages", "_table", "vanishing")

    def __init__(self, mode: Mode) -> None:
        self._leet = mode == "leet"
        table = _table(self._leet)
        self._table = _Table(table)
        self._ascii = "".join(table.get(code, chr(code)) for code in range(128)).encode()
        self._ascii += bytes(range(128, 256))
        preimages: dict[int, list[int]] = {}
        for code, folded in table.items():
            if folded:
                preimages.setdefault(ord(folded), []).append(code)
        self._preimages = preimages
        self.vanishing: Ranges = merge((code, code) for code, folded in table.items() if not folded)

    def text(self, text: str) -> str:
        if text.isascii() and not self._leet:
            return text.lower()
        return self._plain(self.seen_through(text))

    def seen_through(self, text: str) -> str:
        """The text with what is not ASCII folded, and ASCII as it is: most texts have little of the
        former, and go through a table character by character ten times as slowly."""
        if text.isascii():
            return text
        others = set(text.encode("utf-8", "ignore").translate(None, _ASCII).decode())
        changed = {c: self._table.get(ord(c), c) for c in others if self._table.get(ord(c), c) != c}
        if len(changed) > FEW or not others.isdisjoint(changed.values()):
            return _NOT_ASCII.sub(self._folded, text)
        for c, folded in changed.items():
            text = text.replace(c, folded)
        return text

    def _folded(self, run: re.Match[str]) -> str:
        return run.group().translate(self._table)

    def _plain(self, text: str) -> str:
        """Of a text, the ASCII characters folded."""
        return (
            text.encode("utf-8", "surrogatepass")
            .translate(self._ascii)
            .decode("utf-8", "surrogatepass")
        )

    def vanished(self, text: str) -> list[int]:
        """Where the characters stand that fold to nothing."""
        if text.isascii():
            return []
        table = self._table
        return [
            at
            for run in _NOT_ASCII.finditer(text)
            for at, c in enumerate(run.group(), run.start())
            if not table.get(ord(c), c)
        ]

    def changes(self, text: str, data: bytes) -> bool:
        """Folding does more to this text than lower case; `data`: the text, encoded."""
        if self._leet:
            return True
        if len(data) == len(text):
            return False
        others = data.translate(None, _ASCII).decode()
        return others.translate(self._table) != others

    def vanishes(self, text: str) -> bool:
        return not text.isascii() and not text.translate(self._table)

    def context(self, text: str, chars: int) -> str:
        """The last `chars` of a text, and before them the last that is there when folded: what a
        boundary after the text may look at."""
        left = text[-chars:]
        if not self.vanishes(left):
            return left
        at = len(text) - chars - 1
        while at >= 0 and self.vanishes(text[at]):
            at -= 1
        return text[at] + left if at >= 0 else left

    def unfold(self, ranges: Ranges) -> Ranges:
        """All characters that may fold into `ranges`."""
        extra = [
            (source, source)
            for code, sources in self._preimages.items()
            if any(low <= code <= high for low, high in ranges)
            for source in sources
        ]
        return merge([*ranges, *extra]) if extra else ranges


@lru_cache(2)
def folding(mode: Mode) -> Folding:
    return Folding(mode)


def _table(leet: bool) -> dict[int, str]:
    lookalikes = dict(_LOOKALIKES)
    signs = {**_LEET, **_LEET_LAST} if leet else {}
    table: dict[int, str] = {}
    for plane in _PLANES:
        for code in plane:
            c = chr(code)
            if unicodedata.category(c) in ("Cf", "Mn", "Me"):
                table[code] = ""
                continue
            folded = _one(c, lookalikes)
            folded = signs.get(folded, folded)
            if folded != c:
                table[code] = folded
    return table


def _one(c: str, lookalikes: dict[int, str]) -> str:
    plain = "".join(
        x for x in unicodedata.normalize("NFKD", c) if unicodedata.category(x) not in ("Mn", "Me")
    )
    lowered = plain.lower()
    if len(lowered) != 1:
        plain = c  # two letters in one: not folded
        lowered = c.lower() if len(c.lower()) == 1 else c
    return lookalikes.get(ord(lowered), lowered)
