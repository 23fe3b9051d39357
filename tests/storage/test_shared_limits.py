"""Two nodes over one Redis hold a limit together, and each its part while Redis is away."""

import asyncio
from pathlib import Path

import pytest

from proxy.app.limits import LimitsOfNode
from proxy.model.exchange import Json
from proxy.routing.limits import Name
from proxy.storage.redis.engine import RedisStore, open_store
from proxy.storage.redis.limits import RedisLimits
from tests.kit.redis import RedisServer, silent
from tests.kit.redis_faults import killed
from tests.kit.store import HandClock, HandNow

pytestmark = pytest.mark.redis

CHAT: Name = ("route", "default", "chat")
SECOND_NS = 1_000_000_000


def node(store: RedisStore, clock: HandClock, process: str) -> LimitsOfNode:
    return LimitsOfNode(store, clock, lambda: 1, RedisLimits(store.server), lambda: 2, process)


def report(taken_s: int, under_way: int = 0) -> dict[str, Json]:
    taken = taken_s * SECOND_NS
    return {"run": "r", "rows": [[*CHAT, False, taken, taken, 0, 0, under_way, 0, 0]]}


async def test_two_nodes_count_together(redis: RedisServer) -> None:
    clock = HandClock()
    async with (
        open_store(redis.url, HandNow(), silent) as first,
        open_store(redis.url, HandNow(), silent) as second,
    ):
        a, b = node(first, clock, "a"), node(second, clock, "b")
        shared = RedisLimits(first.server), RedisLimits(second.server)
        for one, limits in zip((a, b), shared, strict=True):
            one.take(0, report(0))
            await one.share(limits)
        a.take(0, report(10, under_way=2))
        b.take(0, report(5))
        for _ in range(2):
            for one, limits in zip((a, b), shared, strict=True):
                await one.share(limits)
        rows = [one.take(0, report(taken))["rows"] for one, taken in ((a, 10), (b, 5))]
        found = [row[3:6] + row[9:10] for (row,) in rows]  # type: ignore[union-attr,misc,call-overload,index]
        assert found == [
            [15 * SECOND_NS, 10 * SECOND_NS, 1, 0],
            [15 * SECOND_NS, 5 * SECOND_NS, 1, 2],
        ]
        assert (a.meters.divisor, b.meters.divisor) == (1, 1)


async def test_r07_without_redis_each_node_has_its_part(tmp_path: Path) -> None:
    clock = HandClock()
    with RedisServer(tmp_path / "own") as server:
        async with open_store(server.url, HandNow(), silent) as store:
            one, limits = node(store, clock, "a"), RedisLimits(store.server)
            await one.share(limits)
            assert one.meters.divisor == 1
            with killed(server):
                await one.share(limits)
                assert one.take(0, report(1))["divisor"] == 2
            for _ in range(100):
                await one.share(limits)
                if one.meters.divisor == 1:
                    break
                await asyncio.sleep(0.1)
            assert one.meters.divisor == 1
