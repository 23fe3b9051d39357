"""Two Parapets over one Redis: they know of each other, share the limits of a key, and hear of
changes at once, or by their own look when nobody may tell them (storage.md §1, §7)."""

import asyncio
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.httpclient import Answer, get, post
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.provider import FakeProvider
from tests.kit.redis import RedisServer
from tests.kit.replies import ok

pytestmark = [pytest.mark.process, pytest.mark.redis]

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
LIMIT = 10
CHANGES = 8
NOTICED_S = 0.5  # the others look once a second in any case
LOOKED_S = 2.0
Two = tuple[Parapet, Parapet]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.fixture
async def two(server: RedisServer, tmp_path: Path) -> AsyncIterator[Two]:
    async with FakeProvider(ok()) as provider:
        config = {
            **workspace(
                [endpoint("main", "openai", provider.url + "/v1")],
                [{"id": "chat", "endpoint": "main"}],
            ),
            "store": server.url,
            "control": {"rate_limits": {"control_read": LIMIT, "control_write": 10_000}},
        }
        both = [Parapet(config, tmp_path / name, single=False) for name in ("one", "other")]
        try:
            await asyncio.gather(*(each.start() for each in both))
            yield both[0], both[1]
        finally:
            for each in both:
                await each.kill()


async def new_key(parapet: Parapet) -> dict[str, str]:
    """A viewer that both know: its header."""
    key = {"name": "board", "role": "viewer", "workspaces": ["default"]}
    made = await parapet.control("POST", "/v1/keys", key)
    assert made.status == 201, made.text
    return {"authorization": f"Bearer {made.json['key']}"}


async def ask(parapet: Parapet, key: dict[str, str]) -> Answer:
    return await get(parapet.control_url + "/v1/status", key)


async def known(two: Two, key: dict[str, str]) -> None:
    """A wrong key takes nothing from a bucket: the first right answer takes the first unit."""
    began = time.monotonic()
    while (await ask(two[1], key)).status == 401:
        assert time.monotonic() - began < LOOKED_S
        await asyncio.sleep(0.05)


async def until_nodes(parapet: Parapet, count: int) -> dict[str, Any]:
    began = time.monotonic()
    while True:
        answer = await ask(parapet, await new_key(parapet))
        if answer.status == 200 and len(answer.json["nodes"]) == count:
            return dict(answer.json)
        assert time.monotonic() - began < 15, answer.text
        await asyncio.sleep(0.2)


@pytest.mark.exhaustive
async def test_nodes_know_of_each_other(two: Two) -> None:
    """Their files differ here: each has its own ports."""
    status = await until_nodes(two[0], 2)
    hashes = [node["file_hash"] for node in status["nodes"]]
    assert status["config"]["hash"] in hashes
    assert len(set(hashes)) == 2
    (warning,) = status["warnings"]
    assert all(each[:8] in warning for each in hashes)
    assert two[0].log.count("nodes.files") == 1
    assert await two[1].stop() == 0  # who leaves in good order is no more at once
    began = time.monotonic()
    status = await until_nodes(two[0], 1)
    assert time.monotonic() - began < 3
    assert status["warnings"] == []
    await two[1].start()
    await until_nodes(two[0], 2)
    await two[1].kill()
    await until_nodes(two[0], 1)


async def test_a_routes_limit_is_one_for_both(two: Two) -> None:
    """All on one machine, then, a moment later, on the other one: nothing is left there."""
    tight = {"id": "tight", "endpoint": "main", "limits": {"rpm": 20}}
    made = await two[0].control("POST", "/v1/workspaces/default/routes", tight)
    assert made.status == 201, made.text

    async def status(parapet: Parapet) -> int:
        return (await post(f"{parapet.url}/r/tight/v1/chat/completions", BODY)).status

    began = time.monotonic()
    for each in two:
        while await status(each) == 404:
            assert time.monotonic() - began < 2 * LOOKED_S
            await asyncio.sleep(0.05)
    while await status(two[0]) == 200:
        assert time.monotonic() - began < 5 * LOOKED_S
    await asyncio.sleep(1.5 * LOOKED_S)  # one free request in three seconds, on both together
    answers = [await status(two[1]) for _ in range(6)]
    assert answers.count(200) <= 2, answers


async def test_a_key_has_its_limit_once_over_both_and_its_share_without_redis(
    two: Two, server: RedisServer
) -> None:
    for parapet in two:
        await until_nodes(parapet, 2)
    key = await new_key(two[0])
    await known(two, key)
    statuses = [(await ask(two[n % 2], key)).status for n in range(LIMIT + 4)]
    assert statuses == [200] * (LIMIT - 1) + [429] * 5
    keys = [await new_key(two[0]) for _ in two]
    await known(two, keys[1])
    server.freeze()
    for parapet, key, left in ((two[0], keys[0], 5), (two[1], keys[1], 4)):
        answers = []
        for _ in range(LIMIT):
            began = time.monotonic()
            answers.append(await ask(parapet, key))
            assert time.monotonic() - began < 0.5
        assert [answer.status for answer in answers] == [200] * left + [429] * (LIMIT - left)
        assert answers[0].headers["x-ratelimit-limit"] == "5"
    server.signal(signal.SIGCONT)


async def delays(two: Two, first: int) -> list[float]:
    """From the answer to a change on one machine until the other serves by it, in seconds."""
    found = []
    for number in range(first, first + CHANGES):
        route = {"id": f"new-{number}", "endpoint": "main"}
        made = await two[0].control("POST", "/v1/workspaces/default/routes", route)
        assert made.status == 201
        began = time.monotonic()
        named = {"x-parapet-route": f"new-{number}"}
        while (await post(two[1].url + "/v1/chat/completions", BODY, named)).status != 200:
            assert time.monotonic() - began < 3 * LOOKED_S
            await asyncio.sleep(0.01)
        found.append(time.monotonic() - began)
    return found


async def test_changes_are_told_at_once_and_looked_for_in_any_case(
    two: Two, server: RedisServer
) -> None:
    told = await delays(two, 0)
    assert statistics.median(told) < NOTICED_S
    server.command("ACL", "SETUSER", "default", "-subscribe", "-publish")
    server.command("CLIENT", "KILL", "TYPE", "pubsub")
    await asyncio.sleep(0.1)
    looked = await delays(two, 100)
    assert sorted(looked)[-2] < LOOKED_S  # one may meet a moment in which the machine stands still
    for way, found in (("told", told), ("looked for", looked)):  # -s shows them
        sys.stdout.write(f"{way}: {', '.join(f'{each * 1000:.0f} ms' for each in found)}\n")
