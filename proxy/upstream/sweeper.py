"""The limits of all open calls, kept by one pass every 100 ms; no call has a timer of its own.

`running` calls are held to `due`.  `still` calls, paused for a slow caller or not yet connected,
decide for themselves, for some clocks stand still meanwhile (failover.md §9).  Each call is in one
of the two sets from its start to its end.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

from proxy.model.ports import Clock

PERIOD_S = 0.1
PRUNE_EVERY_S = 1.0


class Limited(Protocol):
    due: float
    phase: str

    def overdue(self, now: float) -> str | None:
        """The limit that has expired although some clocks stand still."""
        ...

    def expire(self, phase: str, detail: str = "") -> None: ...


class Prunable(Protocol):
    def prune(self, now: float) -> None: ...


class Sweeper:
    """`pools` names what has idle connections to close."""

    def __init__(self, clock: Clock, pools: Callable[[], Collection[Prunable]]) -> None:
        self.running: set[Limited] = set()
        self.still: set[Limited] = set()
        self._clock = clock
        self._pools = pools
        self._prune_at = 0.0

    async def run(self) -> None:
        """Sweep for ever.  Each pass is a callback of the loop: a sink that raises stops nobody."""
        loop = asyncio.get_running_loop()
        while True:
            await self._clock.sleep(PERIOD_S)
            loop.call_soon(self.sweep, self._clock.monotonic())

    def sweep(self, now: float) -> None:
        late = [(call, call.phase) for call in self.running if call.due <= now]
        for call in self.still:
            phase = call.overdue(now)
            if phase is not None:
                late.append((call, phase))
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY_S
            for pool in self._pools():
                pool.prune(now)
        for call, phase in late:
            call.expire(phase)

    def __repr__(self) -> str:
        return f"<Sweeper {len(self.running)} running {len(self.still)} still>"
