"""T-ST-04: whatever becomes of the server, nobody waits, it is said once, and nothing is lost."""

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.model.batch import Append, Batch, Count, Cursor, LogFilter, StoreUnavailable
from proxy.model.exchange import Json
from proxy.storage.redis.engine import RedisStore, open_store
from tests.kit.redis import Cutter, RedisServer
from tests.kit.redis_faults import FAULTS, forgetful
from tests.kit.store import HandNow

pytestmark = pytest.mark.redis
WS = "workspace-123"
WITHIN_S = 0.5
BACK_WITHIN_S = 3.0


@dataclass
class Told:
    """The log, as the names of its lines."""

    lines: list[str] = field(default_factory=list)

    def __call__(self, event: str, fields: dict[str, Json]) -> None:
        self.lines.append(event)


async def write(store: RedisStore, number: int) -> None:
    known = hashlib.sha256(str(number).encode()).digest()
    append = Append("events", b"{}", f"evt-{number}", known, 3600, at_ms=1)
    ops = (append, Count(5, "all", {0: 1}), Cursor("c", number, number + 1))
    await store.commit(WS, Batch(f"cm-{number}", ops))


async def stored_once(store: RedisStore, count: int) -> None:
    page = await store.range(WS, "events", LogFilter(limit=1000))
    assert (page.total, await store.head(WS, "events")) == (count, count)
    assert await store.cursor(WS, "c") == count
    assert list(await store.rollup(WS, 5, 6)) == [(5, "all", 0, count)]


@pytest.mark.parametrize("fault", FAULTS)
async def test_t_st_04_nobody_waits_it_is_said_once_and_it_is_back_soon(
    fault: str, tmp_path: Path
) -> None:
    told, slowest_s = Told(), 0.0
    options = ("--appendfsync", "always")
    with RedisServer(tmp_path / "own", options=options) as own:
        async with open_store(own.url, HandNow(), told) as store:
            for number in range(20):
                await write(store, number)
            broken = FAULTS[fault](own)
            await asyncio.to_thread(broken.__enter__)
            until = time.monotonic() + 3
            refused = 0
            while time.monotonic() < until:
                began = time.monotonic()
                with pytest.raises(StoreUnavailable) as why:
                    await write(store, 20)
                slowest_s = max(slowest_s, time.monotonic() - began)
                assert why.value.code == "storage-unavailable"
                refused += 1
                await asyncio.sleep(0.02)
            assert not store.writable()
            await asyncio.to_thread(broken.__exit__, None, None, None)
            mended = time.monotonic()
            while not store.writable():
                assert time.monotonic() - mended < BACK_WITHIN_S
                await asyncio.sleep(0.01)
            back_s = time.monotonic() - mended
            for number in range(20, 40):
                await write(store, number)
            await stored_once(store, 40)
    changes = [line for line in told.lines if line != "redis.restarted"]
    assert changes in (
        ["redis.away", "redis.back"], ["redis.refuses_writes", "redis.takes_writes"],
    )  # fmt: skip
    assert slowest_s < WITHIN_S
    print(f"{fault}: {refused} refused, slowest {slowest_s:.3f} s, back {back_s:.2f} s")  # noqa: T201


async def test_t_st_04_a_server_that_is_half_a_second_away(redis: RedisServer) -> None:
    """Every question is answered, too late; what was done is found out by its id."""
    told = Told()
    async with Cutter(redis.port) as cutter, open_store(cutter.url, HandNow(), told) as store:
        for number in range(20):
            await write(store, number)
        cutter.delay_s = 0.5
        for _ in range(20):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await write(store, 20)
            assert time.monotonic() - began < WITHIN_S
        cutter.delay_s = 0.0
        mended = time.monotonic()
        while not store.writable():
            assert time.monotonic() - mended < BACK_WITHIN_S
            await asyncio.sleep(0.01)
        for number in range(20, 40):
            await write(store, number)
        await stored_once(store, 40)
    assert told.lines == ["redis.away", "redis.back"]


async def test_t_st_04_forgotten_scripts_are_noticed_by_nobody(redis: RedisServer) -> None:
    told = Told()
    async with open_store(redis.url, HandNow(), told) as store:
        for number in range(20):
            with forgetful(redis):
                await write(store, number)
        await stored_once(store, 20)
    assert told.lines == []
