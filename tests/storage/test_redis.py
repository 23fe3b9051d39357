"""Redis that is cut, frozen, killed, emptied of its scripts or set up wrong (storage.md §9)."""

import asyncio
import contextlib
import hashlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.control.audit import AUDIT_LOG, Actor, Audit
from proxy.control.trail import verify_audit
from proxy.model.batch import (
    ABSENT,
    Append,
    Batch,
    Count,
    Cursor,
    Delete,
    Idem,
    LogFilter,
    Op,
    Put,
    Retention,
    StoreConflict,
    StoreUnavailable,
)
from proxy.model.exchange import Json
from proxy.storage.faults import CannotOpen
from proxy.storage.redis.engine import RedisStore, open_store
from proxy.storage.redis.server import ANSWER_S
from tests.kit.redis import PATIENT, Cutter, RedisServer, silent
from tests.kit.store import HandClock, HandNow

pytestmark = pytest.mark.redis
WS = "workspace-123"
WITHIN_S = 0.5
DAY_MS = 86_400_000


@dataclass
class Told:
    """The log, as the names of its lines."""

    lines: list[str] = field(default_factory=list)

    def __call__(self, event: str, fields: dict[str, Json]) -> None:
        self.lines.append(event)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may freeze and kill."""
    with RedisServer(tmp_path / "own") as server:
        yield server


@pytest.fixture
async def there(redis: RedisServer, clock: HandClock) -> AsyncIterator[RedisStore]:
    async with open_store(redis.url, clock, silent) as store:
        yield store


def event(number: int, ttl_s: int = 3600, body: bytes = b"{}") -> Append:
    known = hashlib.sha256(str(number).encode()).digest()
    return Append("events", body, f"evt-{number}", known, ttl_s, at_ms=1_000 + number, type="t")


async def until(seconds: float, is_so: Callable[[], bool]) -> float:
    """How long it took; not longer than that."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < seconds, "not in time"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_t_st_03_a_thousand_answers_lost_and_each_effect_once(
    redis: RedisServer, clock: HandClock
) -> None:
    told = Told()
    async with (
        Cutter(redis.port) as cutter,
        open_store(cutter.url, clock, told, PATIENT) as store,
    ):
        for n in range(1000):
            cutter.cut_next()
            ops: list[Op] = [
                Append("events", b"%d" % n, at_ms=1),
                Count(5, "route:a", {0: 1}),
                Cursor("c", n, n + 1),
                Put("doc", "a", b"%d" % n, n if n else ABSENT),
            ]
            result = await store.commit(WS, Batch(f"cm-{n}", tuple(ops)))
            assert result.revisions == {("doc", "a"): n + 1}
            assert [one.seq for one in result.appended] == [n + 1]
        assert cutter.cuts == 1000
        assert await store.head(WS, "events") == 1000
        assert await store.cursor(WS, "c") == 1000
        assert list(await store.rollup(WS, 5, 6)) == [(5, "route:a", 0, 1000)]
        page = await store.range(WS, "events", LogFilter(newest_first=False, limit=1000))
        assert [entry.body for entry in page.entries] == [b"%d" % n for n in range(1000)]
    assert told.lines == []  # a cut that heals is no change


async def test_one_winner_per_revision_among_eight_machines(
    redis: RedisServer, clock: HandClock
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(open_store(redis.url, clock, silent)) for _ in range(8)
        ]
        await stores[0].commit(WS, Batch("cm-0", (Put("doc", "a", b"0"),)))
        for revision in range(1, 21):
            tries = [
                store.commit(
                    WS, Batch(f"cm-{revision}-{n}", (Put("doc", "a", b"%d" % n, revision),))
                )
                for n, store in enumerate(stores)
            ]
            done = await asyncio.gather(*tries, return_exceptions=True)
            assert sum(isinstance(one, StoreConflict) for one in done) == 7
        found = await stores[3].get(WS, "doc", "a")
        assert found is not None
        assert found[0] == 21


async def test_two_machines_write_one_audit_chain(redis: RedisServer, clock: HandClock) -> None:
    """Each chains its rows to the end that it knows; the store finds the true one."""
    actor = Actor("key", "name", "admin", "127.0.0.1", "req")
    async with (
        open_store(redis.url, clock, silent) as one,
        open_store(redis.url, clock, silent) as other,
    ):

        async def work(store: RedisStore, name: str) -> None:
            audit = Audit()
            for n in range(20):
                async with audit.chain(store, WS, clock.now_ms()) as chain:
                    row = chain.row(actor, "doc.update", ("doc", name), [])
                    put = Put("doc", name, b"%d" % n)
                    await store.commit(WS, Batch(f"cm-{name}-{n}", (put, row)))

        await asyncio.gather(work(one, "a"), work(other, "b"), work(one, "c"))
        assert await whole_chain(one) == 60


async def whole_chain(store: RedisStore) -> int:
    """How many rows follow from one another."""

    @dataclass
    class Asking:
        store: RedisStore
        workspace_id: str = WS

    reply = await verify_audit(Asking(store), Asking(store))  # type: ignore[arg-type]
    rows = await store.range(WS, AUDIT_LOG, LogFilter(limit=1000))
    assert b'"ok":true' in reply.body, reply.body
    return len(rows.entries)


async def test_many_appends_go_in_pieces_and_a_refusal_comes_first(there: RedisStore) -> None:
    many = tuple(event(n) for n in range(250))
    done = Idem(b"k", b"f", 202, b"", b"", 60)
    result = await there.commit(WS, Batch("cm-1", (*many, Cursor("c", 0, 9), done)))
    assert [one.seq for one in result.appended] == list(range(1, 251))
    assert await there.cursor(WS, "c") == 9
    more = tuple(event(n) for n in range(300, 550))
    with pytest.raises(StoreConflict) as refused:
        await there.commit(WS, Batch("cm-2", (*more, Cursor("c", 0, 9))))
    assert (refused.value.op, refused.value.reason) == (250, "cursor")
    with pytest.raises(StoreConflict):
        await there.commit(WS, Batch("cm-3", (*more, done)))
    assert await there.head(WS, "events") == 250
    again = await there.commit(WS, Batch("cm-4", many))
    assert {one.status for one in again.appended} == {"duplicate"}


async def test_appends_that_nobody_would_recognise_stay_in_one_piece(there: RedisStore) -> None:
    """A spool's lines are once because of its cursor: half of them would be twice."""
    many = tuple(event(n, ttl_s=0) for n in range(250))
    with pytest.raises(StoreConflict):
        await there.commit(WS, Batch("cm-1", (*many, Cursor("c", 7, 9))))
    assert await there.head(WS, "events") == 0
    await there.commit(WS, Batch("cm-2", (*many, Cursor("c", 0, 9))))
    assert await there.head(WS, "events") == 250


async def test_a_server_that_forgot_the_scripts_gets_them_again(
    redis: RedisServer, there: RedisStore
) -> None:
    for n in range(3):
        redis.command("SCRIPT", "FLUSH")
        await there.commit(WS, Batch(f"cm-{n}", (event(n),)))
    assert await there.head(WS, "events") == 3


async def test_a_frozen_server_holds_nobody(own: RedisServer, clock: HandClock) -> None:
    told = Told()
    async with open_store(own.url, clock, told) as store:
        await store.commit(WS, Batch("cm-0", (event(0),)))
        own.signal(signal.SIGSTOP)
        for n in range(1, 12):
            began = time.monotonic()
            write = store.commit(WS, Batch(f"cm-{n}", (event(n),)))
            with pytest.raises(StoreUnavailable) as refused:
                await (write if n % 2 else store.get(WS, "doc", "a"))
            write.close()
            assert refused.value.code == "storage-unavailable"
            assert time.monotonic() - began < WITHIN_S
        assert not store.writable()
        own.signal(signal.SIGCONT)
        await until(3.0, store.writable)
        await store.commit(WS, Batch("cm-99", (event(99),)))
        assert told.lines == ["redis.away", "redis.back"]


async def test_a_killed_server_comes_back_with_what_it_acknowledged(
    tmp_path: Path, clock: HandClock
) -> None:
    told = Told()
    options = ("--appendfsync", "always")
    with RedisServer(tmp_path / "own", options=options) as own:
        async with open_store(own.url, clock, told) as store:
            for n in range(50):
                await store.commit(WS, Batch(f"cm-{n}", (event(n), Cursor("c", n, n + 1))))
            own.kill()
            with pytest.raises(StoreUnavailable):
                await store.commit(WS, Batch("cm-50", (event(50),)))
            own.start()
            await until(3.0, store.writable)
            assert await store.head(WS, "events") == await store.cursor(WS, "c") == 50
            again = await store.commit(WS, Batch("cm-51", (event(7), event(50))))
            assert [one.status for one in again.appended] == ["duplicate", "accepted"]


async def test_a_server_that_is_away_at_the_start_is_waited_for(
    own: RedisServer, clock: HandClock
) -> None:
    own.kill()
    async with open_store(own.url, clock, silent) as store:
        with pytest.raises(StoreUnavailable):
            await store.commit(WS, Batch("cm-1", (event(1),)))
        own.start()
        await until(5.0, store.writable)
        await store.commit(WS, Batch("cm-1", (event(1),)))


async def test_a_server_that_would_forget_is_refused(tmp_path: Path, clock: HandClock) -> None:
    options = ("--maxmemory-policy", "allkeys-lru")
    with RedisServer(tmp_path / "own", options=options) as own:
        store = RedisStore(own.url, clock, silent)
        with pytest.raises(CannotOpen, match="maxmemory-policy noeviction"):
            await store.start()


async def test_a_server_without_an_append_only_file_is_told_of(
    tmp_path: Path, clock: HandClock
) -> None:
    told = Told()
    with RedisServer(tmp_path / "own", options=("--appendonly", "no")) as own:
        async with open_store(own.url, clock, told) as store:
            assert store.writable()
    assert told.lines == ["redis.not_durable"]


async def test_a_full_server_takes_no_writes_and_is_read(
    own: RedisServer, clock: HandClock
) -> None:
    told = Told()
    async with open_store(own.url, clock, told) as store:
        await store.commit(WS, Batch("cm-1", (Put("doc", "a", b"1"),)))
        own.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable):
            await store.commit(WS, Batch("cm-2", (Put("doc", "a", b"2"), event(2))))
        assert await store.get(WS, "doc", "a") == (1, b"1")
        await until(3.0, lambda: not store.writable())
        own.command("CONFIG", "SET", "maxmemory", "0")
        await until(3.0, store.writable)
        assert await store.head(WS, "events") == 0
        assert told.lines == ["redis.refuses_writes", "redis.takes_writes"]


async def test_too_many_questions_of_ours_are_not_a_dead_server(
    own: RedisServer, clock: HandClock
) -> None:
    told = Told()
    async with open_store(own.url, clock, told) as store:
        await store.commit(WS, Batch("cm-0", (event(0),)))
        own.command("CLIENT", "PAUSE", "120")
        tries = [store.commit(WS, Batch(f"cm-{n}", (event(n),))) for n in range(1, 200)]
        done = await asyncio.gather(*tries, return_exceptions=True)
        codes = {one.code for one in done if isinstance(one, StoreUnavailable)}
        assert "overloaded" in codes
        assert store.writable()
        assert told.lines == []


async def test_a_reader_who_leaves_is_gone_at_once(there: RedisStore) -> None:
    """A question is cancelled wherever it is; no cancellation is lost."""

    async def asking() -> None:
        while True:
            await there.head(WS, "events")

    for n in range(60):
        task = asyncio.ensure_future(asking())  # noqa: TID251
        await asyncio.sleep(0.0001 * n)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1)
        assert done
        assert task.cancelled()
    assert there.writable()


async def test_a_caller_who_leaves_does_not_take_the_batch_along(there: RedisStore) -> None:
    for n in range(50):
        asking = asyncio.ensure_future(  # noqa: TID251
            there.commit(WS, Batch(f"cm-{n}", (event(n),)))
        )
        await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    await until(2.0, lambda: there.queue_depth() == 0)
    assert await there.head(WS, "events") == 50


@pytest.mark.parametrize(
    "op",
    [
        Cursor("c", 0, 1 << 63),
        Append("events", b"", "\ud800", bytes(32), 60),
        Put("doc", "\ud800", b""),
        Count(1, "s", {0: 1 << 60}),
    ],
    ids=["beyond 64 bits", "no text", "no text either", "a counter too large"],
)
async def test_what_no_store_could_hold(there: RedisStore, op: Op) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        await there.commit(WS, Batch("cm-1", (Cursor("d", 0, 1), op)))
    assert await there.cursor(WS, "d") == 0


async def test_positions_keep_all_their_digits(there: RedisStore) -> None:
    high = (1 << 62) + 1
    await there.commit(WS, Batch("cm-1", (Cursor("c", 0, high),)))
    with pytest.raises(StoreConflict):
        await there.commit(WS, Batch("cm-2", (Cursor("c", high - 1, high + 1),)))
    await there.commit(WS, Batch("cm-3", (Cursor("c", high, high + 1),)))
    assert await there.cursor(WS, "c") == high + 1


async def test_old_entries_go_in_bounded_steps_and_the_newest_stays(
    there: RedisStore, clock: HandClock
) -> None:
    for batch in range(13):
        ops = tuple(event(100 * batch + n) for n in range(100))
        await there.commit(WS, Batch(f"cm-{batch}", (*ops, Count(batch, "s", {0: 1}))))
    kept = Retention(events_ms=DAY_MS)
    assert not await there.trim(kept)
    clock.at_ms += 2 * DAY_MS
    steps = 1
    while await there.trim(kept):
        steps += 1
    assert steps == 3
    page = await there.range(WS, "events", LogFilter())
    assert (page.total, [entry.seq for entry in page.entries]) == (1, [1300])
    assert await there.event(WS, "evt-5") is None
    assert await there.event(WS, "evt-1299") is not None
    assert await there.head(WS, "events") == 1300
    assert len(await there.rollup(WS, 0, 99)) == 0  # minutes of 1970


async def test_a_log_keeps_so_many_and_deleted_revisions_are_forgotten_late(
    there: RedisStore, clock: HandClock
) -> None:
    await there.commit(WS, Batch("cm-1", tuple(event(n) for n in range(50))))
    await there.commit(WS, Batch("cm-2", (Put("doc", "a", b"1"),)))
    await there.commit(WS, Batch("cm-3", (Delete("doc", "a"),)))
    while await there.trim(Retention(redis_max_events=10)):
        pass
    page = await there.range(WS, "events", LogFilter())
    assert (page.total, page.entries[-1].seq) == (10, 41)
    assert await there.revision(WS, "doc", "a") == 2
    clock.at_ms += 31 * DAY_MS
    while await there.trim(Retention()):
        pass
    assert await there.revision(WS, "doc", "a") == 0


def test_a_question_and_a_turn_fit_into_half_a_second() -> None:
    assert ANSWER_S + 0.1 < WITHIN_S


async def test_the_clock_of_these_tests_waits() -> None:
    began = time.monotonic()
    await HandNow().sleep(0.01)
    assert time.monotonic() - began >= 0.01
