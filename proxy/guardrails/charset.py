"""Sets of code points: what a place in a pattern may consume.

In charge of ranges, the named classes of RE2 and case orbits.  A set is a sorted tuple of closed
ranges that neither overlap nor touch.  Invariant: where our reading and RE2's could differ, ours is
the larger set, for the stream automaton must never miss what RE2 finds.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

LAST: Final = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]

_CASED_END: Final = 0x1E944  # the last cased code point + 1
_WIDE: Final = 4096  # a range as wide as this is closed under case, but for its rim


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted, without overlap and without neighbours that touch."""
    out: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if out and low <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], high))
        else:
            out.append((low, high))
    return tuple(out)


def negate(ranges: Ranges) -> Ranges:
    out, at = [], 0
    for low, high in ranges:
        if at < low:
            out.append((at, low - 1))
        at = high + 1
    if at <= LAST:
        out.append((at, LAST))
    return tuple(out)


def of(text: str) -> Ranges:
    return merge((ord(c), ord(c)) for c in text)


def holds(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)


def members(ranges: Ranges, limit: int) -> list[str] | None:
    """The characters of a small set; None when it has more than `limit`."""
    if sum(high - low + 1 for low, high in ranges) > limit:
        return None
    return [chr(code) for low, high in ranges for code in range(low, high + 1)]


ANY: Final[Ranges] = ((0, LAST),)
DIGIT: Final[Ranges] = ((48, 57),)
UPPER: Final[Ranges] = ((65, 90),)
LOWER: Final[Ranges] = ((97, 122),)
ALPHA: Final = merge([*UPPER, *LOWER])
WORD: Final = merge([*ALPHA, *DIGIT, (95, 95)])
SPACE: Final = of("\t\n\f\r ")  # RE2's \s: ASCII, without vertical tab

CLASS_ESCAPES: Final[dict[str, Ranges]] = {
    "d": DIGIT,
    "w": WORD,
    "s": SPACE,
    "D": negate(DIGIT),
    "W": negate(WORD),
    "S": negate(SPACE),
}
CONTROL_ESCAPES: Final[dict[str, int]] = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "a": 7}
POSIX: Final[dict[str, Ranges]] = {
    "alpha": ALPHA,
    "digit": DIGIT,
    "alnum": merge([*ALPHA, *DIGIT]),
    "upper": UPPER,
    "lower": LOWER,
    "space": of("\t\n\v\f\r "),
    "blank": of("\t "),
    "punct": merge([(33, 47), (58, 64), (91, 96), (123, 126)]),
    "xdigit": merge([*DIGIT, (65, 70), (97, 102)]),
    "word": WORD,
    "ascii": ((0, 127),),
    "cntrl": ((0, 31), (127, 127)),
    "print": ((32, 126),),
    "graph": ((33, 126),),
}


@lru_cache(1)
def case_orbits() -> dict[int, frozenset[int]]:
    """Code point -> all that fold to the same letter: `k` also means U+212A, `s` also U+017F."""
    groups: dict[str, set[int]] = {}
    for code in range(_CASED_END):
        c = chr(code)
        lower, upper, folded = c.lower(), c.upper(), c.casefold()
        if lower == c and upper == c and folded == c:
            continue
        for key in {folded, lower.casefold(), upper.casefold()}:
            group = groups.setdefault(key, set())
            group.add(code)
            if len(key) == 1:
                group.add(ord(key))
    orbits: dict[int, set[int]] = {}
    for group in groups.values():
        for code in group:
            orbits.setdefault(code, set()).update(group)
    return {code: frozenset(orbit) for code, orbit in orbits.items()}


@lru_cache(4096)
def ignore_case(ranges: Ranges) -> Ranges:
    orbits = case_orbits()
    extra = [
        (other, other)
        for low, high in ranges
        for code in (range(low, high + 1) if high - low < _WIDE else _rim(low, high))
        for other in orbits.get(code, ())
    ]
    return merge([*ranges, *extra]) if extra else ranges


def _rim(low: int, high: int) -> list[int]:
    """The cased code points of a wide range: the only ones that can pull others in."""
    return [code for code in case_orbits() if low <= code <= high]
