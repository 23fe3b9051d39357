"""What has come of a guarded stream and was not looked at yet (guardrails.md §9.5).

A guard takes its time, and others wait for the loop.  A small piece is looked at as it comes; what
is more than that waits here, in order, and so do the end and a fault of the body.  Meanwhile
nothing more is read from the endpoint, so at most one read of the transport waits.

* Small events: as many as fit into `TURN_S`, then others have their turn.
* A long event, or a long text that a reader has put together: beside the loop, for neither can be
  cut.

Between the decision that an answer has begun and the moment when it flows nothing is looked at:
its beginning is being judged.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from proxy.gateway.turn import OffLoop
from proxy.guardrails.engine import Judgement
from proxy.model.ports import Call, Clock, TransportFault
from proxy.runtime.beside import until
from proxy.runtime.tasks import background

LONG_BYTES: Final = 4096
SLICE_BYTES: Final = 1024
JOB_BYTES: Final = 32 * 1024  # of a long event, beside the loop
TURN_S: Final = 0.002
TURN_BYTES: Final = 32 * 1024
APART_S: Final = 0.001  # pieces so far from each other did not come at once

Step = bytes | TransportFault | Judgement | None
"""A piece, a fault, a block that checks outside have told, or the end."""

Then = Callable[[], None]


class Station(Protocol):
    """Who looks at the pieces.  `pending`: bytes that are no event yet.  `is_long`: it has stopped
    before something long, and an empty piece makes it go on.  `ends_long`: so is the end."""

    @property
    def over(self) -> bool: ...
    @property
    def holds(self) -> bool: ...
    @property
    def pending(self) -> int: ...
    @property
    def is_long(self) -> bool: ...
    @property
    def ends_long(self) -> bool: ...
    def look(self, piece: bytes | None) -> Then:
        """Take a piece, or the end.  It may run beside the loop; what it returns must not."""
        ...

    def settle(self, step: TransportFault | Judgement) -> None: ...
    def give_up(self) -> None:
        """Nobody wants any more what is being looked at."""
        ...


class Brake:
    """The call of an answer: it is read when neither the caller nor a backlog is against it."""

    __slots__ = ("_call", "_paused", "_standing")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._standing = 0
        self._paused = False

    def __repr__(self) -> str:
        return f"<Brake {self._standing} backlogs{', paused' if self._paused else ''}>"

    @property
    def due(self) -> float:
        return self._call.due

    @due.setter
    def due(self, due: float) -> None:
        self._call.due = due

    @property
    def phase(self) -> str:
        return self._call.phase

    @phase.setter
    def phase(self, phase: str) -> None:
        self._call.phase = phase

    def pause(self) -> None:
        self._paused = True
        self._call.pause()

    def resume(self) -> None:
        self._paused = False
        if not self._standing:
            self._call.resume()

    def cancel(self) -> None:
        self._call.cancel()

    def stand(self) -> None:
        """A backlog has built up."""
        self._standing += 1
        self._call.pause()

    def clear(self) -> None:
        """A backlog is no more."""
        self._standing -= 1
        if not self._standing and not self._paused:
            self._call.resume()


class Backlog:
    """What waits for one `Station`.  `crashed` is told when that has raised what it must not."""

    __slots__ = (
        "_at", "_busy", "_clock", "_crashed", "_dropped", "_go_on", "_off_loop", "_quiet", "_since",
        "_station", "_steps", "brake", "last",
    )  # fmt: skip

    def __init__(
        self,
        station: Station,
        brake: Brake,
        clock: Clock,
        off_loop: OffLoop,
        crashed: Callable[[], None],
    ) -> None:
        self._station = station
        self._crashed = crashed
        self.brake = brake
        self._clock = clock
        self._off_loop = off_loop
        self._steps: deque[Step] = deque()
        self._at = 0  # how much of the first has been looked at
        self._busy = False
        self._dropped = False
        self._since = 0.0  # when the first came of what has come at once
        self.last = 0.0  # when the last of it had been looked at
        self._go_on = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def __repr__(self) -> str:
        return f"<Backlog {len(self._steps)} waiting{', busy' if self._busy else ''}>"

    # --- in

    def lets_by(self, step: Step, pending: int = 0, now: float = 0.0) -> bool:
        """Whether it may be taken at once; else it waits here.  `pending`: see `Station`."""
        if not self._busy:
            if isinstance(step, bytes):
                if now - self.last > APART_S:
                    self._since = now
                if now - self._since <= TURN_S and pending + len(step) <= LONG_BYTES:
                    return True
            elif step is not None or not self._station.ends_long:
                return True
        if not self._dropped or not isinstance(step, bytes):
            self._steps.append(step)
            self.begin()
        return False

    def go_on(self) -> None:
        """The answer flows."""
        self._go_on.set()

    def drop(self) -> None:
        """Nobody wants it any more."""
        self._dropped = True
        self._steps.clear()
        self._at = 0
        if self._busy:
            self._station.give_up()
        self._go_on.set()

    async def quiet(self) -> None:
        """Until nothing is under way."""
        await self._quiet.wait()

    async def still(self) -> None:
        """The same for who is cancelled meanwhile."""
        await until(self._quiet)

    # --- the work

    def begin(self) -> None:
        if self._busy:
            return
        self._busy = True
        self._quiet.clear()
        self.brake.stand()
        background(self._work(), name="backlog of a guarded stream")

    @property
    def _holds(self) -> bool:
        return self._station.holds and not self._go_on.is_set()

    async def _work(self) -> None:
        station, done = self._station, False
        try:
            while self._steps or (station.is_long and not self._dropped):
                await asyncio.sleep(0)
                if self._holds:
                    await self._go_on.wait()
                if station.over:
                    self._end()
                    break
                beside = self._turn()
                if beside is not None:
                    then = await self._off_loop.run(beside)
                    if not self._dropped:
                        then()
            done = True
        finally:
            self._busy = False
            self._since = self._clock.monotonic()
            self._quiet.set()
            if not done:  # SECURITY: what was not looked at does not leave
                self._crashed()
            self.brake.clear()

    def _end(self) -> None:
        """Nothing more is looked at; what has failed is told all the same."""
        faults = [step for step in self._steps if isinstance(step, TransportFault)]
        self.drop()
        for fault in faults:
            self._station.settle(fault)

    def _turn(self) -> Callable[[], Then] | None:
        """Look at what is small, for a while.  Returns what is long."""
        station, steps, left = self._station, self._steps, TURN_BYTES
        until = self._clock.monotonic() + TURN_S
        while left > 0 and not self._holds and not station.over:
            if station.is_long and not self._dropped:
                return partial(station.look, b"")
            if not steps:
                break
            step = steps[0]
            if isinstance(step, bytes):
                step = self._slice_of(step)
                if station.pending + len(step) > LONG_BYTES:
                    return partial(station.look, step)
                left -= len(step)
                station.look(step)()
            else:
                steps.popleft()
                if step is not None:
                    station.settle(step)
                elif station.ends_long:
                    return partial(station.look, None)
                else:
                    station.look(None)()
            if self._clock.monotonic() > until:
                break
        return None

    def _slice_of(self, step: bytes) -> bytes:
        """The next of it."""
        is_long = self._station.pending + SLICE_BYTES > LONG_BYTES
        size, at = JOB_BYTES if is_long else SLICE_BYTES, self._at
        if at + size < len(step):
            self._at += size
        else:
            self._steps.popleft()
            self._at = 0
        return step[at : at + size] if at or len(step) > size else step
