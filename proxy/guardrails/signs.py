"""Rules whose pattern is a set of characters, or a run of them: found in one pass over the text.

In charge of rules whose finds may be every character of a text: nothing is called for one of them,
and those side by side are told as one span.
"""

from functools import lru_cache
from typing import Final

from proxy.guardrails.charset import Ranges
from proxy.guardrails.parse import Node, Rep, Set

PLANE: Final = 0x10000


class Signs:
    """`alone`: each character is a match of its own.  `least`: so many make a match, else."""

    __slots__ = ("_above", "_plane", "alone", "least")

    def __init__(self, ranges: Ranges, least: int, *, alone: bool) -> None:
        self.least, self.alone = least, alone
        self._above = [bound for bound in ranges if bound[1] >= PLANE]
        plane = bytearray(PLANE)
        for low, high in ranges:
            for code in range(low, min(high, PLANE - 1) + 1):
                plane[code] = 1
        self._plane = bytes(plane)

    def runs(self, text: str, begin: int, stop: int) -> list[int]:
        """Where characters of the set stand side by side: the first and behind the last of each, in
        turn.  They begin in `begin`..`stop`, and are looked at to the end of the text."""
        plane, above, least = self._plane, self._above, self.least
        found: list[int] = []
        at, size, start = begin, len(text), -1
        while at < size and (start >= 0 or at < stop):
            code = ord(text[at])
            if code < PLANE:
                inside = plane[code] == 1
            else:
                inside = False
                for low, high in above:
                    if low <= code <= high:
                        inside = True
            if inside:
                if start < 0:
                    start = at
            elif start >= 0:
                if at - start >= least:
                    found.append(start)
                    found.append(at)
                start = -1
            at += 1
        if start >= 0 and size - start >= least:
            found.append(start)
            found.append(size)
        return found


@lru_cache(64)
def signs(node: Node) -> Signs | None:
    """None: the pattern is more than that."""
    match node:
        case Set(ranges):
            return Signs(ranges, 1, alone=True)
        case Rep(Set(ranges), low, None):
            return Signs(ranges, low, alone=False)
        case _:
            return None
