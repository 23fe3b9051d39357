"""Spool to store: each line's events exactly once (storage.md §5).

One chunk of lines is taken per lane.  The lines of each workspace are committed in batches, each
with that workspace's cursor over the lane, so events and position are true together or not at all;
then the reader may move its position file.  A restart reads from the position file and leaves out
lines at or below a workspace's cursor: killed between any two steps, nothing is lost and nothing
doubled.

A cursor is named `spool/<spool id>/<slot>/<class>`; its value is a position (`spool/segment.py`:
segment number * 2**40 + offset behind the line).

A store that came back without its last commits (a Redis that crashed) has older cursors than we
remember, or than the process before us did: the lanes are set back to them, and what was forgotten
is read again.

A chunk is given up by nothing: while the store is away it waits here and the rest waits on disk.
Only a line that no store could hold is left out, alone, and counted.  A step that is cancelled
loses nothing either: the reader gives a chunk again until it is done.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.model.batch import Appended, Cursor, Op, StoreConflict, StoreUnavailable
from proxy.model.events import (
    ENDPOINT_STATE_CHANGED,
    FAILOVER_DECISION,
    FAILOVER_RECOVERED,
    NewEvent,
)
from proxy.model.ports import Clock, Store
from proxy.spool.cursors import CursorFile
from proxy.spool.reader import CHUNK_LINES, Chunk, SpoolLine, SpoolReader
from proxy.spool.segment import LANES, Lane

GATHER_S = 0.1  # lines gather meanwhile: many small commits would cost the workers their caches
MOVED_S = 0.05
RETRY_S = 0.25
RETRY_MAX_S = 2.0
NEVER_SEEN = -1
_SIGNED = frozenset({ENDPOINT_STATE_CHANGED, FAILOVER_DECISION, FAILOVER_RECOVERED})


class Accept(Protocol):
    """The one way into the event log: events and operations in one commit (`control.intake`)."""

    def __call__(
        self, workspace_id: str, events: Sequence[NewEvent], *, source: str, also: Sequence[Op] = ()
    ) -> Awaitable[Sequence[Appended]]: ...


Used = Callable[[str, int], None]  # a Parapet key, and when (milliseconds since 1970)
Spent = tuple[str, str | None, int, int]  # a route, a key, when, what it cost
Counts = Callable[[str, Sequence[Spent]], Iterable[Op]]  # of requests of a workspace


def _nobody_asks(_: str, __: int) -> None:
    pass


def _nothing_counted(_: str, __: Sequence[Spent]) -> Iterable[Op]:
    return ()


@dataclass(slots=True)
class SpoolProgress:
    """For the metrics and `/v1/status`.  `refused`: lines that no store could hold.  `gaps`:
    segments that were dropped unread.  `faults`: looks at the spool that the disk refused.
    `rollbacks`: how often the store had forgotten commits."""

    waiting_bytes: int
    lag_s: float
    lines: int
    events: int
    corrupt: int
    refused: int
    gaps: int
    faults: int
    rollbacks: int


class _SetBack(Exception):
    """The store forgot its last commits, and the lanes were set back: read again."""


class Spooler:
    """The loop.  `node` names this machine in the events' source; a commit has at most
    `batch_lines`; `restarts` counts how often the store may have forgotten something,
    `tell_forgotten` hears that it has, `memory` is for what the process before this one knew;
    `used` is told of each request's key; `counts` says what is counted with the events."""

    def __init__(
        self,
        reader: SpoolReader,
        store: Store,
        accept: Accept,
        clock: Clock,
        *,
        node: str,
        batch_lines: int = CHUNK_LINES,
        restarts: Callable[[], int] = lambda: 0,
        used: Used = _nobody_asks,
        counts: Counts = _nothing_counted,
        tell_forgotten: Callable[[], None] = lambda: None,
        memory: CursorFile | None = None,
    ) -> None:
        self._used = used
        self._counts = counts
        self._tell_forgotten = tell_forgotten
        self._memory = memory
        self._restarts = restarts
        self._restarts_seen = restarts()
        self._lanes: dict[str, tuple[str, Lane]] = {}
        self._rollbacks = 0
        self._batch_lines = batch_lines
        self._reader = reader
        self._store = store
        self._accept = accept
        self._clock = clock
        self._node = node
        self._spool_id = ""
        self._cursors: dict[tuple[str, str], int] = {}
        self._stopping = False
        self._more = False  # a chunk was full: there is more to read at once
        self._caught_up_at = clock.monotonic()
        self._lines = 0
        self._events = 0
        self._refused = 0
        self._faults = 0

    async def run(self) -> None:
        """Until `stop`."""
        with contextlib.suppress(StoreUnavailable):  # raised only when stopping
            while not self._stopping:
                if not await self.step() or not self._more:
                    await self._clock.sleep(GATHER_S)

    def stop(self) -> None:
        """After the chunk in hand; a store that is away is not waited for any more."""
        self._stopping = True

    async def drain(self) -> None:
        """After `stop` and the end of `run`: all that is written now, and the position files.
        What cannot be committed stays in the spool for the next start."""
        self._stopping = True
        with contextlib.suppress(StoreUnavailable):
            while await self.step():
                pass
        await asyncio.to_thread(self._reader.note, self._clock.monotonic())

    async def step(self) -> bool:
        """One chunk of each lane.  False: there was nothing to read."""
        now_s = self._clock.monotonic()
        try:
            if not self._spool_id:
                self._spool_id = await asyncio.to_thread(self._reader.identity)
                await self._recall()
            chunks = await asyncio.to_thread(self._reader.poll, now_s)
        except OSError:
            self._faults += 1
            return False
        if await self._forgot():
            return True
        if not chunks:
            self._caught_up_at = now_s
            return False
        self._more = any(len(chunk.lines) >= CHUNK_LINES for chunk in chunks)
        try:
            for chunk in chunks:
                await self._settle(chunk)
                self._reader.done(chunk)
        except _SetBack:
            self._more = True
        return True

    def progress(self) -> SpoolProgress:
        waiting = self._reader.waiting_bytes
        return SpoolProgress(
            waiting_bytes=waiting,
            lag_s=self._clock.monotonic() - self._caught_up_at if waiting else 0.0,
            lines=self._lines,
            events=self._events,
            corrupt=self._reader.corrupt,
            refused=self._refused,
            gaps=self._reader.gaps,
            faults=self._faults,
            rollbacks=self._rollbacks,
        )

    async def _settle(self, chunk: Chunk) -> None:
        """Commit a chunk, workspace by workspace."""
        groups: dict[str, list[SpoolLine]] = {}
        for line in chunk.lines:
            groups.setdefault(line.said.workspace_id, []).append(line)
        cursor = f"spool/{self._spool_id}/{chunk.slot}/{chunk.lane}"
        self._lanes[cursor] = chunk.slot, chunk.lane
        origin = "api" if chunk.lane == "api" else "proxy"  # an event of `api` has its own source
        source = f"{origin}/{self._node}/{chunk.slot}"
        for workspace_id, lines in groups.items():
            for some in _batches(lines, self._batch_lines):
                await self._insist(workspace_id, some, cursor, source)

    async def _insist(
        self, workspace_id: str, lines: Sequence[SpoolLine], cursor: str, source: str
    ) -> None:
        """Commit the lines of one workspace, however long the store is away."""
        pause_s = RETRY_S
        while True:
            try:
                await self._commit(workspace_id, lines, cursor, source)
            except StoreUnavailable:
                if self._stopping:
                    raise
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            except StoreConflict as moved:
                if moved.reason == "idem":
                    await self._without_record(workspace_id, lines, cursor, source)
                    return
                # it is elsewhere: a commit of ours whose answer was lost, or a forgotten one
                with contextlib.suppress(StoreUnavailable):
                    if await self._set_back():
                        raise _SetBack from moved
                await self._clock.sleep(MOVED_S)
            except ValueError:
                await self._one_by_one(workspace_id, lines, cursor, source)
                return
            else:
                return

    async def _commit(
        self, workspace_id: str, lines: Sequence[SpoolLine], cursor: str, source: str
    ) -> None:
        """Events and position, in one batch."""
        old = await self._position(workspace_id, cursor)
        fresh = [line for line in lines if line.end > old]
        if not fresh:
            return
        events = [event for line in fresh for event in line.said.events]
        if source.startswith("proxy/"):
            _sign(events, self._node)
        move = Cursor(cursor, old, fresh[-1].end)
        records = [line.said.idem for line in fresh if line.said.idem is not None]
        spent = [
            (said.route_id, said.key_id, said.events[0].at_ms, said.cost_nano)
            for said in (line.said for line in fresh)
            if said.cost_nano and said.events
        ]
        counted = self._counts(workspace_id, spent) if spent else ()
        await self._accept(workspace_id, events, source=source, also=(move, *records, *counted))
        self._cursors[workspace_id, cursor] = move.new
        for line in fresh:
            if line.said.key_id is not None and line.said.events:
                self._used(line.said.key_id, line.said.events[0].at_ms)
        self._lines += len(fresh)
        self._events += len(events)

    async def _recall(self) -> None:
        """What the process before this one knew; the store is held against it at once."""
        memory = self._memory
        if memory is None:
            return
        for (workspace_id, name), at in (await asyncio.to_thread(memory.read)).items():
            _, spool_id, slot, lane = name.split("/")
            if spool_id == self._spool_id and lane in LANES:
                self._cursors[workspace_id, name] = at
                self._lanes[name] = slot, lane
                self._restarts_seen = NEVER_SEEN
        self._reader.before_note = lambda: memory.write(dict(self._cursors))

    async def _forgot(self) -> bool:
        """The store was away or began anew: does it still know what we committed?"""
        restarts = self._restarts()
        if restarts == self._restarts_seen:
            return False
        try:
            forgot = await self._set_back()
        except StoreUnavailable:
            return False  # asked again with the next step
        self._restarts_seen = restarts
        return forgot

    async def _set_back(self) -> bool:
        """Take the cursors from the store; lanes go back to the oldest that is older than ours."""
        back: dict[tuple[str, Lane], int] = {}
        for (workspace_id, cursor), known in list(self._cursors.items()):
            stored = await self._store.cursor(workspace_id, cursor)
            if stored < known:
                lane = self._lanes[cursor]
                back[lane] = min(stored, back.get(lane, stored))
        for (slot, lane_name), position in back.items():
            self._reader.set_back(slot, lane_name, position)
        self._cursors.clear()
        if back:
            self._rollbacks += 1
            self._tell_forgotten()
        return bool(back)

    async def _one_by_one(
        self, workspace_id: str, lines: Sequence[SpoolLine], cursor: str, source: str
    ) -> None:
        """One of the lines cannot be stored: leave out that one, and only that one."""
        if len(lines) > 1:
            for line in lines:
                await self._insist(workspace_id, [line], cursor, source)
            return
        self._refused += 1
        if not lines[0].said.events:
            return  # not even the position can be kept: it is read again after a restart
        lines[0].said.events.clear()
        await self._insist(workspace_id, lines, cursor, source)

    async def _without_record(
        self, workspace_id: str, lines: Sequence[SpoolLine], cursor: str, source: str
    ) -> None:
        """Of one of the requests there is a finished record: it was repeated when the store was
        back, or its answer was lost.  Its events are recognised by their ids."""
        for line in lines:
            if len(lines) == 1:
                line.said.idem = None
            await self._insist(workspace_id, [line], cursor, source)

    async def _position(self, workspace_id: str, cursor: str) -> int:
        known = self._cursors.get((workspace_id, cursor))
        if known is None:
            known = await self._store.cursor(workspace_id, cursor)
            self._cursors[workspace_id, cursor] = known
        return known


def _sign(events: Sequence[NewEvent], node: str) -> None:
    """Say of decisions and changes of endpoints which machine made them: two that heard nothing of
    each other each tell theirs."""
    for event in events:
        payload = event.body.get("payload")
        if event.body.get("type") in _SIGNED and isinstance(payload, dict):
            event.body["payload"] = {**payload, "node_id": node}


def _batches(lines: Sequence[SpoolLine], limit: int) -> Iterator[Sequence[SpoolLine]]:
    """Runs of at most `limit` lines, and of not many more events of requests with several."""
    start = events = 0
    for index, line in enumerate(lines):
        if index > start and (index - start >= limit or events >= limit):
            yield lines[start:index]
            start = index
            events = 0
        events += len(line.said.events) if line.said.events and line.said.events[0].came else 0
    yield lines[start:]
