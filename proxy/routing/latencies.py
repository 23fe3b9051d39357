"""How long answers take, in memory of constant size: counts in buckets an eighth of an octave wide.

The median is told within 6 % (failover.md §1, `p50_ms`).  Two generations of one window each: what
is told is of the last one to two windows.  Time is handed in, in seconds that never go back.
"""

from collections.abc import Mapping
from typing import Final

STEPS: Final = 8  # buckets in an octave
OCTAVES: Final = 24  # from 1 ms to four hours
_PLACES: Final = STEPS * OCTAVES
WHOLES: Final = -1  # no bucket: how many were of whole answers
_MOST_MS: Final = 1 << OCTAVES


class Latencies:
    """Of one endpoint under one policy.  `wholes`: how many were of whole answers, not of the first
    content of a stream, since it is kept."""

    __slots__ = ("_before", "_fresh", "_now", "_seconds", "_taken", "_told_wholes", "_turns_at",
                 "wholes")  # fmt: skip

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._turns_at = 0.0
        self._now: list[int] = []  # made with the first one
        self._before: list[int] = []
        self._fresh: dict[int, int] = {}  # of a generation before, not yet taken
        self._taken: list[int] = []  # as `_now` was when it was last taken
        self.wholes = self._told_wholes = 0

    def __repr__(self) -> str:
        return f"<Latencies {sum(self._now)} and {sum(self._before)} before>"

    def add(self, now: float, seconds: float) -> None:
        """An answer took so long."""
        if now >= self._turns_at:
            self._turn(now)
        ms = int(seconds * 1000)
        if 1 <= ms < _MOST_MS:
            octave = ms.bit_length() - 1
            self._now[octave * STEPS + ((ms * STEPS >> octave) - STEPS)] += 1
        else:
            self._now[0 if ms < 1 else -1] += 1

    def put(self, now: float, counts: Mapping[int, int]) -> None:
        """Add what another process has counted, by bucket."""
        if now >= self._turns_at:
            self._turn(now)
        taken = self.take()
        self.wholes += counts.get(WHOLES, 0)
        self._told_wholes = self.wholes
        for place, count in counts.items():
            if 0 <= place < _PLACES:
                self._now[place] += count
        self._fresh, self._taken = taken, list(self._now)

    def take(self) -> dict[int, int]:
        """What was counted here since it was last taken, for another process."""
        taken, self._fresh = self._fresh, {}
        if self._now != self._taken:
            before = self._taken or [0] * _PLACES
            for place, (count, known) in enumerate(zip(self._now, before, strict=True)):
                if count != known:
                    taken[place] = taken.get(place, 0) + count - known
            self._taken = list(self._now)
        if self.wholes != self._told_wholes:
            taken[WHOLES] = taken.get(WHOLES, 0) + self.wholes - self._told_wholes
            self._told_wholes = self.wholes
        return taken

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
        self._fresh, self._taken = self.take(), []
        self._before = self._now if now < self._turns_at + self._seconds else []
        self._now = [0] * _PLACES
        self._turns_at = now + self._seconds


def middle_of(place: int) -> float:
    """Milliseconds in the middle of a bucket, as many digits as it knows."""
    octave, step = divmod(place, STEPS)
    return float(f"{2.0**octave * (1 + (step + 0.5) / STEPS):.3g}")
