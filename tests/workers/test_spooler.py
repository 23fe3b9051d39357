"""Spool to store, exactly once (storage.md §5; R01, R03, T-ST-08, T-ST-09)."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from proxy.model.batch import (
    Appended,
    Batch,
    CommitResult,
    Count,
    Cursor,
    LogFilter,
    Op,
    StoreConflict,
    StoreUnavailable,
)
from proxy.model.events import NewEvent
from proxy.runtime.clock import SystemClock
from proxy.spool.reader import Chunk, SpoolReader
from proxy.spool.record import line_of
from proxy.storage.sqlite.engine import open_store
from proxy.wire import jsonbody
from proxy.workers.spooler import Accept, Spent, Spooler
from tests.kit.spool import (
    AT_MS,
    a_blocked_record,
    a_failover_record,
    a_record,
    lines_of,
    write_segment,
)
from tests.kit.store import HandClock, MemoryStore, PlainIntake

WORKSPACES = ("default", "other")


class Crash(Exception):
    """The process is gone here."""


class Fuse:
    """Burns at the n-th step; 0: never."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps = 0

    def __call__(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Crash


class FusedReader(SpoolReader):
    """Steps before and after everything that the reader does for the spooler."""

    def __init__(self, state_dir: Path, fuse: Fuse) -> None:
        super().__init__(state_dir)
        self._fuse = fuse

    def poll(self, now_s: float) -> list[Chunk]:
        self._fuse()
        found = super().poll(now_s)
        self._fuse()
        return found

    def done(self, chunk: Chunk) -> None:
        self._fuse()
        super().done(chunk)
        self._fuse()

    def note(self, now_s: float) -> None:
        self._fuse()
        super().note(now_s)
        self._fuse()


class FusedStore:
    """Steps before and after every call to the store: also the commit whose answer is lost."""

    def __init__(self, store: MemoryStore, fuse: Fuse) -> None:
        self._store = store
        self._fuse = fuse

    async def commit(self, workspace_id: str, batch: Batch) -> CommitResult:
        self._fuse()
        result = await self._store.commit(workspace_id, batch)
        self._fuse()
        return result

    def __getattr__(self, name: str) -> Callable[..., object]:
        self._fuse()
        return getattr(self._store, name)  # type: ignore[no-any-return]


def spooler(
    state_dir: Path,
    store: object,
    clock: HandClock,
    *,
    reader: SpoolReader | None = None,
    accept: Accept | None = None,
    batch_lines: int = 1000,
) -> Spooler:
    return Spooler(
        reader or SpoolReader(state_dir),
        store,  # type: ignore[arg-type]
        accept or PlainIntake(store),  # type: ignore[arg-type]
        clock,
        node="node-1",
        batch_lines=batch_lines,
    )


def fill(state_dir: Path) -> Counter[str]:
    """Two slots, two classes, several segments, two workspaces; the request ids written."""
    numbers = iter(range(10_000))
    ids: list[int] = []
    for slot in ("0", "1"):
        for segment in (1, 2):
            mine = [next(numbers) for _ in range(5)]
            lines = [*lines_of(mine[:2]), *lines_of(mine[2:4], "other"), *lines_of(mine[4:])]
            write_segment(state_dir, slot, "plain", segment, lines)
            ids += mine
        trouble = [next(numbers), next(numbers)]
        lines = [
            line_of(a_blocked_record(trouble[0])),
            line_of(a_failover_record(trouble[1], "other")),
        ]
        write_segment(state_dir, slot, "critical", 1, lines)
        ids += trouble
    return Counter(f"req-{number}" for number in ids)


async def stored(store: object, kind: str = "runtime.request.*") -> Counter[str]:
    found: Counter[str] = Counter()
    for workspace_id in WORKSPACES:
        after = 0
        while True:
            query = LogFilter(types=(kind,), limit=500, newest_first=False, after_seq=after)
            page = await store.range(workspace_id, "events", query)  # type: ignore[attr-defined]
            for entry in page.entries:
                event = jsonbody.loads(entry.body)
                assert isinstance(event, dict)
                found[str(event["request_id"])] += 1
            if page.next_seq is None:
                break
            after = page.next_seq
    return found


async def test_every_line_becomes_its_events(tmp_path: Path) -> None:
    clock = HandClock()
    store = MemoryStore(clock)
    written = await asyncio.to_thread(fill, tmp_path)
    worker = spooler(tmp_path, store, clock)
    await worker.drain()
    assert await stored(store) == written
    assert sum((await stored(store, "runtime.policy.result")).values()) == 2
    assert sum((await stored(store, "runtime.failover.decision")).values()) == 2
    progress = worker.progress()
    assert (progress.lines, progress.events) == (24, 28)
    assert (progress.waiting_bytes, progress.lag_s, progress.corrupt) == (0, 0.0, 0)
    newest = (await store.range("default", "events", LogFilter(limit=1))).entries[0]
    assert jsonbody.loads(newest.body)["source"] == "proxy/node-1/1"  # type: ignore[index,call-overload]
    query = LogFilter(types=("runtime.failover.decision",), limit=1)
    (decision,) = (await store.range("other", "events", query)).entries
    assert b'"node_id":"node-1"' in decision.body, "which machine decided"


async def test_the_key_of_each_request_is_told_of(tmp_path: Path) -> None:
    """Of a plain line, which is not expanded, and of one that is."""
    clock = HandClock()
    store = MemoryStore(clock)
    lines = [
        line_of(a_record(1, api_key_id="plain0000000")),
        line_of(a_record(2)),
        line_of(a_record(3, api_key_id="failed000000", outcome="timeout", finished_at_ms=AT_MS)),
    ]
    await asyncio.to_thread(write_segment, tmp_path, "0", "plain", 1, lines)
    used: list[tuple[str, int]] = []
    reader, accept = SpoolReader(tmp_path), PlainIntake(store)
    worker = Spooler(
        reader, store, accept, clock, node="n", used=lambda key, at_ms: used.append((key, at_ms))
    )
    await worker.drain()
    assert used == [("plain0000000", AT_MS + 1250), ("failed000000", AT_MS)]


async def test_what_requests_cost_is_counted_in_the_commit_of_their_events(tmp_path: Path) -> None:
    clock = HandClock()
    store = MemoryStore(clock)
    lines = [
        line_of(a_record(1, api_key_id="plain0000000", cost_nano=5)),
        line_of(a_record(2, cost_nano=None)),
        line_of(a_record(3, cost_nano=7, outcome="timeout", finished_at_ms=AT_MS)),
    ]
    await asyncio.to_thread(write_segment, tmp_path, "0", "plain", 1, lines)
    seen: list[tuple[str, list[Spent]]] = []

    def counts(workspace_id: str, spent: Sequence[Spent]) -> list[Count]:
        seen.append((workspace_id, list(spent)))
        return [Count(1, "spent", {0: sum(nano for *_, nano in spent)})]

    reader, accept = SpoolReader(tmp_path), PlainIntake(store)
    worker = Spooler(reader, store, accept, clock, node="n", counts=counts)
    await worker.drain()
    assert seen == [
        (
            "default",
            [("prod-chat", "plain0000000", AT_MS + 1250, 5), ("prod-chat", None, AT_MS, 7)],
        )
    ]
    assert list(await store.rollup("default", 1, 2)) == [(1, "spent", 0, 12)]


async def run_until_it_crashes(
    state_dir: Path, store: MemoryStore, at: int, batch_lines: int = 1000
) -> int:
    """Steps taken; the whole run when `at` is 0."""
    fuse, clock = Fuse(at), HandClock()
    reader, fused = FusedReader(state_dir, fuse), FusedStore(store, fuse)
    worker = spooler(state_dir, fused, clock, reader=reader, batch_lines=batch_lines)
    await worker.drain()
    return fuse.steps


@pytest.mark.thorough
@pytest.mark.parametrize("batch_lines", [1000, 2])
async def test_t_st_08_a_crash_between_any_two_steps_neither_loses_nor_doubles(
    tmp_path: Path, batch_lines: int
) -> None:
    written = await asyncio.to_thread(fill, tmp_path / "whole")
    store = MemoryStore(HandClock())
    steps = await run_until_it_crashes(tmp_path / "whole", store, 0, batch_lines)
    assert steps > 40
    for at in range(1, steps + 1):
        state_dir = tmp_path / f"crash-{at}"
        await asyncio.to_thread(fill, state_dir)
        store = MemoryStore(HandClock())
        with pytest.raises(Crash):
            await run_until_it_crashes(state_dir, store, at, batch_lines)
        await run_until_it_crashes(state_dir, store, 0, batch_lines)
        assert await stored(store) == written, f"crash at step {at}"
        again = spooler(state_dir, store, HandClock())
        await again.drain()
        assert again.progress().lines == 0


async def test_crashes_one_after_another_still_come_to_the_end(tmp_path: Path) -> None:
    written = await asyncio.to_thread(fill, tmp_path)
    store = MemoryStore(HandClock())
    for at in (3, 4, 5, 7, 9, 12, 15, 18, 25):
        with pytest.raises(Crash):
            await run_until_it_crashes(tmp_path, store, at)
    await run_until_it_crashes(tmp_path, store, 0)
    assert await stored(store) == written


async def test_r03_a_store_that_is_away_is_waited_for(tmp_path: Path) -> None:
    clock = HandClock()
    store = MemoryStore(clock)
    written = await asyncio.to_thread(fill, tmp_path)
    away = 10

    async def intake(
        workspace_id: str, events: Sequence[NewEvent], *, source: str, also: Sequence[Op] = ()
    ) -> Sequence[Appended]:
        nonlocal away
        away -= 1
        if away > 0:
            raise StoreUnavailable("storage-unavailable", "disk full")
        return await PlainIntake(store)(workspace_id, events, source=source, also=also)

    worker = spooler(tmp_path, store, clock, accept=intake)
    while await worker.step():
        pass
    assert await stored(store) == written
    assert 10 < clock.slept_s < 20


async def test_stopping_does_not_wait_for_a_store_that_is_away(tmp_path: Path) -> None:
    clock = HandClock()
    store = MemoryStore(clock)
    store.can_write = False
    written = await asyncio.to_thread(fill, tmp_path)
    worker = spooler(tmp_path, store, clock)
    await asyncio.wait_for(worker.drain(), 5)
    assert await stored(store) == Counter()
    store.can_write = True
    await spooler(tmp_path, store, clock).drain()
    assert await stored(store) == written


async def test_a_step_that_is_cancelled_loses_nothing(tmp_path: Path) -> None:
    clock = HandClock()
    store = MemoryStore(clock)
    written = await asyncio.to_thread(fill, tmp_path)
    worker = spooler(tmp_path, store, clock)
    for turns in range(30):
        step = asyncio.ensure_future(worker.step())  # noqa: TID251
        for _ in range(turns):
            await asyncio.sleep(0)
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
    await worker.drain()
    assert await stored(store) == written


async def test_a_cursor_that_somebody_moved_is_read_again(tmp_path: Path) -> None:
    clock = HandClock()
    store = MemoryStore(clock)
    first, second = (spooler(tmp_path, store, clock) for _ in range(2))
    for number in range(4):
        await asyncio.to_thread(write_segment, tmp_path, "0", "plain", 1, lines_of([number]))
        worker = first if number % 2 else second
        await worker.step()
    assert await stored(store) == Counter(f"req-{number}" for number in range(4))


async def test_a_line_that_cannot_be_stored_is_left_out_alone(tmp_path: Path) -> None:
    clock = HandClock()
    store = MemoryStore(clock)
    await asyncio.to_thread(write_segment, tmp_path, "0", "plain", 1, lines_of(range(5)))

    async def intake(
        workspace_id: str, events: Sequence[NewEvent], *, source: str, also: Sequence[Op] = ()
    ) -> Sequence[Appended]:
        if any(event.body["event_id"] == "evt-3" for event in events):
            raise ValueError("no store could hold this")
        return await PlainIntake(store)(workspace_id, events, source=source, also=also)

    worker = spooler(tmp_path, store, clock, accept=intake)
    await worker.drain()
    assert await stored(store) == Counter(f"req-{n}" for n in (0, 1, 2, 4))
    assert worker.progress().refused == 1
    await spooler(tmp_path, store, clock).drain()
    assert await stored(store) == Counter(f"req-{n}" for n in (0, 1, 2, 4))


async def test_a_disk_that_cannot_be_read_is_counted_and_looked_at_again(tmp_path: Path) -> None:
    clock = HandClock()
    store = MemoryStore(clock)
    path = await asyncio.to_thread(write_segment, tmp_path, "0", "plain", 1, lines_of([1]))
    os.rename(path, tmp_path / "aside")
    os.mkdir(path)
    worker = spooler(tmp_path, store, clock)
    assert not await worker.step()
    assert worker.progress().faults == 1
    os.rmdir(path)
    os.rename(tmp_path / "aside", path)
    await worker.drain()
    assert await stored(store) == Counter(["req-1"])


async def test_a_wiped_spool_is_another_spool(tmp_path: Path) -> None:
    clock = HandClock()
    store = MemoryStore(clock)
    for name, numbers in (("first", [1, 2]), ("second", [3])):
        await asyncio.to_thread(write_segment, tmp_path / name, "0", "plain", 1, lines_of(numbers))
        await spooler(tmp_path / name, store, clock).drain()
    assert await stored(store) == Counter(["req-1", "req-2", "req-3"])


class EndingClock(HandClock):
    """Calls `at_the_end` when it was slept for long enough."""

    def __init__(self, after_s: float) -> None:
        super().__init__()
        self.after_s = after_s
        self.at_the_end: Callable[[], None] = lambda: None

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        if self.slept_s >= self.after_s:
            self.at_the_end()


class CountedReader(SpoolReader):
    polls = 0

    def poll(self, now_s: float) -> list[Chunk]:
        self.polls += 1
        return super().poll(now_s)


async def test_idle_it_looks_ten_times_a_second(tmp_path: Path) -> None:
    clock, reader = EndingClock(after_s=1), CountedReader(tmp_path)
    worker = spooler(tmp_path, MemoryStore(clock), clock, reader=reader)
    clock.at_the_end = worker.stop
    await worker.run()
    assert 10 <= reader.polls <= 11


async def test_the_lag_is_how_long_ago_all_was_read(tmp_path: Path) -> None:
    clock = HandClock()
    store = MemoryStore(clock)
    worker = spooler(tmp_path, store, clock)
    await worker.step()
    store.can_write = False
    await asyncio.to_thread(write_segment, tmp_path, "0", "plain", 1, lines_of([1]))
    clock.at_ms += 30_000
    await worker.drain()
    assert worker.progress().lag_s == 30.0
    assert worker.progress().waiting_bytes > 0


async def test_the_position_is_refused_when_it_is_not_the_stored_one() -> None:
    store = MemoryStore(HandClock())
    with pytest.raises(StoreConflict):
        await store.commit("w", Batch("cm", (Cursor("spool/x/0/plain", 5, 9),)))


CHILD = """
import asyncio, sys
from pathlib import Path
from proxy.runtime.clock import SystemClock
from proxy.spool.reader import SpoolReader
from proxy.storage.sqlite.engine import open_store
from proxy.workers.spooler import Accept, Spooler
from tests.kit.store import PlainIntake

async def main():
    home = Path(sys.argv[1])
    async with open_store(home / "p.db", SystemClock()) as store:
        print("ready", flush=True)
        spooler = Spooler(SpoolReader(home), store, PlainIntake(store), SystemClock(), node="n")
        await spooler.run()

asyncio.run(main())
"""


@pytest.mark.process
async def test_t_st_08_sigkill_of_the_consumer_with_a_real_store(tmp_path: Path) -> None:
    lines = 12_000
    for segment in range(1, 13):
        numbers = range((segment - 1) * 1000, segment * 1000)
        mixed = [lines_of([n], WORKSPACES[n % 2])[0] for n in numbers]
        await asyncio.to_thread(write_segment, tmp_path, "0", "plain", segment, mixed)
    kills = 0
    for delay_s in (0.02, 0.05, 0.08, 0.12):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        assert await asyncio.wait_for(child.stdout.readline(), 20) == b"ready\n"
        await asyncio.sleep(delay_s)
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
        kills += 1
    async with open_store(tmp_path / "p.db", SystemClock()) as store:
        before = sum((await stored(store)).values())
        worker = Spooler(SpoolReader(tmp_path), store, PlainIntake(store), SystemClock(), node="n")
        await worker.drain()
        found = await stored(store)
    assert kills == 4
    assert 0 < before < lines  # they were killed at work
    assert found == Counter(f"req-{number}" for number in range(lines))
