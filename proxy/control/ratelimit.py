"""Rate limits by GCRA, one bucket per key and class (control-api.md §7).

With `T = window / limit` and the stored time `tat` (theoretical arrival): `tat' = max(now, tat) +
T`; refused when `tat' - now > window`.  Times are integer nanoseconds of the monotonic clock, so
that no rounding moves a figure.  A bucket that is full again is the same as none, so the table is
bounded by forgetting the least recently used.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

from proxy.model.ports import Clock
from proxy.settings.schema import RateLimits

RateClass = Literal["control-read", "control-write", "ingest", "test", "stream"]
WINDOW_S: Final = 60
MAX_BUCKETS: Final = 10_000
_NS: Final = 1_000_000_000


@dataclass(slots=True, frozen=True)
class Quota:
    """What is left after one request.  `next_ns`: until one more is possible when none is left."""

    limit: int
    remaining: int
    full_ns: int
    next_ns: int
    allowed: bool

    @property
    def wait_s(self) -> int:
        """`t` of the `RateLimit` header: to the full quota, or to the next unit when none is."""
        return math.ceil((self.full_ns if self.remaining else self.next_ns) / _NS)


def gcra(tat_ns: int, now_ns: int, limit: int, window_ns: int) -> tuple[int, Quota]:
    """Take one: the new `tat` (unchanged when refused) and what is left."""
    step = window_ns // limit
    after = max(now_ns, tat_ns) + step
    allowed = after - now_ns <= window_ns
    tat = after if allowed else tat_ns
    used = tat - now_ns
    remaining = max(0, (window_ns - used) // step)
    return tat, Quota(limit, remaining, used, max(0, used + step - window_ns), allowed)


class Buckets:
    """Named buckets; one `limit` per call, so that a reload changes it at once."""

    def __init__(self, clock: Clock, window_s: int = WINDOW_S) -> None:
        self._clock = clock
        self._window_ns = window_s * _NS
        self._tats: OrderedDict[tuple[str, str], int] = OrderedDict()

    def take(self, name: str, owner: str, limit: int) -> Quota:
        tats = self._tats
        now_ns = int(self._clock.monotonic() * _NS)
        tat, quota = gcra(tats.get((name, owner), 0), now_ns, limit, self._window_ns)
        tats[name, owner] = tat
        tats.move_to_end((name, owner))
        if len(tats) > MAX_BUCKETS:
            tats.popitem(last=False)
        return quota

    def __repr__(self) -> str:
        return f"<Buckets {len(self._tats)}>"


class Streams:
    """How many event streams each key holds open."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def take(self, owner: str, limit: int) -> Quota:
        held = self._open.get(owner, 0)
        if held >= limit:
            return Quota(limit, 0, 0, _NS, allowed=False)
        self._open[owner] = held + 1
        return Quota(limit, limit - held - 1, 0, _NS, allowed=True)

    def release(self, owner: str) -> None:
        held = self._open[owner] - 1
        if held:
            self._open[owner] = held
        else:
            del self._open[owner]


def limit_of(limits: RateLimits, rate_class: RateClass) -> int:
    match rate_class:
        case "control-read":
            return limits.control_read
        case "control-write":
            return limits.control_write
        case "ingest":
            return limits.ingest
        case "test":
            return limits.test
        case "stream":
            return limits.stream


def headers(rate_class: RateClass, quota: Quota, now_ms: int) -> dict[str, str]:
    """The headers of every authenticated answer; `Retry-After` with a refusal."""
    reset = math.ceil(now_ms / 1000 + quota.full_ns / _NS)
    window = "" if rate_class == "stream" else f";w={WINDOW_S}"
    found = {
        "X-RateLimit-Limit": str(quota.limit),
        "X-RateLimit-Remaining": str(quota.remaining),
        "X-RateLimit-Reset": str(max(reset, math.ceil(now_ms / 1000))),
        "RateLimit-Policy": f'"{rate_class}";q={quota.limit}{window}',
        "RateLimit": f'"{rate_class}";r={quota.remaining};t={quota.wait_s}',
    }
    if not quota.allowed:
        found["Retry-After"] = str(max(1, quota.wait_s))
    return found
