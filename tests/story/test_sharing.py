"""Several workers, one view of the endpoints (failover.md §11): trips, probes, a control process
that is frozen (R06, R07, R23)."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.runtime.tasks import spawn
from tests.kit.httpclient import Answer, post
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import ok, silence, status

pytestmark = pytest.mark.process

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
VISIBLE_S = 0.3
TRIP = 5
STATE_CHANGED = "runtime.endpoint.state_changed"


@pytest.fixture
async def spare() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(ok(), strict=False) as running:
        yield running


def config(provider: FakeProvider, spare: FakeProvider, cooldown_s: int) -> dict[str, object]:
    policy = {
        "id": "chat-fo",
        "route_id": "chat",
        "primary_endpoint": "main",
        "fallback_endpoints": ["spare"],
        "conditions": {"error_rate_threshold": 0.5, "consecutive_failures": TRIP},
        "recovery": {
            "cooldown_seconds": cooldown_s, "max_cooldown_seconds": cooldown_s,
            "min_fallback_seconds": 0, "probe_requests": 1,
        },
        "request_failover": {"same_endpoint_retries": 0},
    }  # fmt: skip
    endpoints = [
        endpoint("main", "openai", provider.url + "/v1"),
        endpoint("spare", "openai", spare.url + "/v1"),
    ]
    routes = [{"id": "chat", "endpoint": "main"}]
    return {**workspace(endpoints, routes, policy), "server": {"workers": 2}}


@pytest.fixture
async def parapet(
    request: pytest.FixtureRequest, provider: FakeProvider, spare: FakeProvider, tmp_path: Path
) -> AsyncIterator[Parapet]:
    """Two workers; the cool-down in seconds is the parameter."""
    said = config(provider, spare, getattr(request, "param", 60))
    running = Parapet(said, tmp_path / "state", single=False)
    try:
        await running.start()
        await both_serve(running)
        provider.journal.clear()
        yield running
    finally:
        await running.kill()


async def both_serve(parapet: Parapet) -> None:
    """`/readyz` is content with one worker; what comes to the other one waits for it."""
    until = time.monotonic() + 20
    while True:
        roles = [each["role"] for each in (await parapet.status())["processes"]]
        if roles.count("worker") == 2:
            break
        assert time.monotonic() < until, roles
        await asyncio.sleep(0.05)
    answers = await asyncio.gather(*(ask(parapet) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}


async def ask(parapet: Parapet, **more: object) -> Answer:
    """On a connection of its own: any worker may get it."""
    return await post(parapet.url + "/v1/chat/completions", BODY | more, within_s=10)


async def until_left(parapet: Parapet, provider: FakeProvider, tries: int) -> None:
    """Ask until somebody does not ask the primary any more."""
    for _ in range(tries):
        before = len(provider.journal)
        assert (await ask(parapet)).status == 200
        if len(provider.journal) == before:
            return
    raise AssertionError(f"{len(provider.journal)} requests at an endpoint that is broken")


async def test_a_trip_is_seen_by_every_worker_and_told_once(
    parapet: Parapet, provider: FakeProvider
) -> None:
    provider.play(status(500))
    await until_left(parapet, provider, 2 * TRIP + 1)
    await asyncio.sleep(VISIBLE_S)
    seen = len(provider.journal)
    assert seen <= 2 * TRIP  # each worker alone, where news takes longer than the next request
    for answer in await asyncio.gather(*(ask(parapet) for _ in range(40))):
        assert answer.status == 200
        assert answer.headers["x-parapet-endpoint"] == "spare"
    assert len(provider.journal) == seen
    (event,) = await parapet.events(type=STATE_CHANGED)
    changed = event["payload"]
    assert (changed["from"], changed["to"], changed["version"]) == ("closed", "open", 1)
    decisions = await parapet.events(type="runtime.failover.decision")
    of_all = [each["payload"] for each in decisions if each["payload"]["scope"] == "endpoint"]
    assert [each["selected_fallback"] for each in of_all] == ["spare"]


async def test_a_new_worker_knows_at_once(parapet: Parapet, provider: FakeProvider) -> None:
    provider.play(status(500))
    await until_left(parapet, provider, 2 * TRIP + 1)
    await asyncio.sleep(VISIBLE_S)
    seen = len(provider.journal)
    for slot in (0, 1):
        os.kill(await parapet.pid_of("worker", slot), signal.SIGKILL)
    asked = 0
    until = time.monotonic() + 10
    while asked < 20 and time.monotonic() < until:
        try:
            assert (await ask(parapet)).status == 200
            asked += 1
        except (OSError, asyncio.IncompleteReadError, IndexError):
            await asyncio.sleep(0.05)
    assert asked == 20
    assert len(provider.journal) <= seen + 2  # one each before the first word of a slow control


async def test_while_control_is_frozen_workers_decide_alone(
    parapet: Parapet, provider: FakeProvider
) -> None:
    control = await parapet.pid_of("control")
    os.kill(control, signal.SIGSTOP)
    try:
        await asyncio.sleep(1.3)
        provider.play(status(500))
        answers = await asyncio.gather(*(ask(parapet) for _ in range(40)))
        assert {answer.status for answer in answers} == {200}
        seen = len(provider.journal)
        for _ in range(20):
            assert (await ask(parapet)).status == 200
        assert len(provider.journal) - seen <= TRIP  # of a worker that got few of the first
    finally:
        os.kill(control, signal.SIGCONT)
    await asyncio.sleep(2.0)
    seen = len(provider.journal)
    for _ in range(20):
        assert (await ask(parapet)).headers["x-parapet-endpoint"] == "spare"
    assert len(provider.journal) == seen
    changes = await parapet.events(type=STATE_CHANGED)
    assert [each["payload"]["to"] for each in changes] == ["open"]


async def test_a_429_met_while_control_is_frozen_is_told_once(
    parapet: Parapet, provider: FakeProvider
) -> None:
    control = await parapet.pid_of("control")
    os.kill(control, signal.SIGSTOP)
    try:
        await asyncio.sleep(1.3)
        provider.play(status(429, retry_after="60"))
        for _ in range(20):
            assert (await ask(parapet)).status == 200
        assert len(provider.journal) <= 2  # one of each worker, which are alone
    finally:
        os.kill(control, signal.SIGCONT)
    await asyncio.sleep(2.0)
    changes = await parapet.events(type=STATE_CHANGED)
    assert [each["payload"]["to"] for each in changes] == ["limited"]
    decisions = await parapet.events(type="runtime.failover.decision")
    of_all = [each["payload"] for each in decisions if each["payload"]["scope"] == "endpoint"]
    assert [each["reason_code"] for each in of_all] == ["rate_limited"]


@pytest.mark.parametrize("parapet", [1], indirect=True)
async def test_a_worker_that_dies_with_a_probe_leaves_nothing_stuck(
    parapet: Parapet, provider: FakeProvider
) -> None:
    provider.play(status(500))
    await until_left(parapet, provider, 2 * TRIP + 1)
    provider.play(silence())
    pids = [await parapet.pid_of("worker", slot) for slot in (0, 1)]
    until = time.monotonic() + 8
    probes = []
    while not provider.journal:
        assert time.monotonic() < until, "nobody probes"
        probes.append(spawn(ask(parapet), name="caller"))
        await asyncio.sleep(0.1)
    (probe,) = [each for each in probes if not each.done()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait([probe], timeout=0.5)
        if probe.done():
            break
    assert probe.done()
    assert probe.exception() is not None
    for each in probes:
        if each is not probe:
            assert each.result().status == 200, each.result().text
    provider.play(ok())
    killed = time.monotonic()
    while not provider.journal:
        assert time.monotonic() - killed < 6, "the permit never came back"
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, IndexError):
            assert (await ask(parapet)).status == 200
        await asyncio.sleep(0.05)
