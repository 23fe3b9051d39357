"""Rate limits of the control API: classes, limits and headers (control-api.md §7).

The bucket of a key and class is asked of the `Coord` port; open event streams are counted here.
"""

import math
from typing import Literal

from proxy.model.coord import NS, WINDOW_S, Quota
from proxy.settings.schema import RateLimits

RateClass = Literal["control-read", "control-write", "ingest", "test", "stream"]


class Streams:
    """How many event streams each key holds open."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def take(self, owner: str, limit: int) -> Quota:
        held = self._open.get(owner, 0)
        if held >= limit:
            return Quota(limit, 0, 0, NS, allowed=False)
        self._open[owner] = held + 1
        return Quota(limit, limit - held - 1, 0, NS, allowed=True)

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
    reset = math.ceil(now_ms / 1000 + quota.full_ns / NS)
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
