"""The spool of one data worker: `model.ports.Journal`.

`append` is one `os.write` of one line to a file opened O_APPEND, on the event loop, so that the
line is out before the last bytes of the answer: a killed process loses nothing.  Everything slow is
the affair of a helper thread: every 100 ms fdatasync, the next segment opened before it is needed,
old ones closed, the cap kept.

A worker never waits and never fails for its spool.  What cannot be written (disk full, over the
cap) is counted by class and served on.  Above the cap the oldest plain segments of all slots go
first, then the oldest critical ones; those that were read go without a loss.
"""

import contextlib
import os
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from proxy.model.observations import SpoolLost
from proxy.model.ports import Observe
from proxy.spool.segment import (
    SEGMENT_BYTES,
    Lane,
    Segment,
    place_of,
    read_position,
    segment_path,
    segments,
    slots,
    spool_dir,
)

SYNC_S = 0.1
CAP_EVERY_SYNCS = 10
CAP_BYTES = 1 << 30
CAP_OF_FREE_DISK = 10  # a tenth
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(slots=True)
class _Open:
    """The file of a lane that lines go to, and the one that is ready to follow it."""

    lane: Lane
    fd: int = -1  # none could be opened yet
    number: int = 0
    size: int = 0
    torn: bool = False
    over_cap: bool = False
    lost: int = 0  # lines that could not be written
    next_fd: int = -1
    synced: int = 0
    retired: list[int] = field(default_factory=list)


class SpoolWriter:
    """One per slot and process.  The constructor and `close` block; `append` is for the loop.

    `lines`, `bytes`, `lost`, `dropped` are totals for the metrics.  `failing`: the last line could
    not be written (`telemetry.mode: strict` refuses requests then).
    """

    def __init__(
        self,
        state_dir: Path,
        slot: str,
        observe: Observe,
        *,
        cap_bytes: int = CAP_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        sync_s: float = SYNC_S,
    ) -> None:
        self._root = spool_dir(state_dir)
        self._dir = self._root / slot
        self._observe = observe
        self._cap_bytes = cap_bytes
        self._segment_bytes = min(segment_bytes, max(4096, cap_bytes // 8))
        self._sync_s = sync_s
        self._plain = _Open("plain")
        self._critical = _Open("critical")
        for lane in (self._plain, self._critical):
            self._prepare(lane)
        self.failing = False
        self.lines = 0
        self.bytes = 0
        self.dropped: dict[Lane, int] = {"plain": 0, "critical": 0, "api": 0}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._help, name=f"spool-{slot}", daemon=True)
        self._thread.start()

    def append(self, line: bytes, *, critical: bool) -> None:
        """Write one line, LF included.  Never raises for the disk."""
        lane = self._critical if critical else self._plain
        if lane.over_cap:
            self._lose(lane, "over the cap")
            return
        data = b"\n" + line if lane.torn else line
        try:
            written = os.write(lane.fd, data)
        except OSError as fault:
            self._lose(lane, str(fault.strerror) if lane.fd >= 0 else "no segment could be opened")
            return
        lane.size += written
        lane.torn = written != len(data)
        if lane.torn:
            self._lose(lane, "disk full")
            return
        self.failing = False
        self.lines += 1
        self.bytes += written
        if lane.size >= self._segment_bytes and lane.next_fd >= 0:
            lane.retired.append(lane.fd)
            lane.fd, lane.next_fd = lane.next_fd, -1
            lane.number += 1
            lane.size = lane.synced = 0

    @property
    def lost(self) -> dict[Lane, int]:
        """Lines that could not be written, by class."""
        return {lane.lane: lane.lost for lane in (self._plain, self._critical)}

    def close(self) -> None:
        """Sync and close."""
        self._stopping.set()
        self._thread.join()
        for lane in (self._plain, self._critical):
            self._settle(lane)
            for fd in (lane.fd, lane.next_fd):
                if fd >= 0:
                    os.close(fd)

    def _lose(self, lane: _Open, reason: str) -> None:
        lane.lost += 1
        self.failing = True
        self._observe(SpoolLost(f"{lane.lane}: {reason}"))

    # -- the helper thread

    def _help(self) -> None:
        rounds = 0
        while not self._stopping.wait(self._sync_s):
            rounds += 1
            for lane in (self._plain, self._critical):
                self._settle(lane)
                self._prepare(lane)
            if rounds % CAP_EVERY_SYNCS == 0:
                with contextlib.suppress(OSError):  # looked at again in a second
                    self._keep_cap()

    def _settle(self, lane: _Open) -> None:
        with contextlib.suppress(OSError):  # told by the next write
            while lane.retired:
                fd = lane.retired.pop()
                os.fdatasync(fd)
                os.close(fd)
            size = lane.size
            if size != lane.synced:
                os.fdatasync(lane.fd)
                lane.synced = size

    def _prepare(self, lane: _Open) -> None:
        """The first segment, and the next one when this one is half full."""
        with contextlib.suppress(OSError):  # told by the next write; else the lane grows on
            if lane.fd < 0:
                self._start(lane)
            elif lane.next_fd < 0 and lane.size >= self._segment_bytes // 2:
                path = segment_path(self._dir, lane.lane, lane.number + 1)
                lane.next_fd = os.open(path, _FLAGS, 0o600)

    def _start(self, lane: _Open) -> None:
        """A new segment, above all that was ever there."""
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        there = segments(self._dir)[lane.lane]
        committed, _ = place_of(read_position(self._dir, lane.lane))
        lane.number = max([committed, *(segment.number for segment in there)]) + 1
        lane.fd = os.open(segment_path(self._dir, lane.lane, lane.number), _FLAGS, 0o600)

    def _keep_cap(self) -> None:
        held = Holdings(self._root)
        held.look()
        cap = cap_of(held, self._cap_bytes)
        for lane, dropped in held.shrink(cap).items():
            self.dropped[lane] += dropped
        over = held.bytes > cap
        self._plain.over_cap = over
        self._critical.over_cap = over and held.bytes > cap + 2 * self._segment_bytes


@dataclass(slots=True)
class _Held:
    """One segment of any slot."""

    lane: Lane
    segment: Segment
    bytes: int
    age: float
    committed: int  # how many of its bytes were read and committed
    growing: bool


class Holdings:
    """All segments of a spool, and what goes first."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: list[_Held] = []
        self.bytes = 0
        self.free = 0

    def look(self) -> None:
        stat = os.statvfs(self._root)
        self.free = stat.f_bavail * stat.f_frsize
        for slot in slots(self._root):
            for lane, found in segments(self._root / slot).items():
                number, offset = place_of(read_position(self._root / slot, lane))
                for segment in found:
                    with contextlib.suppress(FileNotFoundError):
                        stat_of = segment.path.stat()
                        size = stat_of.st_size
                        done = size if segment.number < number else 0
                        done = offset if segment.number == number else done
                        growing = segment.number >= found[-1].number - 1
                        self._held.append(
                            _Held(lane, segment, size, stat_of.st_mtime, done, growing)
                        )
        self.bytes = sum(held.bytes for held in self._held)

    @property
    def lasting(self) -> int:
        """Bytes that wait to be read and are not plain telemetry."""
        waiting = (max(0, h.bytes - h.committed) for h in self._held if h.lane != "plain")
        return sum(waiting)

    def shrink(self, cap: int) -> dict[Lane, int]:
        """Remove segments until the cap is kept: lines that were lost with them, by class.

        What the API has acknowledged (class `api`) goes only when it was read."""
        lost: dict[Lane, int] = {}
        may_go = [h for h in self._held if not h.growing and not _acknowledged(h)]
        for held in sorted(may_go, key=_first_to_go):
            if self.bytes <= cap:
                break
            with contextlib.suppress(FileNotFoundError):  # another worker's helper was faster
                lines = _lines(held.segment.path, held.committed)
                held.segment.path.unlink()
                if lines:
                    lost[held.lane] = lost.get(held.lane, 0) + lines
            self.bytes -= held.bytes
        return lost


def cap_of(held: Holdings, cap_bytes: int) -> int:
    """At most `cap_bytes`, and a tenth of what the disk has for us."""
    return min(cap_bytes, (held.free + held.bytes) // CAP_OF_FREE_DISK)


def _acknowledged(held: _Held) -> bool:
    return held.lane == "api" and held.committed < held.bytes


def _first_to_go(held: _Held) -> tuple[bool, bool, float]:
    return held.committed < held.bytes, held.lane != "plain", held.age


def _lines(path: Path, offset: int) -> int:
    with path.open("rb") as file:
        file.seek(offset)
        return sum(chunk.count(b"\n") for chunk in iter(partial(file.read, 1 << 20), b""))
