"""What an endpoint did of late: counts in buckets of one second, and how sure a ratio is.

Two ratios have denominators of their own (failover.md §4): errors among outcomes, slow ones among
latency verdicts.  Time is handed in, in seconds of a clock that never goes back.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from math import sqrt
from statistics import NormalDist
from typing import Final

OUTCOMES: Final = 0
ERRORS: Final = 1
VERDICTS: Final = 2
SLOW: Final = 3
LIMITED: Final = 4  # 429 without a hint
ATTEMPTS: Final = 5  # all of them, those without an outcome too
HINTED: Final = 6  # 429 with one
FIELDS: Final = 7
EARLY_S: Final = 10


@cache
def quantile(confidence: float) -> float:
    """How many standard deviations a one-sided `confidence` is away: 0.95 gives 1.645."""
    return NormalDist().inv_cdf(confidence)


def lower_bound(count: int, total: int, confidence: float) -> float:
    """The least true ratio that `count` of `total` still fits: Wilson's bound, one-sided.

    `confidence` 0: the plain ratio.  E. B. Wilson, 1927; failover.md §5.  0 of nothing is 0."""
    if total <= 0:
        return 0.0
    ratio = count / total
    if not confidence:
        return ratio
    z = quantile(confidence)
    square = z * z
    spread = z * sqrt(ratio * (1 - ratio) / total + square / (4 * total * total))
    return (ratio + square / (2 * total) - spread) / (1 + square / total)


class Window:
    """The last `seconds`, with running totals; what is older is taken off as time goes on."""

    __slots__ = ("_bucket", "_buckets", "_fresh", "_fresh_excluded", "_newest", "_seconds",
                 "excluded", "totals")  # fmt: skip

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._buckets: list[list[int] | None] = []  # made with the first count
        self._newest = 0
        self._bucket: list[int] | None = None  # of the newest second
        self.totals = [0] * FIELDS
        self.excluded: dict[str, int] = {}  # by class, since the window was last empty
        self._fresh = [0] * FIELDS
        self._fresh_excluded: dict[str, int] = {}

    def __repr__(self) -> str:
        told = self.totals
        return (
            f"<Window {told[ERRORS]}/{told[OUTCOMES]} errors, {told[SLOW]}/{told[VERDICTS]} slow>"
        )

    def advance(self, now: float) -> None:
        """Take off what is too old."""
        second = int(now)
        if not self._buckets or second <= self._newest:
            return
        if second - self._newest >= self._seconds:
            self.clear()
            return
        for each in range(self._newest + 1, second + 1):
            place = each % self._seconds
            old = self._buckets[place]
            if old is not None:
                for field in range(FIELDS):
                    self.totals[field] -= old[field]
                self._buckets[place] = None
        self._newest = second
        self._bucket = None
        if not self.totals[ATTEMPTS]:
            self.excluded.clear()

    def add(self, now: float, *fields: int) -> None:
        """Count one in each of the fields."""
        bucket = self._current(now)
        for field in fields:
            bucket[field] += 1
            self.totals[field] += 1
            self._fresh[field] += 1

    def leave_out(self, now: float, outcome: str) -> None:
        """Count an attempt that says nothing of the endpoint."""
        self.add(now, ATTEMPTS)
        for counts in (self.excluded, self._fresh_excluded):
            counts[outcome] = counts.get(outcome, 0) + 1

    def put(self, now: float, counts: Sequence[int], excluded: Mapping[str, int]) -> None:
        """Add what another window has counted."""
        bucket = self._current(now)
        for field, count in enumerate(counts):
            bucket[field] += count
            self.totals[field] += count
            self._fresh[field] += count
        for outcome, count in excluded.items():
            for known in (self.excluded, self._fresh_excluded):
                known[outcome] = known.get(outcome, 0) + count

    def take(self) -> tuple[list[int], dict[str, int]] | None:
        """What was counted since it was last taken, for another window; None: nothing."""
        if not any(self._fresh):
            return None
        taken = self._fresh, self._fresh_excluded
        self._fresh, self._fresh_excluded = [0] * FIELDS, {}
        return taken

    def add_good(self, now: float, quick: bool) -> None:
        """Count a success; `quick`: with the verdict that it was not slow.  The commonest sample:
        it has a way of its own."""
        bucket, totals = self._bucket, self.totals
        if bucket is None or now >= self._newest + 1:
            bucket = self._current(now)
            totals = self.totals
        fresh = self._fresh
        bucket[ATTEMPTS] += 1
        totals[ATTEMPTS] += 1
        fresh[ATTEMPTS] += 1
        bucket[OUTCOMES] += 1
        totals[OUTCOMES] += 1
        fresh[OUTCOMES] += 1
        if quick:
            bucket[VERDICTS] += 1
            totals[VERDICTS] += 1
            fresh[VERDICTS] += 1

    def _current(self, now: float) -> list[int]:
        self.advance(now)
        if not self._buckets:
            self._buckets = [None] * self._seconds
            self._newest = int(now)
        place = max(int(now), self._newest) % self._seconds
        bucket = self._buckets[place]
        if bucket is None:
            bucket = self._buckets[place] = [0] * FIELDS
        self._bucket = bucket
        return bucket

    @property
    def is_empty(self) -> bool:
        """Nothing in it counts."""
        return not self.totals[ATTEMPTS] and not self.totals[VERDICTS]

    @property
    def is_clean(self) -> bool:
        """Nothing in it speaks against the endpoint."""
        totals = self.totals
        return not totals[ERRORS] and not totals[SLOW] and not totals[LIMITED]

    def recent(self, now: float, seconds: int, field: int) -> int:
        """How many in the last `seconds`."""
        self.advance(now)
        if not self._buckets:
            return 0
        found = 0
        for each in range(max(self._newest - seconds + 1, 0), self._newest + 1):
            bucket = self._buckets[each % self._seconds]
            if bucket is not None:
                found += bucket[field]
        return found

    def expected(self, now: float) -> float | None:
        """Attempts in a window of its length at the rate of late; None: it is too early to say."""
        self.advance(now)
        held = [each for each in range(len(self._buckets)) if self._buckets[each] is not None]
        if not held:
            return None
        ages = [(self._newest - place) % self._seconds for place in held]
        seen_s = max(ages) + max(int(now) - self._newest, 0) + 1
        if seen_s < min(EARLY_S, self._seconds):
            return None
        return self.totals[ATTEMPTS] * self._seconds / seen_s

    def clear(self) -> None:
        """Forget everything."""
        self._buckets = []
        self._bucket = None
        self.totals = [0] * FIELDS
        self.excluded = {}
        self._fresh, self._fresh_excluded = [0] * FIELDS, {}
