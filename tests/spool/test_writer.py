"""The journal of a worker: one write a line, rotation, torn lines, full disk, the cap."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.model.observations import Observation, SpoolLost
from proxy.spool.reader import SpoolReader
from proxy.spool.segment import position_of, segments, spool_dir, write_position
from proxy.spool.writer import Holdings, SpoolWriter
from tests.kit.disk import file_limit
from tests.kit.spool import lines_of, write_segment


class Notebook(list[Observation]):
    __call__ = list.append


@contextmanager
def writing(state_dir: Path, **changes: object) -> Iterator[tuple[SpoolWriter, Notebook]]:
    seen = Notebook()
    settings = {"sync_s": 0.002} | changes
    writer = SpoolWriter(state_dir, "0", seen, **settings)  # type: ignore[arg-type]
    try:
        yield writer, seen
    finally:
        writer.close()


def until(claim: Callable[[], object]) -> None:
    """Wait for the helper thread."""
    due = time.monotonic() + 5
    while not claim():
        assert time.monotonic() < due, "the helper did not come"
        time.sleep(0.001)


def not_growing(writer: SpoolWriter) -> bool:
    """The next segment is ready before this one is full, as it is at any real pace."""
    lane = writer._plain
    return lane.next_fd >= 0 or lane.size < 2048 or lane.over_cap


def held_bytes(state_dir: Path) -> int:
    held = Holdings(spool_dir(state_dir))
    held.look()
    return held.bytes


def read_ids(state_dir: Path) -> tuple[list[str], SpoolReader]:
    reader = SpoolReader(state_dir)
    found: list[str] = []
    while chunks := reader.poll(0.0):
        for chunk in chunks:
            found += [str(line.said.events[0].body["event_id"]) for line in chunk.lines]
            reader.done(chunk)
    return found, reader


async def test_a_line_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    writer = await asyncio.to_thread(SpoolWriter, tmp_path, "0", Notebook())
    first, second = lines_of([1, 2])
    writer.append(first, critical=False)
    writer.append(second, critical=True)
    found = await asyncio.to_thread(segments, spool_dir(tmp_path) / "0")
    sizes = [os.stat(found[lane][0].path).st_size for lane in ("plain", "critical")]
    assert sizes == [len(first), len(second)]
    assert (writer.lines, writer.bytes) == (2, len(first) + len(second))
    await asyncio.to_thread(writer.close)


def test_a_restart_goes_on_in_a_new_segment_above_the_position(tmp_path: Path) -> None:
    for _ in range(2):
        with writing(tmp_path) as (writer, _):
            writer.append(lines_of([1])[0], critical=False)
    assert [s.number for s in segments(spool_dir(tmp_path) / "0")["plain"]] == [1, 2]
    for segment in segments(spool_dir(tmp_path) / "0")["plain"]:
        segment.path.unlink()
    write_position(spool_dir(tmp_path) / "0", "plain", position_of(7, 123))
    with writing(tmp_path):
        assert [s.number for s in segments(spool_dir(tmp_path) / "0")["plain"]] == [8]


def test_t_st_09_segments_rotate_without_a_gap(tmp_path: Path) -> None:
    lines = lines_of(range(100))
    with writing(tmp_path, segment_bytes=4096) as (writer, _):
        for line in lines:
            writer.append(line, critical=False)
            until(lambda: not_growing(writer))
    assert len(segments(spool_dir(tmp_path) / "0")["plain"]) > 8
    found, reader = read_ids(tmp_path)
    assert found == [f"evt-{n}" for n in range(100)]
    assert (reader.corrupt, reader.gaps) == (0, 0)


def test_r10_a_full_disk_is_counted_and_served_on(tmp_path: Path) -> None:
    lines = lines_of(range(10))
    with writing(tmp_path) as (writer, seen):
        room = sum(map(len, lines[:3])) + 100
        with file_limit(room):
            for line in lines[:6]:
                writer.append(line, critical=False)
            assert writer.failing
        assert writer.lost == {"plain": 3, "critical": 0}
        assert len(seen) == 3
        assert isinstance(seen[0], SpoolLost)
        for line in lines[6:]:
            writer.append(line, critical=False)
        assert not writer.failing
    found, reader = read_ids(tmp_path)
    assert found == ["evt-0", "evt-1", "evt-2", "evt-6", "evt-7", "evt-8", "evt-9"]
    assert reader.corrupt == 1  # the line that was cut short


def test_t_st_09_r48_the_cap_takes_plain_before_critical_and_the_read_first(tmp_path: Path) -> None:
    root = spool_dir(tmp_path)
    for lane in ("plain", "critical"):
        for number in range(1, 7):
            path = write_segment(tmp_path, "1", lane, number, lines_of(range(4)))  # type: ignore[arg-type]
            os.utime(path, (number, number))
    size = path.stat().st_size
    write_position(root / "1", "critical", position_of(2, size // 2))
    held = Holdings(root)
    held.look()
    assert held.bytes == 12 * size
    # read whole: critical-1; then plain, oldest first; the last two of a lane grow
    assert held.shrink(held.bytes - 3 * size) == {"plain": 8}
    left = {lane: [s.number for s in found] for lane, found in segments(root / "1").items()}
    assert left["plain"] == [3, 4, 5, 6]
    assert left["critical"] == [2, 3, 4, 5, 6]
    again = Holdings(root)
    again.look()
    assert again.shrink(0) == {"plain": 8, "critical": 2 + 4 + 4}
    left = {lane: [s.number for s in found] for lane, found in segments(root / "1").items()}
    assert (left["plain"], left["critical"]) == ([5, 6], [5, 6])


def test_r48_above_the_cap_lines_are_dropped_and_counted(tmp_path: Path) -> None:
    lines = lines_of(range(400))
    with writing(tmp_path, cap_bytes=32_768) as (writer, _):
        for line in lines:
            writer.append(line, critical=False)
            until(lambda: not_growing(writer))
        until(lambda: writer.dropped["plain"] + writer.lost["plain"] > 0)
        until(lambda: held_bytes(tmp_path) <= 33_000)
    dropped = writer.dropped["plain"] + writer.lost["plain"]
    found, reader = read_ids(tmp_path)
    assert len(found) + dropped == 400
    assert reader.corrupt == 0


def test_a_worker_starts_and_serves_without_a_spool(tmp_path: Path) -> None:
    spool_dir(tmp_path).write_text("in the way")
    lines = lines_of(range(3))
    with writing(tmp_path) as (writer, seen):
        writer.append(lines[0], critical=False)
        assert seen == [SpoolLost("plain: no segment could be opened")]
        spool_dir(tmp_path).unlink()
        until(lambda: writer._plain.fd >= 0)
        writer.append(lines[1], critical=False)
    assert read_ids(tmp_path)[0] == ["evt-1"]


@pytest.mark.parametrize("line", [b"x" * 10, lines_of([1])[0]])
def test_append_never_raises(tmp_path: Path, line: bytes) -> None:
    with writing(tmp_path) as (writer, seen):
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, writer._critical.fd)
        os.close(full)
        writer.append(line, critical=True)
        assert seen == [SpoolLost("critical: No space left on device")]
