"""Keeps events of the API while the store is away: class `api` of the spool.

Law: when `keep` returns, the lines are on disk, whatever happens to the process or the machine; and
nobody drops them.  So there is an end to what is kept: at the cap of the spool `keep` refuses.
Plain telemetry makes room for it (`writer.py`), a violation or a failure does not.

Requests that come together share one write and one fdatasync.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.runtime.tasks import spawn
from proxy.spool.segment import (
    SEGMENT_BYTES,
    place_of,
    read_position,
    segment_path,
    segments,
    spool_dir,
)
from proxy.spool.writer import CAP_BYTES, Holdings, cap_of

SLOT: Final = "control"
WAITING: Final = 1_000  # requests
LOOK_EVERY_S: Final = 1.0
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class SpoolFull(Exception):
    """There is no room, or the disk takes nothing."""


class Keeper:
    """One per spool.  Opens no file before it is needed."""

    def __init__(
        self,
        state_dir: Path,
        monotonic: Callable[[], float],
        *,
        cap_bytes: int = CAP_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._root = spool_dir(state_dir)
        self._dir = self._root / SLOT
        self._monotonic = monotonic
        self._cap_bytes = cap_bytes
        self._segment_bytes = min(segment_bytes, max(4096, cap_bytes // 8))
        self._fd = -1
        self._size = 0
        self._room = 0
        self._looked_at: float | None = None
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Keeper {self._dir} {len(self._waiting)} waiting>"

    async def keep(self, lines: bytes) -> None:
        """Whole lines, on disk when this returns.  Raises SpoolFull."""
        if len(self._waiting) >= WAITING:
            raise SpoolFull("too many requests wait for the disk")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((lines, done))
        if self._writing is None:
            self._writing = spawn(self._write_all(), name="keeper")
        await done

    async def close(self) -> None:
        """After the last `keep`."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._shut()

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting, []
                refused: SpoolFull | None = None
                try:
                    await asyncio.to_thread(self._write, b"".join(lines for lines, _ in taken))
                except OSError as fault:
                    refused = SpoolFull(str(fault.strerror))
                except SpoolFull as full:
                    refused = full
                for _, done in taken:
                    if done.done():
                        continue  # its client has gone
                    if refused is None:
                        done.set_result(None)
                    else:
                        done.set_exception(refused)
        finally:
            self._writing = None

    def _write(self, data: bytes) -> None:
        """Raises OSError, SpoolFull.  After either nothing more goes behind what may be torn."""
        self._look()
        if len(data) > self._room:
            raise SpoolFull("the spool is at its cap")
        if self._fd < 0 or self._size >= self._segment_bytes:
            self._next()
        try:
            written = os.write(self._fd, data)
            self._size += written
            self._room -= written
            if written != len(data):
                raise SpoolFull("no space left on the disk")
            os.fdatasync(self._fd)
        except (OSError, SpoolFull):
            if self._size:
                self._shut()
            raise

    def _look(self) -> None:
        """How much there is room for."""
        now_s = self._monotonic()
        if self._looked_at is not None and now_s - self._looked_at < LOOK_EVERY_S:
            return
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = Holdings(self._root)
        held.look()
        self._room = cap_of(held, self._cap_bytes) - held.lasting
        self._looked_at = now_s

    def _next(self) -> None:
        """A segment above all that was ever there, whose name is on disk."""
        self._shut()
        there = segments(self._dir)["api"]
        committed, _ = place_of(read_position(self._dir, "api"))
        number = max([committed, *(segment.number for segment in there)]) + 1
        self._fd = os.open(segment_path(self._dir, "api", number), _FLAGS, 0o600)
        for directory in (self._dir, self._root, self._root.parent):
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _shut(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._fd, self._size = -1, 0
