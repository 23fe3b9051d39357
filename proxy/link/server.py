"""The control process's end: pushes snapshots, collects totals, knows what each worker runs, and
carries the talk of a host with its workers."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.link.frames import UNREAD_BYTES, LinkBroken, Message, pack, receive
from proxy.link.peers import Host
from proxy.model.exchange import Json


@dataclass(slots=True)
class WorkerState:
    """What a worker last said of itself."""

    slot: int
    pid: int
    version: int = 0
    rejected: str = ""
    connected: bool = True
    restarts: int = 0


OnTotals = Callable[[int, dict[str, Json]], None]  # slot, totals
OnLimits = Callable[[int, dict[str, Json]], dict[str, Json] | None]  # the answer; ValueError


def _nobody_counts(_: int, __: dict[str, Json]) -> None:
    return None


class LinkServer:
    """Listens on a Unix socket (0600).  A worker that connects gets the newest snapshot at once."""

    def __init__(self, on_totals: OnTotals) -> None:
        self._on_totals = on_totals
        self.on_limits: OnLimits = _nobody_counts
        self._snapshot: bytes | None = None
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self.workers: dict[int, WorkerState] = {}
        self.host: Host | None = None  # who talks with the workers

    def __repr__(self) -> str:
        return f"<LinkServer {len(self._writers)} workers>"

    async def start(self, path: Path) -> None:
        if os.path.lexists(path):  # noqa: ASYNC240 - once, at start
            os.unlink(path)
        old = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, path=str(path))
        finally:
            os.umask(old)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers.values()):
            writer.close()

    def push(self, snapshot: dict[str, Json]) -> None:
        """Send a snapshot to every worker; those that connect later get it too."""
        self._snapshot = pack({"t": "snapshot", "doc": snapshot})
        for writer in self._writers.values():
            self._write(writer, self._snapshot)

    def slots(self) -> Sequence[int]:
        """Of the workers that are connected."""
        return list(self._writers)

    def send(self, slot: int, message: Message) -> None:
        """A worker that does not read is cut off; it gets everything when it connects again."""
        writer = self._writers.get(slot)
        if writer is not None and not writer.is_closing():
            self._write(writer, pack(message))

    def _write(self, writer: asyncio.StreamWriter, message: bytes) -> None:
        """Who has just been sent rules, however large, is not behind for that."""
        rules = 0 if self._snapshot is None else len(self._snapshot)
        if writer.transport.get_write_buffer_size() > UNREAD_BYTES + 2 * rules:
            writer.transport.abort()
        else:
            writer.write(message)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        slot: int | None = None
        try:
            while (message := await receive(reader)) is not None:
                if slot is None:
                    slot = self._hello(message, writer)
                else:
                    self._take(slot, message)
                    await asyncio.sleep(0)  # more may be there already: others come first
        except (LinkBroken, KeyError, TypeError, ValueError):
            pass  # the worker connects again
        finally:
            if slot is not None and self._writers.get(slot) is writer:
                del self._writers[slot]
                self.workers[slot].connected = False
                if self.host is not None:
                    self.host.left(slot)
            writer.close()

    def _hello(self, message: Message, writer: asyncio.StreamWriter) -> int:
        slot, pid = message["slot"], message["pid"]
        if message["t"] != "hello" or not isinstance(slot, int) or not isinstance(pid, int):
            raise LinkBroken("no hello")
        version = message.get("version")
        before = self.workers.get(slot)
        restarts = 0 if before is None else before.restarts + (before.pid != pid)
        known = version if isinstance(version, int) else 0
        self.workers[slot] = WorkerState(slot, pid, known, restarts=restarts)
        if slot in self._writers and self.host is not None:
            self.host.left(slot)  # its old connection has not ended yet
        self._writers[slot] = writer
        if self._snapshot is not None:
            writer.write(self._snapshot)
        if self.host is not None:
            self.host.joined(slot)
        return slot

    def _take(self, slot: int, message: Message) -> None:
        state = self.workers[slot]
        match message["t"]:
            case "totals":
                doc = message["doc"]
                if isinstance(doc, dict):
                    self._on_totals(slot, doc)
            case "limits":
                doc = message["doc"]
                answer = self.on_limits(slot, doc) if isinstance(doc, dict) else None
                if answer is not None and slot in self._writers:
                    self._writers[slot].write(pack({"t": "limits", "doc": answer}))
            case "applied":
                state.version, state.rejected = int(str(message["version"])), ""
                if self.host is not None:
                    self.host.joined(slot)
            case "rejected":
                state.rejected = str(message["reason"])
            case _ if self.host is not None:
                self.host.heard(slot, message)
            case _:
                raise LinkBroken("unknown message")
