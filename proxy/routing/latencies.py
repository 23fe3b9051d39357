"""How long answers take, in memory of constant size: counts in buckets an eighth of an octave wide.

The median is told within 6 % (failover.md §1, `p50_ms`).  Two generations of one window each: what
is told is of the last one to two windows.  Time is handed in, in seconds that never go back.
"""

from math import frexp
from typing import Final

STEPS: Final = 8  # buckets in an octave
OCTAVES: Final = 24  # from 1 ms to four hours
_PLACES: Final = STEPS * OCTAVES


class Latencies:
    """Of one endpoint under one policy."""

    __slots__ = ("_before", "_now", "_seconds", "_turns_at")

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._turns_at = 0.0
        self._now: list[int] = []  # made with the first one
        self._before: list[int] = []

    def __repr__(self) -> str:
        return f"<Latencies {sum(self._now)} and {sum(self._before)} before>"

    def add(self, now: float, seconds: float) -> None:
        """An answer took so long."""
        if now >= self._turns_at:
            self._turn(now)
        self._now[place_of(seconds * 1000)] += 1

    def add_counts(self, now: float, counts: dict[int, int]) -> None:
        """What others have counted, by bucket."""
        if now >= self._turns_at:
            self._turn(now)
        for place, count in counts.items():
            if 0 <= place < _PLACES:
                self._now[place] += count

    def median_ms(self, now: float) -> float | None:
        """Half of them took no longer; None: there are none."""
        if now >= self._turns_at + self._seconds:
            return None
        both = self._now if now < self._turns_at else [0] * _PLACES
        older = self._before if now < self._turns_at else self._now
        if older:
            both = [mine + theirs for mine, theirs in zip(both, older, strict=True)]
        total = sum(both)
        if not total:
            return None
        seen = 0
        for place, count in enumerate(both):
            seen += count
            if 2 * seen >= total:
                return middle_of(place)
        return None

    def _turn(self, now: float) -> None:
        self._before = self._now if now < self._turns_at + self._seconds else []
        self._now = [0] * _PLACES
        self._turns_at = now + self._seconds


def place_of(ms: float) -> int:
    """The bucket of so many milliseconds."""
    if ms < 1:
        return 0
    part, octave = frexp(ms)  # ms = part * 2**octave, and part is 0.5 to 1
    return min((octave - 1) * STEPS + int((part - 0.5) * 2 * STEPS), _PLACES - 1)


def middle_of(place: int) -> float:
    """Milliseconds in the middle of a bucket, as many digits as it knows."""
    octave, step = divmod(place, STEPS)
    return float(f"{2.0**octave * (1 + (step + 0.5) / STEPS):.3g}")
