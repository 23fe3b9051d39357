"""Kind `unicode`: characters that are not seen, and the places where they belong.

In charge of guardrails.md §5.5: for each class its pattern, and which of its finds are as they must
be.  That hangs on the neighbours: up to one character on either side is looked at.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Belongs = Callable[[str, int, int], bool]

_FLAGS: Final = frozenset(
    "".join(chr(0xE0000 + ord(c)) for c in region) + "\U000e007f"
    for region in ("gbeng", "gbsct", "gbwls")
)
_BLACK_FLAG: Final = 0x1F3F4
_JOINER: Final = 0x200D
_NON_JOINER: Final = 0x200C
_BOM: Final = 0xFEFF
_EMOJI_STYLE: Final = "\ufe0f"
# Arabic, Syriac, Thaana, N'Ko … and the scripts of India, where joiners spell words
_JOINING_RANGES: Final = (
    (0x0600, 0x08FF), (0x0900, 0x0DFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x18AF),
    (0x1B00, 0x1CFF), (0xA840, 0xA8FF), (0xA980, 0xAADF), (0xABC0, 0xABFF), (0xFB50, 0xFDFF),
    (0xFE70, 0xFEFC), (0x10A00, 0x10FFF), (0x11000, 0x11FFF), (0x1E900, 0x1E95F),
    (0x1EE00, 0x1EEFF),
)  # fmt: skip
_PICTOGRAPH_RANGES: Final = (
    (0x203C, 0x203C), (0x2049, 0x2049), (0x2122, 0x2122), (0x2139, 0x2139), (0x2190, 0x21FF),
    (0x2300, 0x23FF), (0x2460, 0x24FF), (0x25A0, 0x27BF), (0x2900, 0x297F), (0x2B00, 0x2BFF),
    (0x3030, 0x303D), (0x3297, 0x3299), (0x1F000, 0x1FAFF),
)  # fmt: skip


def _bounds(ranges: tuple[tuple[int, int], ...]) -> list[int]:
    """Where the ranges begin and where they are over, in turn: inside is behind an odd number."""
    return [bound for low, high in ranges for bound in (low, high + 1)]


_JOINING: Final = _bounds(_JOINING_RANGES)
_PICTOGRAPHS: Final = _bounds(_PICTOGRAPH_RANGES)


@dataclass(frozen=True, slots=True)
class CharacterClass:
    """`belongs` (text, start, end) tells whether a find is where it must be; None: none ever is.
    A find right behind another one is not, nor is one behind a character of ASCII."""

    pattern: str
    belongs: Belongs | None = None


def _within(sign: str, bounds: Sequence[int]) -> bool:
    return bool(sign) and bool(bisect_right(bounds, ord(sign)) & 1)


def _flag(text: str, start: int, end: int) -> bool:
    """The flags of England, Scotland and Wales are spelled in tags."""
    return start > 0 and ord(text[start - 1]) == _BLACK_FLAG and text[start:end] in _FLAGS


def _joins(text: str, start: int, end: int) -> bool:
    sign = ord(text[start])
    if sign == _BOM:
        return start == 0
    if sign != _JOINER and sign != _NON_JOINER:  # no tuple is made
        return False
    before, after = text[max(start - 1, 0) : start], text[end : end + 1]
    if sign == _JOINER and _within(after, _PICTOGRAPHS):
        return before == _EMOJI_STYLE or _within(before, _PICTOGRAPHS)
    return _is_joining(before) and (_is_joining(after) or sign == _JOINER)


def _is_joining(sign: str) -> bool:
    """A letter or a mark of a script whose letters join."""
    return _within(sign, _JOINING) and unicodedata.category(sign)[0] in "LM"


CLASSES: Final[Mapping[str, CharacterClass]] = {
    "tags": CharacterClass(r"[\x{E0000}-\x{E007F}]+", _flag),
    "bidi": CharacterClass(r"[\x{202A}-\x{202E}\x{2066}-\x{2069}\x{061C}]"),
    "zero_width": CharacterClass(
        r"[\x{200B}\x{200C}\x{200D}\x{2060}\x{180E}\x{FEFF}\x{00AD}\x{034F}]", _joins
    ),
    "variation_run": CharacterClass(r"[\x{FE00}-\x{FE0F}\x{E0100}-\x{E01EF}]{4,}"),
    "private_use": CharacterClass(r"[\x{E000}-\x{F8FF}\x{F0000}-\x{FFFFD}\x{100000}-\x{10FFFD}]"),
    "control": CharacterClass(r"[\x{00}-\x{08}\x{0B}\x{0C}\x{0E}-\x{1F}\x{7F}-\x{9F}]"),
}
