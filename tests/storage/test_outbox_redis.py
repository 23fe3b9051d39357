"""The outbox and the leases on a Redis whose answers get lost, that forgets, or is away."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from proxy.model.batch import (
    Batch,
    Count,
    OutboxDone,
    OutboxPut,
    OutboxRetry,
    StoreConflict,
    StoreUnavailable,
)
from proxy.storage.redis.engine import RedisStore, open_store
from proxy.storage.redis.keys import Keys
from tests.kit.redis import PATIENT, Cutter, RedisServer, silent
from tests.kit.store import HandClock

pytestmark = pytest.mark.redis
WS = "workspace-123"
LONG_MS = 3_600_000


def posts(count: int, group: str = "") -> tuple[OutboxPut, ...]:
    return tuple(OutboxPut("ops", group, "alert", b"%d" % n, 0) for n in range(count))


async def test_t_st_03_lost_answers_are_settled_and_each_row_is_had_once(
    redis: RedisServer, clock: HandClock
) -> None:
    """Of commits, claims and leases; now and then the scripts are forgotten, too."""
    async with (
        Cutter(redis.port) as cutter,
        open_store(cutter.url, clock, silent, PATIENT) as store,
    ):
        for n in range(100):
            if n % 10 == 0:
                redis.command("SCRIPT", "FLUSH")
            cutter.cut_next()
            ops = (*posts(2, f"{n}" if n % 2 else ""), Count(1, "posted", {0: 2}))
            made = await store.commit(WS, Batch(f"cm-{n}", ops))
            assert made.outbox == [2 * n + 1, 2 * n + 2]
            sent = 0
            while sent < 2:
                cutter.cut_next()
                rows = await store.claim(WS, "n", lease_ms=LONG_MS)
                assert [row.token for row in rows] == [1] * (1 if n % 2 else 2)
                sent += len(rows)
                done = tuple(OutboxDone(row.id, row.token) for row in rows)
                cutter.cut_next()
                await store.commit(WS, Batch(f"cm-{n}-{sent}", done))
            assert await store.outbox(WS) == []
        assert cutter.cuts >= 300
        assert await store.rollup(WS, 0, 9) == [(1, "posted", 0, 200)]
        cutter.cut_next()
        token = await store.leases.take(WS, "a", 60)
        assert token is not None
        cutter.cut_next()
        assert await store.leases.renew(WS, "a", token, 60)
        cutter.cut_next()
        await store.leases.free(WS, "a", token)
        assert await store.leases.take(WS, "b", 60) is not None


async def test_no_token_is_given_twice_when_the_server_lost_the_last_one(
    redis: RedisServer, clock: HandClock
) -> None:
    async with open_store(redis.url, clock, silent, PATIENT) as store:
        first = await store.leases.take(WS, "a", 60)
        assert first is not None
        await asyncio.sleep(0.005)
        redis.command("FLUSHALL")
        second = await store.leases.take(WS, "b", 60)
        assert second is not None
        assert second > first


async def test_nothing_is_left_of_a_row_that_is_done(redis: RedisServer, clock: HandClock) -> None:
    async with open_store(redis.url, clock, silent, PATIENT) as store:
        await store.commit(WS, Batch("cm-1", posts(5, "g")))
        for n in range(5):
            (row,) = await store.claim(WS, "n", lease_ms=LONG_MS)
            back = OutboxRetry(row.id, row.token, 0, 1)
            await store.commit(WS, Batch(f"cb-{n}", (back,)))
            (row,) = await store.claim(WS, "n", lease_ms=LONG_MS)
            await store.commit(WS, Batch(f"cm-d{n}", (OutboxDone(row.id, row.token),)))
        keys = Keys(WS)
        names = [keys.waiting(), keys.claimed(), keys.all_rows(), keys.group("ops", "g")]
        names += [keys.row(1), keys.row(5)]
        assert redis.command("EXISTS", *(name.decode() for name in names)) == b":0\r\n"


ASKED: dict[str, Callable[[RedisStore], Awaitable[object]]] = {
    "claim": lambda store: store.claim(WS, "n", lease_ms=1),
    "list": lambda store: store.outbox(WS),
    "count": lambda store: store.outbox_pending(),
    "take": lambda store: store.leases.take(WS, "a", 1),
    "renew": lambda store: store.leases.renew(WS, "a", 1, 1),
    "free": lambda store: store.leases.free(WS, "a", 1),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
async def test_without_a_server_everybody_is_told_so(
    tmp_path: Path, clock: HandClock, asked: Callable[[RedisStore], Awaitable[object]]
) -> None:
    own = RedisServer(tmp_path / "own")
    async with open_store(own.url, clock, silent) as store:
        with pytest.raises(StoreUnavailable):
            await asked(store)


async def test_rows_and_leases_outlive_a_crash_of_the_server(
    tmp_path: Path, clock: HandClock
) -> None:
    """With an append-only file that is written at once; what was stale before is so after."""
    with RedisServer(tmp_path / "own", options=("--appendfsync", "always")) as own:
        async with open_store(own.url, clock, silent) as store:
            await store.commit(WS, Batch("cm-1", posts(3, "g")))
            (stale,) = await store.claim(WS, "n", lease_ms=0)
            (row,) = await store.claim(WS, "n", lease_ms=LONG_MS)
            token = await store.leases.take(WS, "a", 60)
            assert token is not None
        own.kill()
        own.start()
        async with open_store(own.url, clock, silent) as store:
            assert [each.token for each in await store.outbox(WS)] == [2, 0, 0]
            assert await store.claim(WS, "m", lease_ms=LONG_MS) == []
            assert await store.leases.take(WS, "b", 60) is None
            assert await store.leases.renew(WS, "a", token, 60)
            with pytest.raises(StoreConflict):
                await store.commit(WS, Batch("cm-2", (OutboxDone(stale.id, stale.token),)))
            await store.commit(WS, Batch("cm-3", (OutboxDone(row.id, row.token),)))
            assert [each.id for each in await store.claim(WS, "m", lease_ms=LONG_MS)] == [2]
