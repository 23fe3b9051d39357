"""Context words: what stands before a span makes a weak hit likely (guardrails.md §3.1).

In charge of looking at the REACH characters *before* a span, never after it: so a stream, which
does not know what comes, decides as a whole text does.
"""

from dataclasses import dataclass
from typing import Final

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
