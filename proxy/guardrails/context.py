"""Context words: what stands before a span makes a weak hit likely (guardrails.md §3.1).

In charge of looking at the REACH characters *before* a span, never after it: so a stream, which
does not know what comes, decides as a whole text does.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from proxy.guardrails.linear import INNER_MEM_BYTES, Regex
from proxy.guardrails.shape import escaped

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


@lru_cache(1_024)
def _finder(words: tuple[str, ...]) -> Regex:
    return Regex(words_pattern(words), ignore_case=True, max_mem=INNER_MEM_BYTES)


def windows(words: tuple[str, ...], data: bytes, width: int) -> list[tuple[int, int]]:
    """Where, in bytes of UTF-8, a match may begin that needs one of the words: all other places are
    too far behind the last of them.  `width`: characters from a match's begin to its span."""
    finder = _finder(words)
    plain = data.isascii()
    found: list[tuple[int, int]] = []
    at = finder.search_start(data, 0)
    while at >= 0:
        low, high = max(at - width, 0), at + KEPT
        if not plain:
            before, after = data[max(at - 4 * width, 0) : at], data[at : at + 4 * KEPT]
            low = at - len(before.decode(errors="ignore")[-width:].encode())
            high = at + len(after.decode(errors="ignore")[:KEPT].encode())
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], high)
        else:
            found.append((low, high))
        at = finder.search_start(data, at + 1) if at < len(data) else -1
    return found


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
