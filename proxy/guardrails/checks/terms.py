"""Kind `terms`: a list of words and phrases, turned into one pattern.

In charge of boundaries, of what a space in a term means, and of gaps between letters.  Of two terms
that begin alike the longer one is tried first.
"""

from collections.abc import Sequence
from typing import Final

from proxy.guardrails.charset import WORD, holds
from proxy.guardrails.fold import Folding

MIN_CHARS: Final = 2
MAX_CHARS: Final = 200
MAX_GAPS: Final = 3
MAX_DEPTH: Final = 40  # of sharing; the parser refuses deeper nesting
_META: Final = frozenset("\\.+*?()|[]{}^$-#&~")


def pattern_of(
    terms: Sequence[str], *, folding: Folding | None, whole_words: bool, gaps: int
) -> str:
    """One regex for all terms.  A space matches any run of spaces, `_` and `-`."""
    spelled = {_spelled(term, folding) for term in terms} - {""}
    return _trie(sorted(_tokens(term, whole_words, gaps) for term in spelled), 0)


def keywords_of(terms: Sequence[str], *, folding: Folding | None, gaps: int) -> tuple[str, ...]:
    """For each term its longest word; () when some term has none of two characters or more."""
    if gaps:
        return ()
    spelled = {_spelled(term, folding) for term in terms} - {""}
    words = {max(term.split(" "), key=len).lower() for term in spelled}
    return tuple(sorted(words)) if all(len(word) >= 2 for word in words) else ()


def _spelled(term: str, folding: Folding | None) -> str:
    folded = folding.text(term) if folding is not None else term
    return " ".join(folded.split())


def _tokens(term: str, whole_words: bool, gaps: int) -> tuple[str, ...]:
    """The regex of a term, cut where it may be shared with others."""
    tokens: list[str] = []
    if whole_words and holds(WORD, ord(term[0])):
        tokens.append("\\b")
    for at, c in enumerate(term):
        if c == " ":
            tokens.append("[\\s_-]+")
        elif gaps and at and term[at - 1] != " ":
            tokens.append(f"\\PL{{0,{gaps}}}{_escaped(c)}")
        else:
            tokens.append(_escaped(c))
    if whole_words and holds(WORD, ord(term[-1])):
        tokens.append("\\b")
    return tuple(tokens)


def _trie(terms: list[tuple[str, ...]], depth: int) -> str:
    """Alternatives with their common beginnings written once; RE2 tries them from left to right,
    so a term that ends here comes after those that go on."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    ended = False
    for term in terms:
        if term:
            groups.setdefault(term[0] if depth < MAX_DEPTH else "".join(term), []).append(term)
        else:
            ended = True
    parts = []
    for group in groups.values():
        shared = _shared(group[0], group[-1])  # sorted: what these two share, all do
        rests = [term[shared:] for term in group]
        tail = f"(?:{_trie(rests, depth + 1)})" if len(group) > 1 else "".join(rests[0])
        parts.append("".join(group[0][:shared]) + tail)
    return "|".join([*parts, ""] if ended else parts)


def _shared(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    return next(
        (at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _escaped(c: str) -> str:
    return "\\" + c if c in _META else c
