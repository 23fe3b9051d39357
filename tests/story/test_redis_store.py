"""Parapet over a Redis that freezes, dies or refuses: callers notice nothing, the control API says
so in time, and what happened meanwhile is stored when it is back (storage.md §4)."""

import asyncio
import contextlib
import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kit.httpclient import Answer, get, post
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.provider import FakeProvider
from tests.kit.redis import RedisServer
from tests.kit.redis_faults import FAULTS
from tests.kit.replies import ok

pytestmark = [pytest.mark.process, pytest.mark.redis]

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
CHAT = "/v1/chat/completions"
RULES = "/v1/workspaces/default/alert-rules"
EVENTS = "/v1/workspaces/default/events"
AT = "2024-03-15T14:30:00Z"
WITHIN_S = 0.5
DRAINED_S = 10
LISTED_BEFORE_S = 10
STILL_READ = ("READONLY", "OOM")
CHANGES = ("redis.away", "redis.back", "redis.refuses_writes", "redis.takes_writes")


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


def spawn_get(url: str, headers: dict[str, str]) -> "asyncio.Task[Answer]":
    """An answer that takes its time."""
    return asyncio.create_task(get(url, headers))  # noqa: TID251


def slug(answer: Answer) -> str:
    """The kind of a problem."""
    return str(answer.json["type"]).rpartition("/")[2]


async def readiness(parapet: Parapet) -> tuple[int, str]:
    answer = await get(parapet.control_url + "/readyz")
    return answer.status, answer.json["status"]


async def until(within_s: float, parapet: Parapet, wanted: tuple[int, str]) -> None:
    began = time.monotonic()
    while await readiness(parapet) != wanted:
        assert time.monotonic() - began < within_s, await readiness(parapet)
        await asyncio.sleep(0.05)


async def drained(parapet: Parapet) -> None:
    """Everything that was spooled is in the store."""
    began = time.monotonic()
    while (await parapet.status())["spool"]["bytes"]:
        assert time.monotonic() - began < DRAINED_S
        await asyncio.sleep(0.05)


@dataclass
class Callers:
    """One caller of the proxy after the other, until told."""

    over: bool = False
    statuses: Counter[int] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)

    async def call(self, parapet: Parapet) -> None:
        while not self.over:
            began = time.monotonic()
            answer = await post(parapet.url + CHAT, BODY)
            self.took_s.append(time.monotonic() - began)
            self.statuses[answer.status] += 1
            await asyncio.sleep(0.02)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.took_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextlib.asynccontextmanager
async def called(parapet: Parapet) -> AsyncIterator[Callers]:
    callers = Callers()
    async with asyncio.TaskGroup() as group:
        group.create_task(callers.call(parapet))
        try:
            yield callers
        finally:
            callers.over = True


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(name, marks=[] if name in ("kill", "SIGSTOP") else pytest.mark.exhaustive)
        for name in FAULTS
    ],
)
async def test_t_st_04_r06_r07_redis_is_away(
    parapet: Parapet, server: RedisServer, fault: str
) -> None:
    """Callers notice nothing; changes are refused in time; documents are read as they were known;
    events are taken; it is said once, and nobody has to do anything when it is back."""
    rule = {"name": "first", "condition": {"metric": "violations"}}
    assert (await parapet.control("POST", RULES, rule)).status == 201
    assert "x-parapet-stale" not in (await parapet.control("GET", RULES)).headers
    async with called(parapet) as before:
        await asyncio.sleep(3)
    status = await parapet.status()
    assert (status["store"], status["redis"]["up"]) == ("redis", True)
    assert not (parapet.state_dir / "parapet.db").exists()

    broken = FAULTS[fault](server)
    await asyncio.to_thread(broken.__enter__)
    sent, slowest_s = 0, 0.0
    async with called(parapet) as during:
        away = time.monotonic()
        while time.monotonic() - away < 4:
            began = time.monotonic()
            answer = await parapet.control("POST", RULES, rule | {"name": f"n{sent}"})
            slowest_s = max(slowest_s, time.monotonic() - began)
            assert (answer.status, slug(answer)) == (503, "storage-unavailable")
            began = time.monotonic()
            event = {"event_id": f"evt-{sent}", "route_id": "api", "timestamp": AT}
            answer = await parapet.control("POST", "/v1/ingest/runtime", event)
            assert time.monotonic() - began < WITHIN_S
            assert (answer.status, answer.json["durability"]) == (202, "local")
            sent += 1
            began = time.monotonic()
            known = await parapet.control("GET", RULES)
            assert time.monotonic() - began < WITHIN_S
            assert (known.status, known.json["data"][0]["name"]) == (200, "first")
            age_s = time.monotonic() - away
            if fault not in STILL_READ:
                assert 1 <= int(known.headers["x-parapet-stale"]) <= age_s + LISTED_BEFORE_S
                unknown = await parapet.control("GET", EVENTS)
                assert (unknown.status, slug(unknown)) == (503, "storage-unavailable")
            await asyncio.sleep(0.05)
        assert await readiness(parapet) == (200, "degraded")
    await asyncio.to_thread(broken.__exit__, None, None, None)
    mended = time.monotonic()
    await until(3, parapet, (200, "ready"))
    back_s = time.monotonic() - mended
    assert slowest_s < WITHIN_S
    requests = before.statuses + during.statuses
    assert set(requests) == {200}
    await drained(parapet)
    for route_id, count in (("chat", requests[200]), ("api", sent)):
        counted = (await parapet.control("GET", f"{EVENTS}?route_id={route_id}&limit=1")).json
        assert counted["total"] == count
    assert (await parapet.control("POST", RULES, rule | {"name": "last"})).status == 201
    assert len((await parapet.control("GET", RULES)).json["data"]) == 2
    lines = [parapet.log.count(f'"{line}"') for line in CHANGES]
    assert lines in ([1, 1, 0, 0], [0, 0, 1, 1])
    p50, p99 = ([each.percentile(q) * 1e3 for each in (before, during)] for q in (0.5, 0.99))
    print(  # noqa: T201
        f"{fault}: {requests[200]} requests, {sent} events kept, slowest change refused in "
        f"{slowest_s:.3f} s, back {back_s:.2f} s, request p50 {p50[0]:.1f} -> {p50[1]:.1f} ms, "
        f"p99 {p99[0]:.1f} -> {p99[1]:.1f} ms"
    )


async def test_a_killed_control_process_goes_on_where_it_was(parapet: Parapet) -> None:
    for _ in range(5):
        assert (await post(parapet.url + CHAT, BODY)).status == 200
    os.kill(await parapet.pid_of("control"), signal.SIGKILL)
    assert (await post(parapet.url + CHAT, BODY)).status == 200
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
        while (await post(other.url + CHAT, BODY, named)).status != 200:
            assert time.monotonic() - began < 2
            await asyncio.sleep(0.02)
        key = {"name": "board", "role": "viewer", "workspaces": ["default"]}
        shown = (await parapet.control("POST", "/v1/keys", key)).json
        headers = {"authorization": f"Bearer {shown['key']}"}
        began = time.monotonic()
        while (await get(other.control_url + EVENTS, headers)).status != 200:
            assert time.monotonic() - began < 2
            await asyncio.sleep(0.02)
        await parapet.control("DELETE", f"/v1/keys/{shown['key_id']}")
        began = time.monotonic()
        while (await get(other.control_url + EVENTS, headers)).status != 401:
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
    while (await post(parapet.url + CHAT, BODY, named)).status != 200:
        assert time.monotonic() - began < 2
        await asyncio.sleep(0.02)
    os.kill(await parapet.pid_of("control"), signal.SIGKILL)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await until(10, parapet, (200, "degraded"))
        assert (await post(parapet.url + CHAT, BODY, named)).status == 200
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await until(5, parapet, (200, "ready"))
    gone = await parapet.control("DELETE", "/v1/workspaces/default/routes/new")
    assert gone.status == 204


async def test_what_left_the_file_is_gone_also_when_started_without_redis(
    parapet: Parapet, server: RedisServer
) -> None:
    """And what was made through the API is still there."""
    old, kept = "o" * 40, "k" * 40
    keys = [
        {"id": key_id, "secret_sha256": hashlib.sha256(secret.encode()).hexdigest(), "role": "app"}
        for key_id, secret in (("oldkey000000", old), ("keptkey00000", kept))
    ]
    (only,) = parapet.config["workspaces"]  # type: ignore[misc]
    ends = {"id": "leaving", "endpoint": "main"}
    both = {**only, "keys": keys, "routes": [*only["routes"], ends]}  # type: ignore[dict-item]
    without = {**only, "keys": keys[1:]}  # type: ignore[dict-item]
    parapet.write_config({**parapet.config, "workspaces": [both]})
    assert (await parapet.control("POST", "/v1/admin/reload")).status == 200
    made = await parapet.control(
        "POST", "/v1/workspaces/default/routes", {"id": "new", "endpoint": "main"}
    )
    assert made.status == 201

    async def answered(path: str, key_id: str, secret: str) -> int:
        headers = {"authorization": f"Bearer ppt_{key_id}_{secret}"}
        return (await get(parapet.control_url + path, headers)).status

    async def served(route: str) -> int:
        return (await post(parapet.url + CHAT, BODY, {"x-parapet-route": route})).status

    assert await answered("/v1/status", "oldkey000000", old) == 200
    began = time.monotonic()
    while [await served(route) for route in ("chat", "new", "leaving")] != [200, 200, 200]:
        assert time.monotonic() - began < 2
        await asyncio.sleep(0.02)
    server.signal(signal.SIGSTOP)
    pid = await parapet.pid_of("control")
    os.kill(pid, signal.SIGSTOP)  # so that it does not read the file before it is killed
    parapet.write_config({**parapet.config, "workspaces": [without]})
    os.kill(pid, signal.SIGKILL)
    await until(15, parapet, (200, "degraded"))
    assert await answered("/v1/status", "oldkey000000", old) == 401
    assert await answered("/v1/status", "keptkey00000", kept) == 200
    began = time.monotonic()
    while await served("leaving") == 200:
        assert time.monotonic() - began < 2
        await asyncio.sleep(0.02)
    assert [await served(route) for route in ("chat", "new")] == [200, 200]
    server.signal(signal.SIGCONT)
    await until(5, parapet, (200, "ready"))
    assert await answered("/v1/status", "oldkey000000", old) == 401
    assert await served("new") == 200


async def test_events_that_come_while_redis_is_away_are_stored_once(
    parapet: Parapet, server: RedisServer
) -> None:
    """Also when the control process is killed meanwhile, and when they are sent again."""

    async def sent(number: int, **headers: str) -> dict[str, Any]:
        began = time.monotonic()
        event = {"event_id": f"evt-{number}", "route_id": "chat", "timestamp": AT}
        answer = await parapet.control("POST", "/v1/ingest/runtime", event, **headers)
        assert time.monotonic() - began < WITHIN_S
        assert answer.status == 202, answer.text
        return dict(answer.json)

    assert (await sent(0))["seq"] == 1
    server.signal(signal.SIGSTOP)
    for number in range(10):
        said = await sent(number, **{"idempotency-key": f"k-{number}"})
        assert (said["seq"], said["duplicate"], said["durability"]) == (None, None, "local")
    os.kill(await parapet.pid_of("control"), signal.SIGKILL)
    await until(15, parapet, (200, "degraded"))
    for number in range(5, 20):
        await sent(number, **{"idempotency-key": f"k-{number}"})
    server.signal(signal.SIGCONT)
    await until(3, parapet, (200, "ready"))
    for number in range(20):
        await sent(number)
    await drained(parapet)
    events = await parapet.events(20, route_id="chat")
    assert sorted(each["event_id"] for each in events) == sorted(f"evt-{n}" for n in range(20))
    again = await parapet.control(
        "POST",
        "/v1/ingest/runtime",
        {"event_id": "evt-7", "route_id": "chat", "timestamp": AT},
        **{"idempotency-key": "k-7"},
    )
    assert (again.status, again.json["event_id"]) == (202, "evt-7")
    assert again.headers["idempotent-replayed"] == "true"
    assert len(await parapet.events(20, route_id="chat")) == 20


async def test_t_st_05_redis_lost_its_last_second(parapet: Parapet, server: RedisServer) -> None:
    """It is said, records of traffic are complete, and whoever follows the events is told."""

    async def sent(first: int, count: int) -> None:
        events = [
            {"event_id": f"evt-{first + n}", "route_id": "api", "timestamp": AT}
            for n in range(count)
        ]
        answer = await parapet.control("POST", "/v1/ingest/runtime", events)
        assert (answer.status, answer.json["rejected"]) == (202, 0)

    for _ in range(3):
        assert (await post(parapet.url + CHAT, BODY)).status == 200
    await parapet.events(3, route_id="chat")
    await sent(0, 5)
    await asyncio.to_thread(server.remember)
    for _ in range(4):
        assert (await post(parapet.url + CHAT, BODY)).status == 200
    await parapet.events(7, route_id="chat")
    await sent(5, 5)
    key = {"authorization": f"Bearer {parapet.admin_key}"}
    url = f"{parapet.control_url}{EVENTS}/stream?after=0&timeout_s=8"
    following = spawn_get(url, key)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(server.lose)
    await until(5, parapet, (200, "ready"))
    events = await parapet.events(12, route_id="chat,api")
    await sent(4, 2)  # one that was kept, and one that was lost
    text = (await following).text
    assert text.count("event: stream.reset") == 1
    before, _, after = text.partition("event: stream.reset")
    assert before.count("data: {") == 17
    assert '"seq":8' in after.splitlines()[1]
    events = await parapet.events(13, route_id="chat,api")
    ids = [each["event_id"] for each in events]
    assert len(set(ids)) == len(ids) == 13  # 7 requests, 5 of the API and the one sent again
    assert {f"evt-{n}" for n in range(6)} < set(ids)
    assert after.count("data: {") - 1 == 5
    link = (await parapet.status())["redis"]
    assert (link["rollbacks"], bool(link["last_rollback_at"])) == (1, True)
    metrics = (await parapet.control("GET", "/metrics")).text
    assert "parapet_redis_rollbacks_total 1\n" in metrics
    assert parapet.log.count("store.rolled_back") == 1


async def test_t_st_05_the_control_process_was_down_as_well(
    parapet: Parapet, server: RedisServer
) -> None:
    """As after a power cut of a machine with both: what is still in the spool is read again."""

    async def traffic(count: int, total: int) -> None:
        for _ in range(count):
            assert (await post(parapet.url + CHAT, BODY)).status == 200
        await parapet.events(total, route_id="chat")

    await traffic(3, 3)
    await asyncio.to_thread(server.remember)
    await traffic(4, 7)
    await asyncio.sleep(2.5)  # the position file is ahead of what Redis will know
    os.kill(await parapet.pid_of("control"), signal.SIGKILL)
    await asyncio.to_thread(server.lose)
    await until(10, parapet, (200, "ready"))
    events = await parapet.events(7, within_s=10, route_id="chat")
    assert len({event["event_id"] for event in events}) == len(events) == 7
    began = time.monotonic()
    while (await parapet.status())["redis"]["rollbacks"] != 1:
        assert time.monotonic() - began < 3
        await asyncio.sleep(0.05)
