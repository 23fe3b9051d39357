"""Reading all lanes of a spool, by position.

A *chunk* is a run of lines of one lane with the position behind it.  It is given again until `done`
says that it is committed; only then the reader goes on and the position file may move.  The
position file is a convenience: it is written at most once a second, always after the commit, and a
lost or old one costs reading, not events, since each workspace has its cursor in the store.

A line that is not whole at the end of the newest segment is still being written: it waits.  A bad
line anywhere else is skipped to its LF and counted.  A segment is finished when a later one has
bytes; it is removed 60 s after the position file is past it.

`identity`, `poll` and `note` block: they are for a thread.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proxy.runtime.ids import base62
from proxy.spool import kept
from proxy.spool.expand import BadLine, Expanded
from proxy.spool.packed import read_line
from proxy.spool.segment import (
    Lane,
    Segment,
    place_of,
    position_of,
    read_position,
    segments,
    slots,
    spool_dir,
    write_position,
)

CHUNK_LINES = 1000
READ_BYTES = 1 << 20  # the longest line, too
NOTE_EVERY_S = 1.0
KEEP_READ_S = 60.0
_READ_LINE: dict[Lane, Callable[[bytes], Expanded]] = {
    "plain": read_line,
    "critical": read_line,
    "api": kept.read_line,
}


@dataclass(slots=True)
class SpoolLine:
    """What a line says, and the position behind it."""

    end: int
    said: Expanded


@dataclass(slots=True)
class Chunk:
    """Lines of one lane; `end` is the position behind all that was read, bad lines included."""

    slot: str
    lane: Lane
    end: int
    lines: list[SpoolLine] = field(default_factory=list)
    corrupt: int = 0


@dataclass(slots=True)
class _LaneState:
    """How far one lane is read and committed."""

    slot: str
    lane: Lane
    read: int
    committed: int
    noted: int
    chunk: Chunk | None = None  # read and not yet committed
    skipping: bool = False  # inside a line that is longer than any of ours
    noted_at: float = 0.0
    passed_at: dict[int, float] = field(default_factory=dict)


class SpoolReader:
    """`waiting_bytes`: written and not yet committed.  `corrupt`: bad lines.  `gaps`: segments
    that were gone before they were read.  `before_note` is called, in a thread, before a position
    file is written."""

    def __init__(self, state_dir: Path) -> None:
        self.before_note: Callable[[], None] = lambda: None
        self._root = spool_dir(state_dir)
        self._lanes: dict[tuple[str, Lane], _LaneState] = {}
        self._one_at_a_time = threading.Lock()  # a call whose awaiter was cancelled goes on
        self.waiting_bytes = 0
        self.corrupt = 0
        self.gaps = 0

    def identity(self) -> str:
        """The name of this spool, made once."""
        path = self._root / "id"
        with contextlib.suppress(FileNotFoundError):
            name = path.read_text("ascii", "replace").strip()
            if name.isalnum():
                return name
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name("id.new")
        fresh.write_text(base62(16) + "\n", "ascii")
        fresh.replace(path)
        return path.read_text("ascii").strip()

    def poll(self, now_s: float) -> list[Chunk]:
        """The chunk of each lane that has one, and the housekeeping of all."""
        with self._one_at_a_time:
            return self._poll(now_s)

    def _poll(self, now_s: float) -> list[Chunk]:
        chunks: list[Chunk] = []
        waiting_bytes = 0
        for slot in slots(self._root):
            directory = self._root / slot
            for lane, found in segments(directory).items():
                if not found:
                    continue
                state = self._state(slot, lane)
                if state.chunk is None:
                    state.chunk = self._read(state, found)
                if state.chunk is not None:
                    chunks.append(state.chunk)
                waiting_bytes += _waiting(state.committed, found)
                if now_s - state.noted_at >= NOTE_EVERY_S:
                    self._note(directory, state, found, now_s)
        self.waiting_bytes = waiting_bytes
        return chunks

    def done(self, chunk: Chunk) -> None:
        """The chunk is committed."""
        state = self._lanes[chunk.slot, chunk.lane]
        state.committed, state.chunk = chunk.end, None

    def set_back(self, slot: str, lane: Lane, position: int) -> None:
        """The store forgot what lies behind `position`: it is read again, as far as it is kept."""
        state = self._lanes.get((slot, lane))  # none: it has no segment any more
        if state is not None and position < state.committed:
            state.read = state.committed = position
            state.chunk, state.skipping = None, False
            state.passed_at.clear()

    def note(self, now_s: float) -> None:
        """Write all positions now: the end of a run."""
        with self._one_at_a_time:
            for state in self._lanes.values():
                directory = self._root / state.slot
                self._note(directory, state, segments(directory)[state.lane], now_s)

    def _state(self, slot: str, lane: Lane) -> _LaneState:
        state = self._lanes.get((slot, lane))
        if state is None:
            at = read_position(self._root / slot, lane)
            state = self._lanes[slot, lane] = _LaneState(slot, lane, at, at, at)
        return state

    def _read(self, state: _LaneState, found: Sequence[Segment]) -> Chunk | None:
        """Lines from where we are; several segments are passed when they hold none."""
        start = state.read
        chunk = Chunk(state.slot, state.lane, start)
        while not chunk.lines:
            number, offset = place_of(state.read)
            # looked at before the read: what has a follower with bytes will not grow any more
            follower = next((s for s in found if s.number > number and _size(s.path)), None)
            here = next((s for s in found if s.number == number), None)
            data = _bytes(here.path, offset) if here is not None else None
            if data:
                taken = self._take(state, chunk, data, offset, newest=follower is None)
                if taken:
                    state.read = position_of(number, offset + taken)
                    continue
            if follower is None:
                break
            if data:
                chunk.corrupt += 1  # the torn end of a worker that was killed
            if data is None and number:
                self.gaps += 1
            state.read, state.skipping = position_of(follower.number, 0), False
        chunk.end = state.read
        self.corrupt += chunk.corrupt
        return chunk if chunk.end != start else None

    def _take(
        self, state: _LaneState, chunk: Chunk, data: bytes, offset: int, *, newest: bool
    ) -> int:
        """Lines out of `data`; how many of its bytes are settled."""
        number, at = place_of(state.read)[0], 0
        while len(chunk.lines) < CHUNK_LINES:
            stop = data.find(b"\n", at)
            if stop < 0:
                break
            line, after = data[at:stop], stop + 1
            if state.skipping:
                state.skipping = False
            elif line:
                try:
                    said = _READ_LINE[state.lane](line)
                except BadLine:
                    if newest and after == len(data) < READ_BYTES:
                        return at  # perhaps not wholly written: wait
                    chunk.corrupt += 1
                else:
                    chunk.lines.append(SpoolLine(position_of(number, offset + after), said))
            at = after
        if at == 0 and len(data) >= READ_BYTES:
            chunk.corrupt += not state.skipping
            state.skipping = True
            return len(data)
        return at

    def _note(
        self, directory: Path, state: _LaneState, found: Sequence[Segment], now_s: float
    ) -> None:
        """Write the position file, and remove what it has been past for long enough."""
        state.noted_at = now_s
        if state.committed != state.noted:
            self.before_note()
            with contextlib.suppress(OSError):  # no room: an old position does no harm
                write_position(directory, state.lane, state.committed)
                state.noted = state.committed
        past, _ = place_of(state.noted)
        for segment in found:
            if segment.number >= past:
                break
            since = state.passed_at.setdefault(segment.number, now_s)
            if now_s - since >= KEEP_READ_S:
                with contextlib.suppress(OSError):
                    segment.path.unlink()
                del state.passed_at[segment.number]


def _bytes(path: Path, offset: int) -> bytes | None:
    """None: the file is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.pread(fd, READ_BYTES, offset)
    finally:
        os.close(fd)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _waiting(committed: int, found: Sequence[Segment]) -> int:
    number, offset = place_of(committed)
    sizes = ((segment.number, _size(segment.path)) for segment in found if segment.number >= number)
    return sum(max(0, size - (offset if at == number else 0)) for at, size in sizes)
