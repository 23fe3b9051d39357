"""A data worker's end: takes snapshots, sends totals, talks.  It waits for nobody: while the
control process is away the last snapshot stays in force, and the socket is tried again every
250 ms."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from proxy.link.frames import UNREAD_BYTES, LinkBroken, Message, pack, receive
from proxy.link.peers import Talk
from proxy.model.exchange import Json
from proxy.model.ports import Clock
from proxy.runtime.tasks import background

RETRY_S: Final = 0.25
TOTALS_S: Final = 1.0

Apply = Callable[[dict[str, Json]], Awaitable[tuple[int, str]]]  # -> (version in force, why not)
Totals = Callable[[], dict[str, Json]]


def _not_asked(_: dict[str, Json]) -> None:
    raise ValueError("an answer that nobody asked for")


class LinkClient:
    """`apply` builds and swaps a snapshot and answers with the version in force, and with the
    reason when the snapshot was refused.  `talk` is given every message."""

    def __init__(
        self,
        path: Path,
        slot: int,
        apply: Apply,
        totals: Totals,
        clock: Clock,
        talk: Talk | None = None,
    ) -> None:
        self._path = path
        self._slot = slot
        self._apply = apply
        self._totals = totals
        self._clock = clock
        self._talk = talk
        self._writer: asyncio.StreamWriter | None = None
        self.version = 0
        self.take_limits: Callable[[dict[str, Json]], None] = _not_asked  # ValueError: no answer

    def __repr__(self) -> str:
        return f"<LinkClient slot {self._slot} {'up' if self._writer else 'down'}>"

    async def run(self) -> None:
        """Stay connected for ever."""
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(str(self._path))
                self.send({"t": "hello", "slot": self._slot, "pid": os.getpid(),
                           "version": self.version})  # fmt: skip
                while (message := await receive(reader)) is not None:
                    self._take(message)
                    await asyncio.sleep(0)  # more may be there already: requests come first
            except (OSError, LinkBroken, ValueError):
                pass  # no control process now: try again
            finally:
                if self._writer is not None:
                    self._writer.close()
                    self._writer = None
                if self._talk is not None:
                    self._talk.lost()
            await self._clock.sleep(RETRY_S)

    async def report(self) -> None:
        """Send the totals every second for ever."""
        while True:
            await self._clock.sleep(TOTALS_S)
            self.flush()

    def flush(self) -> None:
        self.send({"t": "totals", "doc": self._totals()})

    def say_limits(self, doc: dict[str, Json]) -> None:
        """What was taken of limits; the answer comes to `take_limits`."""
        self.send({"t": "limits", "doc": doc})

    def _take(self, message: Message) -> None:
        if self._talk is not None:
            self._talk.heard(message)
        doc = message.get("doc")
        match message.get("t"):
            case "limits" if isinstance(doc, dict):
                try:
                    self.take_limits(doc)
                except ValueError as why:
                    raise LinkBroken(str(why)) from why
            case "snapshot":
                if not isinstance(doc, dict):
                    raise LinkBroken("a snapshot without rules")
                background(self._applied(doc), name="apply snapshot")
            case _:
                pass  # of the talk

    async def _applied(self, doc: dict[str, Json]) -> None:
        """SECURITY: the link is read on meanwhile: a newer snapshot takes a key away at once."""
        self.version, reason = await self._apply(doc)
        if reason:
            self.send({"t": "rejected", "reason": reason})
        else:
            self.send({"t": "applied", "version": self.version})

    def send(self, message: Message) -> None:
        """Now or never: nobody waits for a control process that does not read."""
        writer = self._writer
        if writer is None or writer.is_closing():
            return
        if writer.transport.get_write_buffer_size() < UNREAD_BYTES:
            writer.write(pack(message))
