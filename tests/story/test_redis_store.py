"""Parapet over a Redis that freezes: callers notice nothing, the control API says so in time, and
what happened meanwhile is stored when it is back (storage.md §4)."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.kit.httpclient import get, post
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.provider import FakeProvider
from tests.kit.redis import RedisServer
from tests.kit.replies import ok

pytestmark = [pytest.mark.process, pytest.mark.redis]

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
RULES = "/v1/workspaces/default/alert-rules"
WITHIN_S = 0.5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.fixture
async def parapet(server: RedisServer, tmp_path: Path) -> AsyncIterator[Parapet]:
    async with FakeProvider(ok()) as provider:
        config = workspace(
            [endpoint("main", "openai", provider.url + "/v1")],
            [{"id": "chat", "endpoint": "main"}],
        )
        running = Parapet({**config, "store": server.url}, tmp_path / "state", single=False)
        try:
            yield await running.start()
        finally:
            await running.kill()


async def readiness(parapet: Parapet) -> tuple[int, str]:
    answer = await get(parapet.control_url + "/readyz")
    return answer.status, answer.json["status"]


async def until(within_s: float, parapet: Parapet, wanted: tuple[int, str]) -> None:
    began = time.monotonic()
    while await readiness(parapet) != wanted:
        assert time.monotonic() - began < within_s, await readiness(parapet)
        await asyncio.sleep(0.05)


async def test_a_frozen_redis(parapet: Parapet, server: RedisServer) -> None:
    rule = {"name": "first", "condition": {"metric": "violations"}}
    assert (await parapet.control("POST", RULES, rule)).status == 201
    assert (await post(parapet.url + "/v1/chat/completions", BODY)).status == 200
    await parapet.events(1)
    status = await parapet.status()
    assert (status["store"], status["redis"]["up"]) == ("redis", True)
    assert not (parapet.state_dir / "parapet.db").exists()

    server.signal(signal.SIGSTOP)
    for n in range(6):
        for method, path, body in (("POST", RULES, rule | {"name": f"n{n}"}), ("GET", RULES, None)):
            began = time.monotonic()
            answer = await parapet.control(method, path, body)
            assert time.monotonic() - began < WITHIN_S
            assert (answer.status, answer.json["type"].rpartition("/")[2]) == (
                503, "storage-unavailable",
            )  # fmt: skip
        began = time.monotonic()
        assert (await post(parapet.url + "/v1/chat/completions", BODY)).status == 200
        assert time.monotonic() - began < WITHIN_S
    await until(3, parapet, (200, "degraded"))

    server.signal(signal.SIGCONT)
    await until(3, parapet, (200, "ready"))
    assert len(await parapet.events(7, route_id="chat")) == 7
    assert (await parapet.control("POST", RULES, rule | {"name": "last"})).status == 201
    assert parapet.log.count("redis.away") == parapet.log.count("redis.back") == 1


async def test_a_killed_control_process_goes_on_where_it_was(parapet: Parapet) -> None:
    for _ in range(5):
        assert (await post(parapet.url + "/v1/chat/completions", BODY)).status == 200
    os.kill(await parapet.pid_of("control"), signal.SIGKILL)
    assert (await post(parapet.url + "/v1/chat/completions", BODY)).status == 200
    await asyncio.sleep(0.2)
    await parapet.ready()
    events = await parapet.events(6, route_id="chat", type="runtime.request.*")
    assert len({event["event_id"] for event in events}) == len(events) == 6


async def test_a_change_on_one_machine_reaches_the_other(
    parapet: Parapet, server: RedisServer, tmp_path: Path
) -> None:
    """In 2 s, and what was changed while Redis was away when it is back (storage.md §7)."""
    other = Parapet(parapet.config, tmp_path / "other", single=False)
    try:
        await other.start()
        route = {"id": "new", "endpoint": "main"}
        made = await parapet.control("POST", "/v1/workspaces/default/routes", route)
        assert made.status == 201
        began = time.monotonic()
        named = {"x-parapet-route": "new"}
        while (await post(other.url + "/v1/chat/completions", BODY, named)).status != 200:
            assert time.monotonic() - began < 2
            await asyncio.sleep(0.02)
        key = {"name": "board", "role": "viewer", "workspaces": ["default"]}
        shown = (await parapet.control("POST", "/v1/keys", key)).json
        headers = {"authorization": f"Bearer {shown['key']}"}
        events = "/v1/workspaces/default/events"
        began = time.monotonic()
        while (await get(other.control_url + events, headers)).status != 200:
            assert time.monotonic() - began < 2
            await asyncio.sleep(0.02)
        await parapet.control("DELETE", f"/v1/keys/{shown['key_id']}")
        began = time.monotonic()
        while (await get(other.control_url + events, headers)).status != 401:
            assert time.monotonic() - began < 2
            await asyncio.sleep(0.02)
    finally:
        await other.kill()


async def test_a_start_without_redis_goes_on_with_the_last_rules(
    parapet: Parapet, server: RedisServer
) -> None:
    route = {"id": "new", "endpoint": "main"}
    await parapet.control("POST", "/v1/workspaces/default/routes", route)
    named = {"x-parapet-route": "new"}
    began = time.monotonic()
    while (await post(parapet.url + "/v1/chat/completions", BODY, named)).status != 200:
        assert time.monotonic() - began < 2
        await asyncio.sleep(0.02)
    os.kill(await parapet.pid_of("control"), signal.SIGKILL)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await until(10, parapet, (200, "degraded"))
        assert (await post(parapet.url + "/v1/chat/completions", BODY, named)).status == 200
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await until(5, parapet, (200, "ready"))
    gone = await parapet.control("DELETE", "/v1/workspaces/default/routes/new")
    assert gone.status == 204
