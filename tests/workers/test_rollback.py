"""A store that came back without its last commits: what it forgot is read again (T-ST-05)."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy.model.batch import Append, Batch, LogFilter, Op, Setback, StoreUnavailable
from proxy.spool.cursors import CursorFile
from proxy.spool.reader import SpoolReader
from proxy.storage.redis.engine import RedisStore, open_store
from proxy.wire import jsonbody
from proxy.workers.spooler import Spooler
from tests.kit.redis import RedisServer
from tests.kit.spool import lines_of, write_segment
from tests.kit.store import HandClock, HandNow, MemoryStore, PlainIntake

WORKSPACES = ("default", "other")


class Forgetful(MemoryStore):
    """Remembers a moment and can be put back to it."""

    restarts = 0
    silent = 0  # so many questions for a cursor are not answered

    async def cursor(self, workspace_id: str, name: str) -> int:
        if self.silent:
            self.silent -= 1
            raise StoreUnavailable("storage-unavailable", "away")
        return await super().cursor(workspace_id, name)

    def remember(self) -> None:
        self._then = {name: room.copy() for name, room in self._rooms.items()}

    def forget(self) -> None:
        self._rooms = self._then
        self.restarts += 1


def write(home: Path, slot: str, segment: int, first: int, count: int) -> None:
    """Lines of both workspaces in turn."""
    lines = [lines_of([n], WORKSPACES[n % 2])[0] for n in range(first, first + count)]
    write_segment(home, slot, "plain", segment, lines)


async def stored(store: MemoryStore | RedisStore) -> list[str]:
    found: list[str] = []
    for workspace_id in WORKSPACES:
        page = await store.range(workspace_id, "events", LogFilter(limit=1000))
        for entry in page.entries:
            event = jsonbody.loads(entry.body)
            assert isinstance(event, dict)
            found.append(str(event["request_id"]))
    return sorted(found)


def spooler(
    home: Path,
    store: Forgetful,
    clock: HandClock,
    *,
    told: bool,
    memory: CursorFile | None = None,
) -> Spooler:
    return Spooler(
        SpoolReader(home),
        store,
        PlainIntake(store),
        clock,
        node="n",
        batch_lines=3,
        restarts=lambda: store.restarts if told else 0,
        memory=memory,
    )


async def all_of(worker: Spooler) -> None:
    while await worker.step():
        pass


@pytest.mark.parametrize("told", [True, False], ids=["told of the restart", "at the next commit"])
@pytest.mark.parametrize("after", [0, 4, 9], ids=["nothing kept", "some kept", "most kept"])
async def test_what_was_forgotten_is_read_again(tmp_path: Path, told: bool, after: int) -> None:
    clock = HandClock()
    store = Forgetful(clock)
    worker = spooler(tmp_path, store, clock, told=told)
    for slot in ("0", "1"):
        await asyncio.to_thread(write, tmp_path, slot, 1, 100 * int(slot), after)
    await all_of(worker)
    store.remember()
    for slot in ("0", "1"):
        await asyncio.to_thread(write, tmp_path, slot, 2, 100 * int(slot) + after, 10)
    await all_of(worker)
    store.forget()
    expected = [n for slot in (0, 100) for n in range(slot, slot + after + 10)]
    if not told:  # with the next lines it is seen
        for slot in ("0", "1"):
            await asyncio.to_thread(write, tmp_path, slot, 3, 100 * int(slot) + after + 10, 2)
        expected = [n for slot in (0, 100) for n in range(slot, slot + after + 12)]
    await all_of(worker)
    assert await stored(store) == sorted(f"req-{n}" for n in expected)
    assert worker.progress().rollbacks == 1


async def test_a_restart_that_forgot_nothing_changes_nothing(tmp_path: Path) -> None:
    clock = HandClock()
    store = Forgetful(clock)
    worker = spooler(tmp_path, store, clock, told=True)
    await asyncio.to_thread(write, tmp_path, "0", 1, 0, 10)
    await all_of(worker)
    store.remember()
    store.forget()
    await all_of(worker)
    assert await stored(store) == sorted(f"req-{n}" for n in range(10))
    assert worker.progress().rollbacks == 0


@pytest.mark.parametrize("away", [False, True], ids=["there at the start", "away at the start"])
async def test_what_was_forgotten_while_nobody_looked_is_read_again(
    tmp_path: Path, away: bool
) -> None:
    """Machine and store were down together: the position files are ahead of the store."""
    clock = HandClock()
    store = Forgetful(clock)

    def started(tag: str = "this store") -> Spooler:
        return spooler(tmp_path, store, clock, told=True, memory=CursorFile(tmp_path, tag))

    await asyncio.to_thread(write, tmp_path, "0", 1, 0, 10)
    worker = started()
    await all_of(worker)
    await worker.drain()
    store.remember()
    await asyncio.to_thread(write, tmp_path, "0", 2, 10, 10)
    worker = started()
    await all_of(worker)
    await worker.drain()
    store.forget()
    worker = started("another store")
    await all_of(worker)
    assert (len(await stored(store)), worker.progress().rollbacks) == (10, 0)
    worker = started()
    if away:  # then the next commit finds it out
        await asyncio.to_thread(write, tmp_path, "0", 3, 20, 2)
        store.silent = 1
    await all_of(worker)
    assert await stored(store) == sorted(f"req-{n}" for n in range(22 if away else 20))
    assert worker.progress().rollbacks == 1
    await worker.drain()
    worker = started()
    await all_of(worker)
    assert worker.progress().rollbacks == 0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.mark.redis
async def test_t_st_05_redis_crashes_and_has_lost_its_last_second(
    server: RedisServer, tmp_path: Path
) -> None:
    home = tmp_path / "state"
    clock, lines = HandNow(), list[str]()
    await asyncio.to_thread(write, home, "0", 1, 0, 40)
    async with open_store(server.url, clock, lambda event, fields: lines.append(event)) as store:
        worker = Spooler(
            SpoolReader(home),
            store,
            PlainIntake(store),
            clock,
            node="n",
            batch_lines=store.batch_lines,
            restarts=lambda: store.restarts,
            tell_forgotten=store.forgot,
        )
        await all_of(worker)
        await asyncio.to_thread(server.remember)
        await asyncio.to_thread(write, home, "0", 2, 40, 30)
        await all_of(worker)
        assert len(await stored(store)) == 70
        await asyncio.to_thread(server.lose)
        await until(5, lambda: store.restarts == 1)
        assert len(await stored(store)) == 40
        await all_of(worker)
        assert await stored(store) == sorted(f"req-{n}" for n in range(70))
        assert worker.progress().rollbacks == store.rollbacks == 1
        await asyncio.sleep(1.5)  # what the spooler found out is the same rollback
        assert store.rollbacks == 1
    assert [lines.count(each) for each in ("redis.restarted", "store.rolled_back")] == [1, 1]


@pytest.mark.redis
@pytest.mark.parametrize("more", [0, 2, 30], ids=["shorter", "shorter yet", "longer again"])
async def test_a_log_that_lost_its_end_is_found_out(server: RedisServer, more: int) -> None:
    """Also when it is longer than it was before anybody looks."""
    clock, lines = HandNow(), list[str]()

    def events(first: int, count: int) -> tuple[Op, ...]:
        return tuple(Append("events", b"{}", f"e-{first + n}") for n in range(count))

    async with open_store(server.url, clock, lambda event, fields: lines.append(event)) as store:
        await store.commit("default", Batch("cm-1", events(0, 10)))
        await store.commit("other", Batch("cm-2", events(0, 5)))
        await asyncio.to_thread(server.remember)
        await store.commit("default", Batch("cm-3", events(10, 7)))
        assert await store.head("default", "events") == 17
        assert store.setback("default", "events") == Setback(0, 0)
        await asyncio.to_thread(server.lose)
        for n in range(more):
            await insist(store, Batch(f"cm-4-{n}", events(100 + n, 1)))
        await until(5, lambda: store.rollbacks == 1)
        assert store.setback("default", "events") == Setback(1, 10)
        assert store.setback("other", "events") == Setback(0, 0)
        link = store.link()
        assert link["rollbacks"] == 1
        assert isinstance(link["last_rollback_at"], str)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await until(5, lambda: store.restarts == 2)
        assert store.rollbacks == 1
    assert lines.count("store.rolled_back") == 1


async def insist(store: RedisStore, batch: Batch) -> None:
    while True:
        try:
            await store.commit("default", batch)
        except StoreUnavailable:
            await asyncio.sleep(0.001)
        else:
            return


async def until(seconds: float, is_so: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < seconds, "not in time"
        await asyncio.sleep(0.02)
