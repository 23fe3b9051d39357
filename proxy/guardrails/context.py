"""Context words: what stands before a span makes a weak hit likely (guardrails.md §3.1).

In charge of looking at the REACH characters *before* a span, never after it: so a stream, which
does not know what comes, decides as a whole text does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from proxy.guardrails.shape import escaped
from proxy.guardrails.view import View, alike

REACH: Final = 64
KEPT: Final = REACH + 1  # and the character before, which tells whether a word begins there


@dataclass(frozen=True, slots=True)
class ContextWords:
    """`words` in lower case; any of them adds `boost` to the confidence of a hit."""

    words: tuple[str, ...]
    boost: float
    required: bool

    def present(self, text: str, start: int, names: str = "") -> bool:
        """One of the words stands whole before `start`; or among `names`, the members that lead
        to the text."""
        first = max(start - REACH, 0)
        window = text[first:start].lower()
        before, after = text[first - 1 : first] if first else "", text[start : start + 1]
        if any(_whole(word, window, before, after) for word in self.words):
            return True
        return bool(names) and any(_whole(word, names, "", "") for word in self.words)


def words_pattern(words: tuple[str, ...]) -> str:
    """A regex that fits, case ignored, wherever one of the words may stand whole.  A capital I with
    a dot becomes two characters in lower case, of which the first is an i."""
    spelled = "|".join(escaped(word).replace("i", "[i\u0130]") for word in words)
    return f"(?:^|[^0-9A-Za-z])(?:{spelled})(?:[^0-9A-Za-z]|$)"


def windows(words: tuple[str, ...], view: View, width: int) -> list[tuple[int, int]]:
    """Where, in bytes of UTF-8, a match may begin that needs one of the words: all other places are
    before the first of them or too far behind the last.  `width`: characters from a match's begin
    to its span."""
    places: list[tuple[int, int]] = []
    plain, others = _forms(words)
    face = view.raw
    lowered = face.lowered
    as_bytes = face.plain or face.lowers_alike
    if not face.plain:
        _places(places, view, others if as_bytes else (*plain, *others), width)
    if as_bytes:
        for word in plain:
            sought = word.encode()
            size = len(sought)
            for at in _standing(sought, view, lowered):
                low, high = max(at + size - width, 0), at + REACH
                if not (face.plain or lowered[low:high].isascii()):
                    char = face.char(at)
                    low, high = face.byte(char + size - width), face.byte(char + REACH)
                places.append((low, high))
    places.sort()
    found: list[tuple[int, int]] = []
    for low, high in places:
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def _standing(sought: bytes, view: View, lowered: bytes) -> Sequence[int]:
    """Where a word of ASCII in lower case stands whole."""
    size = len(sought)
    known = view.standing(first_of(sought))
    if known is not None:
        return [
            at
            for at in known
            if lowered.startswith(sought, at) and not _goes_on(lowered, at + size)
        ]
    found: list[int] = []
    at = lowered.find(sought)
    while at >= 0:
        if not _goes_on(lowered, at - 1) and not _goes_on(lowered, at + size):
            found.append(at)
        at = lowered.find(sought, at + 1)
    return found


def firsts_of(words: tuple[str, ...]) -> list[bytes]:
    """How those of the words begin that `View.seek` finds, all in one pass."""
    return [first for word in _forms(words)[0] if (first := first_of(word.encode()))]


@lru_cache(1_024)
def first_of(word: bytes) -> bytes:
    """The letters and digits that a word begins with."""
    size = 0
    while _goes_on(word, size):
        size += 1
    return word[:size]


def _places(found: list[tuple[int, int]], view: View, words: tuple[str, ...], width: int) -> None:
    """The same, overlapping, for letters whose bytes do not tell what lower case makes of them."""
    lowered, face = view.lowered, view.raw
    for word in words:
        size = len(word)
        at = lowered.find(word)
        while at >= 0:
            found.append((face.byte(at + size - width), face.byte(at + REACH)))
            at = lowered.find(word, at + 1)


@lru_cache(1_024)
def _forms(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """As `View.lowered` has them, those of ASCII and others; a capital I with a dot may be one
    character there, or two."""
    one = [alike(word.replace("i\u0307", "i")) for word in words]
    forms = dict.fromkeys([*map(alike, words), *one])
    return (
        tuple(word for word in forms if word.isascii()),
        tuple(word for word in forms if not word.isascii()),
    )


def _goes_on(text: bytes, at: int) -> bool:
    """A plain letter, in lower case, or a digit stands there."""
    if not 0 <= at < len(text):
        return False
    sign = text[at]
    return 97 <= sign <= 122 or 48 <= sign <= 57


def _whole(word: str, text: str, before: str, after: str) -> bool:
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        left = text[at - 1] if at else before
        right = text[end] if end < len(text) else after
        if not left.isalnum() and not right.isalnum():
            return True
        at = text.find(word, at + 1)
    return False
