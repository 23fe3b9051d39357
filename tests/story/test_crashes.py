"""Processes that die under load (R01, R02, R61): what callers saw, and that no event is lost.

The ledger: every answer that a caller saw whole has exactly one request event, found by its id.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.httpclient import Answer, opened, post
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import ok

pytestmark = pytest.mark.process

CLIENTS = 8
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(ok()) as running:
        yield running


@pytest.fixture
async def parapet(provider: FakeProvider, tmp_path: Path) -> AsyncIterator[Parapet]:
    """Supervisor, control process and one data worker, with the default pack on the route."""
    config = workspace(
        [endpoint("main", "openai", provider.url + "/v1")],
        [{"id": "chat", "endpoint": "main", "policy_packs": ["secrets-core"]}],
    )
    running = Parapet(config, tmp_path / "state", single=False)
    try:
        yield await running.start()
    finally:
        await running.kill()


class Load:
    """Clients that ask one after the other until they are told to stop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = asyncio.Event()
        self.whole: list[str] = []  # request ids of answers that were seen to their end
        self.failed: list[str] = []

    async def __aenter__(self) -> "Load":
        self._clients = [asyncio.ensure_future(self._client(n)) for n in range(CLIENTS)]  # noqa: TID251
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        await asyncio.gather(*self._clients)

    async def _client(self, number: int) -> None:
        streamed = number % 2 == 0
        while not self._stopping.is_set():
            try:
                answer = await post(
                    self._url + "/v1/chat/completions", BODY | {"stream": streamed}, within_s=10
                )
            except (OSError, asyncio.IncompleteReadError, ValueError) as fault:
                self.failed.append(type(fault).__name__)
                await asyncio.sleep(0.02)
                continue
            if answer.status == 200 and answer.whole:
                self.whole.append(answer.headers["x-parapet-request-id"])
            else:
                self.failed.append(f"{answer.status} {answer.ended}")


async def request_events(parapet: Parapet, at_least: int) -> Counter[str]:
    """Request id to number of request events, over all pages, once there are enough."""
    until = time.monotonic() + 15
    while True:
        found: Counter[str] = Counter()
        path = "/v1/workspaces/default/events?limit=100&type=runtime.request.*&sort=created_at:asc"
        cursor = ""
        while True:
            answer: Answer = await parapet.control("GET", path + cursor)
            assert answer.status == 200, answer.text
            found.update(event["request_id"] for event in answer.json["data"])
            if not answer.json.get("next_cursor") or not answer.json["data"]:
                break
            cursor = f"&cursor={answer.json['next_cursor']}"
        if found.total() >= at_least or time.monotonic() > until:
            return found
        await asyncio.sleep(0.2)


async def test_r01_a_killed_worker_loses_no_finished_request(parapet: Parapet) -> None:
    async with Load(parapet.url) as load:
        await asyncio.sleep(1.0)
        pid = await parapet.pid_of("worker")
        before = len(load.whole)
        os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        while len(load.whole) <= before + CLIENTS:  # new connections are served again
            assert time.monotonic() - killed_at < 10
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
    assert before > 20
    assert await parapet.pid_of("worker") != pid
    events = await request_events(parapet, len(load.whole))
    assert [i for i in load.whole if events[i] != 1] == []
    assert max(events.values()) == 1
    assert len(load.failed) <= 3 * CLIENTS  # only what was in flight, and the first tries after it


async def test_r02_a_killed_control_process_fails_no_request(parapet: Parapet) -> None:
    async with Load(parapet.url) as load:
        await asyncio.sleep(0.5)
        pid = await parapet.pid_of("control")
        before = len(load.whole)
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.3)
        during = len(load.whole)
        await parapet.ready()
        await asyncio.sleep(0.5)
    assert load.failed == []
    assert during > before  # answers went on while it was dead
    assert await parapet.pid_of("control") != pid
    events = await request_events(parapet, len(load.whole))
    assert [i for i in load.whole if events[i] != 1] == []
    assert max(events.values()) == 1


async def test_r02_acknowledged_ingests_survive_kills(parapet: Parapet) -> None:
    acknowledged: list[str] = []
    for round_ in range(3):
        for number in range(20):
            event_id = f"evt-{round_}-{number}"
            event = {"event_id": event_id, "route_id": "chat", "timestamp": "2024-03-15T14:30:00Z"}
            answer = await parapet.control("POST", "/v1/ingest/runtime", event)
            assert answer.status == 202, answer.text
            acknowledged.append(event_id)
        os.kill(await parapet.pid_of("control"), signal.SIGKILL)
        await asyncio.sleep(0.2)
        await parapet.ready()
    stored: Counter[str] = Counter()
    cursor = ""
    while True:
        answer = await parapet.control("GET", "/v1/workspaces/default/events?limit=100" + cursor)
        stored.update(event["event_id"] for event in answer.json["data"])
        if not answer.json.get("next_cursor") or not answer.json["data"]:
            break
        cursor = f"&cursor={answer.json['next_cursor']}"
    assert sorted(acknowledged) == sorted(stored.elements())


async def test_r61_children_stop_when_the_supervisor_is_killed(
    parapet: Parapet, provider: FakeProvider
) -> None:
    pids = [await parapet.pid_of("worker"), await parapet.pid_of("control")]
    answer = await post(parapet.url + "/v1/chat/completions", BODY)
    os.kill(parapet.pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < until, "children outlived the supervisor"
        await asyncio.sleep(0.05)
    await parapet.start()
    events = await request_events(parapet, 1)
    assert events[answer.headers["x-parapet-request-id"]] == 1


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_r41_a_drain_lets_streams_end(parapet: Parapet, provider: FakeProvider) -> None:
    provider.play(ok(" ".join(["word"] * 20)).paced(0.05))
    streams = [
        asyncio.ensure_future(  # noqa: TID251
            post(parapet.url + "/v1/chat/completions", BODY | {"stream": True})
        )
        for _ in range(20)
    ]
    await asyncio.sleep(0.4)
    assert await parapet.stop() == 0
    answers = await asyncio.gather(*streams)
    assert all(answer.whole and b"[DONE]" in answer.body for answer in answers)
    await parapet.start()
    events = await request_events(parapet, len(answers))
    assert all(events[answer.headers["x-parapet-request-id"]] == 1 for answer in answers)


async def test_r40_a_broken_file_changes_nothing_and_says_why(parapet: Parapet) -> None:
    good = dict(parapet.config)
    parapet.config_file.write_text("workspaces: [{id: default, rotues: []}]")
    parapet.signal(signal.SIGHUP)
    until = time.monotonic() + 5
    while (await parapet.status())["config"]["valid"]:
        assert time.monotonic() < until
        await asyncio.sleep(0.05)
    status = await parapet.status()
    assert "rotues" in status["config"]["error"]
    answer = await post(parapet.url + "/v1/chat/completions", BODY)
    assert answer.status == 200
    parapet.write_config(good)
    parapet.signal(signal.SIGHUP)
    while not (await parapet.status())["config"]["valid"]:
        assert time.monotonic() < until + 5
        await asyncio.sleep(0.05)


async def test_a_change_of_the_file_reaches_the_worker(parapet: Parapet) -> None:
    config = dict(parapet.config)
    (only,) = config["workspaces"]  # type: ignore[misc]
    routes = [*only["routes"], {"id": "second", "endpoint": "main"}]
    url = parapet.url + "/r/second/v1/chat/completions"
    assert (await post(url, BODY)).status == 404
    parapet.write_config({"workspaces": [{**only, "routes": routes}]})
    until = time.monotonic() + 5
    while (await post(url, BODY)).status != 200:
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def test_r42_a_rolling_restart_refuses_and_resets_nothing(parapet: Parapet) -> None:
    pid = await parapet.pid_of("worker")
    async with Load(parapet.url) as load:
        await asyncio.sleep(0.3)
        parapet.signal(signal.SIGUSR2)
        until = time.monotonic() + 10
        while True:
            processes = (await parapet.status())["processes"]
            workers = [p["pid"] for p in processes if p["role"] == "worker"]
            if workers and workers != [pid]:
                break
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
    assert load.failed == []
    events = await request_events(parapet, len(load.whole))
    assert [i for i in load.whole if events[i] != 1] == []


async def test_a_frozen_worker_is_replaced(parapet: Parapet) -> None:
    """R43: killed within 6 s of its last beat."""
    pid = await parapet.pid_of("worker")
    os.kill(pid, signal.SIGSTOP)
    stopped_at = time.monotonic()
    while _alive(pid):
        assert time.monotonic() - stopped_at < 7
        await asyncio.sleep(0.1)
    until = time.monotonic() + 10
    while True:
        try:
            answer = await post(parapet.url + "/v1/chat/completions", BODY, within_s=2)
        except (OSError, TimeoutError):
            assert time.monotonic() < until
            continue
        assert answer.status == 200
        break


@pytest.mark.exhaustive
async def test_a_head_that_trickles_is_cut(parapet: Parapet) -> None:
    """T-HTTP-02: 10 s for a request's head."""
    async with opened(parapet.url) as wire:
        started = time.monotonic()
        await wire.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        assert await wire.closed(within_s=14)
        assert time.monotonic() - started > 8
