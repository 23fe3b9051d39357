"""Two nodes over one Redis, one view of the endpoints; and each its own without it (R28)."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.kit.httpclient import Answer, post
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.provider import FakeProvider
from tests.kit.redis import RedisServer
from tests.kit.replies import ok, status

pytestmark = [pytest.mark.process, pytest.mark.redis]

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
TRIP = 5
VISIBLE_S = 0.75
CONVERGED_S = 2.0
Two = tuple[Parapet, Parapet]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.fixture
async def two(redis: RedisServer, provider: FakeProvider, tmp_path: Path) -> AsyncIterator[Two]:
    async with FakeProvider(ok(), strict=False) as spare:
        endpoints = [
            endpoint("main", "openai", provider.url + "/v1"),
            endpoint("spare", "openai", spare.url + "/v1"),
        ]
        policies = [
            {
                "id": f"{name}-fo",
                "route_id": name,
                "primary_endpoint": "main",
                "fallback_endpoints": ["spare"],
                "conditions": {"error_rate_threshold": 0.9, "consecutive_failures": TRIP},
                "recovery": {"cooldown_seconds": 60, "max_cooldown_seconds": 60},
                "request_failover": {"same_endpoint_retries": 0},
            }
            for name in ("first", "second")
        ]
        routes = [{"id": name, "endpoint": "main"} for name in ("first", "second")]
        config = {**workspace(endpoints, routes, *policies), "store": redis.url}
        both = [Parapet(config, tmp_path / name, single=True) for name in ("one", "other")]
        try:
            await asyncio.gather(*(each.start() for each in both))
            yield both[0], both[1]
        finally:
            for each in both:
                await each.kill()


async def ask(parapet: Parapet, route: str) -> Answer:
    answer = await post(
        parapet.url + "/v1/chat/completions", BODY, {"x-parapet-route": route}, within_s=10
    )
    assert answer.status == 200, answer.text
    return answer


async def asks_spare(parapet: Parapet, provider: FakeProvider, route: str) -> bool:
    before = len(provider.journal)
    await ask(parapet, route)
    return len(provider.journal) == before


async def test_r28_a_trip_of_one_node_is_the_others_too(
    two: Two, provider: FakeProvider, redis: RedisServer
) -> None:
    provider.play(status(500))
    for _ in range(TRIP):
        await ask(two[0], "first")
    assert await asks_spare(two[0], provider, "first")
    await asyncio.sleep(VISIBLE_S)
    assert await asks_spare(two[1], provider, "first")

    redis.freeze()
    try:
        for _ in range(TRIP):
            await ask(two[0], "second")
        assert await asks_spare(two[0], provider, "second")  # alone
        assert await asks_spare(two[0], provider, "first")  # and what was known stays so
        assert not await asks_spare(two[1], provider, "second")
        assert await asks_spare(two[1], provider, "first")
        await asyncio.sleep(2)
    finally:
        redis.signal(signal.SIGCONT)
    began = time.monotonic()
    await asyncio.sleep(CONVERGED_S)
    assert await asks_spare(two[1], provider, "second")
    assert time.monotonic() - began < CONVERGED_S + 1
    changes = await two[0].events(2, type="runtime.endpoint.state_changed")
    told = sorted(each["payload"]["failover_policy_id"] for each in changes)
    assert told == ["first-fo", "second-fo"]


async def test_r28_what_one_node_was_told_by_429_the_other_knows(
    two: Two, provider: FakeProvider
) -> None:
    provider.play(status(429, retry_after="30"))
    assert not await asks_spare(two[0], provider, "first")
    assert await asks_spare(two[0], provider, "first")
    await asyncio.sleep(VISIBLE_S)
    assert await asks_spare(two[1], provider, "first")
    assert await asks_spare(two[1], provider, "second")  # it is of the key, not of the policy
    await asyncio.sleep(1)  # another event would be there by now
    (changed,) = await two[0].events(1, type="runtime.endpoint.state_changed")
    assert changed["payload"]["to"] == "limited"
    (decision,) = [
        each
        for each in await two[1].events(1, type="runtime.failover.decision")
        if each["payload"]["scope"] == "endpoint"
    ]
    assert decision["payload"]["reason_code"] == "rate_limited"
