"""The words of coordination: a quota by GCRA, and a node that says that it is alive.

With `T = window / limit` and the stored time `tat` (theoretical arrival): `tat' = max(now, tat) +
T`; refused when `tat' - now > window` (control-api.md §7).  Times are integer nanoseconds, so that
no rounding moves a figure; Redis computes the same in `lua/gcra.lua`.
"""

import math
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 60
NS: Final = 1_000_000_000


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
        return math.ceil((self.full_ns if self.remaining else self.next_ns) / NS)


def step_of(limit: int, window_ns: int) -> int:
    """What one request costs, in nanoseconds."""
    return max(1, window_ns // limit)


def quota_of(limit: int, window_ns: int, used_ns: int, *, allowed: bool) -> Quota:
    """What is left when `tat` is `used_ns` ahead of now."""
    step = step_of(limit, window_ns)
    remaining = max(0, (window_ns - used_ns) // step)
    return Quota(limit, remaining, used_ns, max(0, used_ns + step - window_ns), allowed)


def gcra(tat_ns: int, now_ns: int, limit: int, window_ns: int, units: int = 1) -> tuple[int, Quota]:
    """Take so many: the new `tat` (unchanged when refused) and what is left."""
    after = max(now_ns, tat_ns) + units * step_of(limit, window_ns)
    allowed = after - now_ns <= window_ns
    tat = after if allowed else tat_ns
    return tat, quota_of(limit, window_ns, tat - now_ns, allowed=allowed)


@dataclass(slots=True, frozen=True)
class NodeBeat:
    """A node that was alive at `at_ms`, and the digest of its configuration file."""

    node_id: str
    file_sha256: str
    at_ms: int = 0
