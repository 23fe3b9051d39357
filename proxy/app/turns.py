"""Work of the control process that would keep its loop from everybody else: done a little at a
time, in order, while requests are answered and messages taken between.

What is soon done is done at once, as if there were no turns.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from proxy.model.ports import Clock
from proxy.runtime.tasks import spawn

TURN_S: Final = 0.004
TURN_STEPS: Final = 512
PAUSE_S: Final = 0.001  # between turns: for those who need the loop more than once


class Turns:
    """`after` follows each turn: what was gathered in it is sent together."""

    def __init__(self, clock: Clock, after: Callable[[], None]) -> None:
        self._clock = clock
        self._after = after
        self._jobs: deque[Iterator[None]] = deque()
        self._bell = asyncio.Event()
        self._busy = False  # `after` will be called
        self._fresh = False  # and then a job begun

    def __repr__(self) -> str:
        return f"<Turns {len(self._jobs)} jobs>"

    def do(self, job: Iterator[None]) -> None:
        """Each step of it takes well below a millisecond.  What others have begun comes first."""
        self._jobs.append(job)
        if len(self._jobs) > 1:
            self._bell.set()
        elif self._busy:
            self._fresh = True
        else:
            self.turn()

    def turn(self) -> bool:
        """Do a part; whether something is left."""
        with self.together():
            end = self._clock.monotonic() + TURN_S
            for _ in range(TURN_STEPS):
                if not self._jobs:
                    break
                try:
                    next(self._jobs[0])
                except StopIteration:
                    self._jobs.popleft()
                if self._clock.monotonic() >= end:
                    break
        if self._jobs:
            self._bell.set()
        return bool(self._jobs)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What happens within is followed by one `after`."""
        if self._busy:
            yield
            return
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            self._after()
            if self._fresh:
                self._fresh = False
                self.turn()

    def finish(self) -> None:
        """Do all that is left, however long it takes."""
        while self.turn():
            pass

    async def run(self) -> None:
        """For ever.  A job that fails is told, and ends alone."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            burst = spawn(self._burst(), name="a job in turns")
            await asyncio.wait([burst])
            if self._jobs:
                self._bell.set()

    async def _burst(self) -> None:
        while self.turn():
            await self._clock.sleep(PAUSE_S)
