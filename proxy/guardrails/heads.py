"""How the matches of a pattern begin: the fixed strings that may stand there, if they are few.

In charge of the short cut for keys with a prefix: their matches are where the prefix is, and to
look for that takes no automaton.  Only for patterns that fail soon, else a text of nothing but
prefixes would be read over and over again.
"""

from dataclasses import dataclass
from itertools import product
from typing import Final, assert_never

from proxy.guardrails.charset import members
from proxy.guardrails.parse import Alt, Assert, Cat, Node, Rep, Set
from proxy.guardrails.shape import max_width

MOST: Final = 16  # strings that a match may begin with
LEAST_BYTES: Final = 2  # that all of them have in common
MAX_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Heads:
    """Every match begins with one of `words`, and they with `stem`."""

    stem: bytes
    words: tuple[bytes, ...]


def heads(node: Node) -> Heads | None:
    """None: such strings are too many, too short, or too little of the pattern."""
    if not fails_soon(node):
        return None
    words = [word.encode("utf-8", "replace") for word in _begun(node)]
    stem = _common(words)
    return Heads(stem, tuple(words)) if len(stem) >= LEAST_BYTES else None


def _common(words: list[bytes]) -> bytes:
    first, last = min(words), max(words)
    size = 0
    while size < min(len(first), len(last)) and first[size] == last[size]:
        size += 1
    return first[:size]


def fails_soon(node: Node) -> bool:
    """Where no match begins, that shows after a number of characters that the pattern bounds."""
    if max_width(node) is not None:
        return True
    match node:
        case Set() | Assert():
            return True
        case Alt(branches):
            return all(map(fails_soon, branches))
        case Rep(item, low, _):
            return max_width(item) is not None or (low < 2 and fails_soon(item))
        case Cat(items):
            place = next(at for at, item in enumerate(items) if max_width(item) is None)
            own = items[place]
            return (_optional(own) or fails_soon(own)) and all(map(_optional, items[place + 1 :]))
        case never:
            assert_never(never)


def _optional(node: Node) -> bool:
    """It may be left out, whatever stands there."""
    match node:
        case Set() | Assert():
            return False
        case Rep(item, low, _):
            return low == 0 or _optional(item)
        case Cat(items):
            return all(map(_optional, items))
        case Alt(branches):
            return any(map(_optional, branches))
        case never:
            assert_never(never)


def _begun(node: Node) -> tuple[str, ...]:
    """What the first items spell, assertions aside."""
    words: tuple[str, ...] = ("",)
    for item in node.items if isinstance(node, Cat) else (node,):
        grown = _longer(words, _spelled(item))
        if grown is None:
            break
        words = grown
        if len(words[0]) >= MAX_BYTES:
            break
    return words


def _longer(words: tuple[str, ...], more: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if more is None or len(words) * len(more) > MOST:
        return None
    return tuple(dict.fromkeys(a + b for a, b in product(words, more)))


def _spelled(node: Node) -> tuple[str, ...] | None:
    """All that the node matches, exactly; None: too much."""
    match node:
        case Set(ranges):
            found = members(ranges, MOST)
            return tuple(found) if found else None
        case Assert():
            return ("",)
        case Cat(items):
            words: tuple[str, ...] | None = ("",)
            for item in items:
                words = None if words is None else _longer(words, _spelled(item))
            return words
        case Alt(branches):
            each = [_spelled(branch) for branch in branches]
            known = [word for words in each if words is not None for word in words]
            return tuple(known) if None not in each and len(known) <= MOST else None
        case Rep(item, low, high):
            return _spelled(Cat((item,) * low)) if low == high and low <= MAX_BYTES else None
        case never:
            assert_never(never)
