"""The data workers as the control half sees them: over the link, or in the same process."""

import asyncio
import os
from collections.abc import Callable, Sequence

from proxy.app.data import DataHalf
from proxy.control.readiness import ProcessState, WorkerState
from proxy.link.frames import Message
from proxy.link.peers import Host
from proxy.link.server import LinkServer
from proxy.model.exchange import Json
from proxy.model.ports import Clock
from proxy.model.tenancy import SnapshotDoc
from proxy.runtime.tasks import background

REPORT_S = 1.0
TakeTotals = Callable[[int, dict[str, Json]], None]


class LinkedWorkers:
    """Processes of their own."""

    def __init__(self, link: LinkServer) -> None:
        self._link = link

    def publish(self, snapshot: SnapshotDoc) -> None:
        self._link.push(snapshot.model_dump(mode="json", by_alias=True))

    def states(self) -> Sequence[WorkerState]:
        return [
            WorkerState(w.slot, w.version, w.connected, w.restarts, w.rejected or None)
            for w in self._link.workers.values()
        ]

    def processes(self) -> Sequence[ProcessState]:
        found = [ProcessState("control", 0, os.getpid())]
        return found + [
            ProcessState("worker", w.slot, w.pid)
            for w in self._link.workers.values()
            if w.connected
        ]


class LocalWorker:
    """The data half of a single process."""

    def __init__(self, data: DataHalf) -> None:
        self._data = data
        self._version = 0
        self._rejected: str | None = None
        self._host: Host | None = None

    def slots(self) -> Sequence[int]:
        return [0]

    def send(self, slot: int, message: Message) -> None:
        _soon(self._data.share.heard, message)

    def talk(self, host: Host) -> None:
        """Both halves in one process talk as two processes do, without the socket."""
        self._host = host
        self._data.share.to(lambda message: _soon(host.heard, 0, message))
        host.joined(0)

    def publish(self, snapshot: SnapshotDoc) -> None:
        background(self._apply(snapshot), name="apply snapshot")

    async def _apply(self, snapshot: SnapshotDoc) -> None:
        self._version, reason = await self._data.apply_snapshot(snapshot)
        self._rejected = reason or None
        if self._host is not None:
            self._host.joined(0)

    def states(self) -> Sequence[WorkerState]:
        return [WorkerState(0, self._version, True, 0, self._rejected)]

    def processes(self) -> Sequence[ProcessState]:
        pid = os.getpid()
        return [ProcessState("control", 0, pid), ProcessState("worker", 0, pid)]

    async def report(self, clock: Clock, take: TakeTotals) -> None:
        """What a worker sends every second, for ever."""
        while True:
            await clock.sleep(REPORT_S)
            self.flush(take)
            await asyncio.sleep(0)

    def flush(self, take: TakeTotals) -> None:
        take(0, self._data.totals_doc())


def _soon(hear: Callable[..., None], *said: object) -> None:
    """Not now: whoever speaks has not finished."""
    asyncio.get_running_loop().call_soon(hear, *said)
