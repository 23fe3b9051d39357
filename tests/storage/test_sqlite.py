"""What is SQLite's own: groups, poison, bounds, segments, retention, limits (storage.md §3)."""

import asyncio
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.model.batch import (
    Append,
    Batch,
    Cursor,
    Idem,
    LogFilter,
    Op,
    Put,
    Retention,
    StoreConflict,
    StoreUnavailable,
)
from proxy.storage.sqlite.bounds import Bounds
from proxy.storage.sqlite.engine import SqliteStore, open_store
from tests.kit.store import HandClock

WS = "workspace-123"
DAY_MS = 86_400_000
SMALL = Bounds(segment_entries=10, read_entries=25)


def batch(*ops: Op) -> Batch:
    return Batch("cm-1", ops)


def entry(number: int, **changes: object) -> Append:
    made = Append("events", b"%d" % number, f"evt-{number}", bytes(32), at_ms=number, type="t")
    return replace(made, **changes)  # type: ignore[arg-type]


def tables(path: Path) -> list[str]:
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT name FROM sqlite_master WHERE name GLOB 'ev_[0-9]*[0-9]'")
        found = sorted(name for (name,) in rows.fetchall())
    db.close()
    return found


async def test_many_callers_share_a_transaction(tmp_path: Path) -> None:
    async with open_store(tmp_path / "p.db", HandClock()) as store:
        tries = [store.commit(WS, batch(entry(n), Cursor("c", 0, 1))) for n in range(400)]
        done = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(one, StoreConflict) for one in done) == 399
        assert await store.head(WS, "events") == 1
        assert store._writer.groups < 100


async def test_a_batch_that_cannot_be_stored_harms_no_other(tmp_path: Path) -> None:
    poison: list[Op] = [
        Idem(b"k", b"f", 1 << 70, b"", b"", 60),
        entry(1, type="\ud800"),
        entry(1, at_ms=1 << 64),
    ]
    async with open_store(tmp_path / "p.db", HandClock()) as store:
        await store.commit(WS, batch(entry(0)))
        for op in poison:
            tries = [store.commit(WS, batch(entry(1), op)), store.commit(WS, batch(entry(2)))]
            spoiled, whole = await asyncio.gather(*tries, return_exceptions=True)
            assert isinstance(spoiled, ValueError)
            assert not isinstance(whole, BaseException)
        page = await store.range(WS, "events", LogFilter(newest_first=False))
        assert [one.body for one in page.entries] == [b"0", b"2", b"2", b"2"]
        assert [one.seq for one in page.entries] == [1, 2, 3, 4]
        assert store.writable()


async def test_a_full_queue_refuses_and_a_cancelled_caller_does_not_undo(tmp_path: Path) -> None:
    async with open_store(tmp_path / "p.db", HandClock(), Bounds(queue_batches=3)) as store:
        # the writer is held until the loop runs again
        held = asyncio.Event()
        loop = asyncio.get_running_loop()
        gate = store._writer.ask(
            lambda db: asyncio.run_coroutine_threadsafe(held.wait(), loop).result(5)
        )
        await asyncio.sleep(0)
        tries = [asyncio.ensure_future(store.commit(WS, batch(entry(n)))) for n in range(5)]  # noqa: TID251
        await asyncio.sleep(0)
        refused = [one for one in tries if one.done()]
        assert refused
        assert all(isinstance(one.exception(), StoreUnavailable) for one in refused)
        taken = [one for one in tries if one not in refused]
        taken[0].cancel()
        held.set()
        await gate
        await asyncio.gather(*taken, return_exceptions=True)
        assert await store.head(WS, "events") == len(taken)


async def test_segments_roll_by_entries_and_by_day(tmp_path: Path) -> None:
    clock = HandClock()
    async with open_store(tmp_path / "p.db", clock, SMALL) as store:
        await store.commit(WS, batch(*map(entry, range(1, 24))))
        await store.commit("other", batch(entry(1)))
        clock.at_ms += DAY_MS
        await store.commit(WS, batch(entry(24), entry(25, log="audit")))
        page = await store.range(WS, "events", LogFilter(offset=12, limit=3))
        assert [one.seq for one in page.entries] == [12, 11, 10]
        assert page.total == 24
        found = await store.event(WS, "evt-7")
        assert found is not None
        assert found.seq == 7
    assert len(tables(tmp_path / "p.db")) == 5  # 10 + 10 + 4, the next day, audit


async def test_a_question_that_reads_too_much_is_partial_and_goes_on(tmp_path: Path) -> None:
    async with open_store(tmp_path / "p.db", HandClock(), SMALL) as store:
        for first in range(1, 101, 10):
            group = [
                entry(n, outcome="x" if n % 50 == 1 else "y") for n in range(first, first + 10)
            ]
            await store.commit(WS, batch(*group))
        for newest_first, seqs in ((True, [51, 1]), (False, [1, 51])):
            query = LogFilter(outcomes=("x",), limit=5, newest_first=newest_first)
            seen: list[int] = []
            for _ in range(10):
                page = await store.range(WS, "events", query)
                seen += [one.seq for one in page.entries]
                assert (page.total is None) == page.partial == (page.next_seq is not None)
                if page.next_seq is None:
                    break
                ends = {"before_seq" if newest_first else "after_seq": page.next_seq}
                query = replace(query, **ends)
            assert seen == seqs
        whole = await store.range(WS, "events", LogFilter(limit=1))
        assert (whole.total, whole.partial) == (100, False)


async def test_an_index_reads_only_what_fits(tmp_path: Path) -> None:
    async with open_store(tmp_path / "p.db", HandClock(), SMALL) as store:
        await store.commit(WS, batch(*[entry(n, request_id=f"req-{n}") for n in range(1, 101)]))
        page = await store.range(WS, "events", LogFilter(request_ids=("req-3",)))
        assert ([one.seq for one in page.entries], page.total) == ([3], 1)


@pytest.mark.thorough
async def test_a_question_that_takes_too_long_is_aborted(tmp_path: Path) -> None:
    clock = HandClock()
    async with open_store(tmp_path / "p.db", clock, Bounds(query_s=-1)) as store:
        await store.commit(WS, batch(*[entry(n, outcome="x") for n in range(20_000)]))
        with pytest.raises(StoreUnavailable) as caught:
            await store.range(WS, "events", LogFilter(outcomes=("y",), severities=(1,)))
        assert caught.value.code == "query-timeout"
        assert await store.head(WS, "events") == 20_000


async def test_what_cannot_be_asked_is_refused_and_the_readers_live_on(tmp_path: Path) -> None:
    async with open_store(tmp_path / "p.db", HandClock()) as store:
        await store.commit(WS, batch(entry(1)))
        for query in (LogFilter(severities=(1 << 70,)), LogFilter(route_ids=("\ud800",))):
            for _ in range(5):
                with pytest.raises(ValueError, match="cannot be asked"):
                    await store.range(WS, "events", query)
        with pytest.raises(ValueError, match="cannot be done"):
            await store.trim(Retention(rollups_ms=-(1 << 90)))
        assert await store.head(WS, "events") == 1
        await store.commit(WS, batch(entry(2)))


async def test_the_log_of_the_database_stays_small(tmp_path: Path) -> None:
    async with open_store(tmp_path / "p.db", HandClock()) as store:
        for first in range(0, 6000, 100):
            group = [entry(n, body=bytes(1000)) for n in range(first, first + 100)]
            await store.commit(WS, batch(*group))
        assert os.stat(tmp_path / "p.db-wal").st_size < 12_000_000
        assert os.stat(tmp_path / "p.db").st_size > 6_000_000


async def trimmed(store: SqliteStore, retention: Retention) -> int:
    steps = 1
    while await store.trim(retention):
        steps += 1
    return steps


async def test_old_segments_go_whole_and_their_numbers_never_come_again(tmp_path: Path) -> None:
    clock = HandClock()
    async with open_store(tmp_path / "p.db", clock, SMALL) as store:
        await store.commit(WS, batch(*map(entry, range(1, 26)), entry(1, log="own")))
        clock.at_ms += 8 * DAY_MS
        await store.commit(WS, batch(entry(26), entry(2, log="own")))
        await trimmed(store, Retention())
        page = await store.range(WS, "events", LogFilter(newest_first=False))
        assert [one.seq for one in page.entries] == [26]
        assert page.total == 1
        assert await store.event(WS, "evt-3") is None
        assert await store.head(WS, "own") == 2
        assert (await store.range(WS, "own", LogFilter())).total == 2
        await store.commit(WS, batch(entry(27)))
        assert await store.head(WS, "events") == 27
    assert "ev_000001" not in tables(tmp_path / "p.db")


async def test_too_many_bytes_go_oldest_first(tmp_path: Path) -> None:
    async with open_store(tmp_path / "p.db", HandClock(), SMALL) as store:
        await store.commit(WS, batch(*[entry(n, body=b"x" * 1000) for n in range(1, 101)]))
        await trimmed(store, Retention(events_bytes=50_000))
        page = await store.range(WS, "events", LogFilter(newest_first=False, limit=1))
        assert page.total is not None
        assert 20 <= page.total <= 40
        assert page.entries[0].seq == 101 - page.total


async def test_what_expired_is_removed_in_bounded_steps(tmp_path: Path) -> None:
    clock = HandClock()
    async with open_store(tmp_path / "p.db", clock) as store:
        ops: list[Op] = [Idem(b"%d" % n, b"", 200, b"", b"", 60) for n in range(1500)]
        await store.commit(WS, batch(*ops, Put("doc", "a", b"")))
        await store.commit(WS, batch(entry(1, dedupe_ttl_s=60)))
        clock.at_ms += 61_000
        assert await trimmed(store, Retention()) >= 2
    with sqlite3.connect(tmp_path / "p.db") as db:
        counts = [db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("idem", "dedupe")]
    db.close()
    assert counts == [0, 0]


async def test_closing_writes_what_was_taken(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "p.db", HandClock())
    await asyncio.to_thread(store.open)
    waiting = [asyncio.ensure_future(store.commit(WS, batch(entry(n)))) for n in range(50)]  # noqa: TID251
    await asyncio.sleep(0)
    await store.close()
    assert [one.exception() for one in waiting] == [None] * 50
    with pytest.raises(StoreUnavailable):
        await store.commit(WS, batch(entry(51)))
    with pytest.raises(StoreUnavailable):
        await store.head(WS, "events")
    async with open_store(tmp_path / "p.db", HandClock()) as again:
        assert await again.head(WS, "events") == 50
