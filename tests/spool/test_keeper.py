"""Class `api`: acknowledged on disk, never dropped, refused at the cap (storage.md §5)."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy.model.batch import Idem
from proxy.model.events import Came, NewEvent
from proxy.model.exchange import Json
from proxy.spool.expand import BadLine
from proxy.spool.keeper import Keeper, SpoolFull
from proxy.spool.kept import LINE_BYTES, lines_of, read_line
from proxy.spool.reader import Chunk, SpoolReader
from proxy.spool.segment import Lane, Segment, segments, spool_dir, write_position
from proxy.spool.writer import Holdings
from tests.kit.disk import file_limit
from tests.kit.spool import lines_of as plain_lines
from tests.kit.spool import write_segment
from tests.kit.store import HandClock

CAME = Came("api/key-1", 1_710_513_000_123, 172_800)
RECORD = Idem(b"k" * 32, b"f" * 32, 202, b"{}", b"[1,[0]]", 86_400)
MIB = 1 << 20


def event(number: int, **more: Json) -> NewEvent:
    body: dict[str, Json] = {"event_id": f"evt-{number}", "type": "t", "payload": {}, **more}
    return NewEvent(body, 1_000 + number, b"h" * 32)


def lines(*numbers: int) -> bytes:
    return lines_of("default", CAME, [event(number) for number in numbers], None)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def keeper(home: Path, clock: HandClock, cap_bytes: int = 1 << 30) -> Keeper:
    return Keeper(home, clock.monotonic, cap_bytes=cap_bytes)


def read(home: Path, count: int = 1) -> list[str]:
    """The ids of all events in class `api`, committed as they are read."""
    reader, found = SpoolReader(home), list[str]()
    while chunks := reader.poll(0.0):
        for chunk in chunks:
            found += ids_of(chunk)
            reader.done(chunk)
    assert reader.corrupt == count - 1
    return found


def kept_segments(home: Path) -> list[Segment]:
    return segments(spool_dir(home) / "control")["api"]


def ids_of(chunk: Chunk) -> list[str]:
    return [str(each.body["event_id"]) for line in chunk.lines for each in line.said.events]


# --- a line


@pytest.mark.parametrize("idem", [None, RECORD], ids=["without a key", "with a key"])
def test_a_request_is_read_as_it_was_written(idem: Idem | None) -> None:
    events = [event(1, cost=0.1, note="ü\u2028\"'"), event(2)]
    (line, rest) = lines_of("default", CAME, events, idem).split(b"\n")
    said = read_line(line)
    assert rest == b""
    assert (said.workspace_id, said.idem) == ("default", idem)
    assert said.events == [
        NewEvent(each.body, each.at_ms, each.content_hash, came=CAME) for each in events
    ]


def test_a_large_request_has_lines_that_can_be_read_and_its_record_in_the_last() -> None:
    events = [event(n, note="x" * 60_000) for n in range(16)]
    written = lines_of("default", CAME, events, RECORD).splitlines()
    said = [read_line(line) for line in written]
    assert len(said) > 3
    assert max(map(len, written)) < LINE_BYTES + 70_000 < MIB
    assert [each.idem for each in said] == [None] * (len(said) - 1) + [RECORD]
    assert [each.body for one in said for each in one.events] == [each.body for each in events]


def test_what_is_no_line_of_ours() -> None:
    (whole,) = lines(1).splitlines()
    (plain,) = (line.rstrip(b"\n") for line in plain_lines([1]))
    for bad in (b"", b"x", whole[:-1], whole.replace(b"evt-1", b"evt-2"), plain):
        with pytest.raises(BadLine):
            read_line(bad)


# --- keeping


async def test_what_was_kept_is_read(tmp_path: Path, clock: HandClock) -> None:
    kept = keeper(tmp_path, clock)
    await asyncio.gather(*(kept.keep(lines(n, n + 100)) for n in range(50)))
    await kept.close()
    found = await asyncio.to_thread(read, tmp_path)
    assert sorted(found) == sorted(f"evt-{n}" for n in [*range(50), *range(100, 150)])


async def test_a_new_process_writes_behind_the_old_one(tmp_path: Path, clock: HandClock) -> None:
    for number in (1, 2):
        kept = keeper(tmp_path, clock)
        await kept.keep(lines(number))
        await kept.close()

    def lose() -> list[int]:
        there = kept_segments(tmp_path)
        write_position(spool_dir(tmp_path) / "control", "api", 7 << 40)
        for each in there:
            each.path.unlink()
        return [each.number for each in there]

    assert await asyncio.to_thread(lose) == [1, 2]
    kept = keeper(tmp_path, clock)
    await kept.keep(lines(3))
    await kept.close()
    (only,) = await asyncio.to_thread(kept_segments, tmp_path)
    assert only.number == 8


async def test_at_the_cap_it_refuses_until_there_is_room(tmp_path: Path, clock: HandClock) -> None:
    kept = keeper(tmp_path, clock, cap_bytes=20_000)
    done = 20_000 // len(lines(1000))
    for number in range(done):
        await kept.keep(lines(number + 1000))
    with pytest.raises(SpoolFull, match="cap"):
        await kept.keep(lines(1000))
    found = await asyncio.to_thread(read, tmp_path)
    assert found == [f"evt-{n + 1000}" for n in range(done)]
    reader = SpoolReader(tmp_path)

    def commit_all() -> None:
        while chunks := reader.poll(10.0):
            for chunk in chunks:
                reader.done(chunk)
        reader.note(10.0)

    await asyncio.to_thread(commit_all)
    await clock.sleep(2)
    await kept.keep(lines(5001))
    await kept.close()


async def test_plain_telemetry_makes_room_and_what_was_acknowledged_does_not(
    tmp_path: Path, clock: HandClock
) -> None:
    kept = keeper(tmp_path, clock, cap_bytes=40_000)

    def telemetry(lane: Lane, counts: Sequence[int]) -> None:
        for segment, count in enumerate(counts, start=1):
            write_segment(tmp_path, "0", lane, segment, plain_lines(range(count)))

    await asyncio.to_thread(telemetry, "plain", [60] * 4)
    for number in range(100):
        await kept.keep(lines(number))
    await kept.close()
    await asyncio.to_thread(telemetry, "critical", [20, 1, 1])

    def shrink() -> tuple[dict[Lane, int], list[int]]:
        held = Holdings(spool_dir(tmp_path))
        held.look()
        lost = held.shrink(0)
        return lost, [each.path.read_bytes().count(b"\n") for each in kept_segments(tmp_path)]

    lost, api = await asyncio.to_thread(shrink)
    assert lost == {"plain": 120, "critical": 20}
    assert (len(api) > 2, sum(api)) == (True, 100)


async def test_a_full_disk_refuses_and_harms_nothing_that_was_kept(
    tmp_path: Path, clock: HandClock
) -> None:
    kept = keeper(tmp_path, clock)
    await kept.keep(lines(1))
    with file_limit(len(lines(1)) + 20), pytest.raises(SpoolFull):
        await kept.keep(lines(2))
    await kept.keep(lines(3))
    await kept.close()
    assert await asyncio.to_thread(read, tmp_path, 2) == ["evt-1", "evt-3"]


async def test_a_client_who_leaves_takes_nothing_along(tmp_path: Path, clock: HandClock) -> None:
    kept = keeper(tmp_path, clock)
    leaving = asyncio.ensure_future(kept.keep(lines(1)))  # noqa: TID251
    staying = asyncio.ensure_future(kept.keep(lines(2)))  # noqa: TID251
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    await kept.keep(lines(3))
    await kept.close()
    assert await asyncio.to_thread(read, tmp_path) == ["evt-1", "evt-2", "evt-3"]
