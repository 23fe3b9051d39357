"""The event stream: every event once, in order, over any number of connections."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from proxy.control import stream
from proxy.model.batch import LogFilter, LogPage, Setback, StoreUnavailable
from proxy.model.events import EVENTS_LOG
from proxy.model.tenancy import ApiKey
from proxy.settings.schema import Control
from tests.control.world import (
    ADMIN,
    EVENT,
    WORKSPACES,
    World,
    bearer,
    key,
    running,
    workspace,
)
from tests.kit.fakes import FakeClock
from tests.kit.store import MemoryStore

STREAM = "/v1/workspaces/default/events/stream"


@dataclass
class Told:
    """One event of a stream; a comment has only `comment`."""

    id: str = ""
    event: str = ""
    data: Any = None
    comment: str = ""


class Stream:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> Told:
        told = Told()
        async with asyncio.timeout(5):
            while True:
                line = (await self.response.content.readline()).decode()
                if not line:
                    raise EOFError
                name, _, value = line.rstrip("\n").partition(":")
                value = value.removeprefix(" ")
                if line == "\n":
                    if told != Told():
                        return told
                elif name == "":
                    told.comment = value
                elif name == "data":
                    told.data = json.loads(value)
                elif name in ("id", "event"):
                    setattr(told, name, value)

    async def rest(self) -> list[Told]:
        found = []
        try:
            while True:
                found.append(await self.next())
        except EOFError:
            return found


@asynccontextmanager
async def opened(
    world: World, query: str = "", session: aiohttp.ClientSession | None = None, **headers: str
) -> AsyncIterator[Stream]:
    url = f"http://127.0.0.1:{world.port}{STREAM}{query}"
    async with (session or world.session).get(url, headers={**ADMIN, **headers}) as response:
        assert response.status == 200, await response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        assert (await response.content.readline()) == b"retry: 3000\n"
        yield Stream(response)


async def put(world: World, *ids: str, **more: Any) -> None:
    answer = await world.ingest_runtime([{**EVENT, "event_id": i, **more} for i in ids])
    assert answer.status == 202


async def test_events_come_as_they_happen(stored: World) -> None:
    await put(stored, "old")
    async with opened(stored) as events:
        await put(stored, "a", "b")
        first, second = await events.next(), await events.next()
    assert (first.id, first.event) == ("2", "runtime.request.completed")
    assert first.data == (await stored.get("/v1/workspaces/default/events/a")).doc
    assert (second.id, second.data["event_id"], second.data["seq"]) == ("3", "b", 3)


async def test_resume_by_id_without_gap_or_repeat(stored: World) -> None:
    names = [f"e{i}" for i in range(250)]
    await put(stored, *names[:200])
    seen: list[str] = []
    last = "0"
    while len(seen) < 250:
        async with opened(stored, "?max_events=50", **{"Last-Event-ID": last}) as events:
            for told in await events.rest():
                seen.append(told.data["event_id"])
                last = told.id
        if len(seen) == 150:
            await put(stored, *names[200:])
    assert seen == names


async def test_after_wins_over_the_header(world: World) -> None:
    await put(world, "a", "b", "c")
    async with opened(world, "?after=2&max_events=1", **{"Last-Event-ID": "0"}) as events:
        assert [told.data["event_id"] for told in await events.rest()] == ["c"]


async def test_filters_narrow_a_stream(stored: World) -> None:
    async with opened(stored, "?type=runtime.request.*&route_id=b&max_events=2") as events:
        await put(stored, "1", route_id="a")
        await put(stored, "2", route_id="b")
        await put(stored, "3", route_id="b", type="runtime.rate_limited")
        await put(stored, "4", route_id="b")
        assert [told.data["event_id"] for told in await events.rest()] == ["2", "4"]


@pytest.mark.thorough
async def test_a_stream_ends_by_itself_and_its_connection_lives_on(world: World) -> None:
    await put(world, "a")
    async with opened(world, "?after=0&max_events=1") as events:
        assert len(await events.rest()) == 1
    async with opened(world, "?timeout_s=10") as events:
        world.clock.advance(11)
        assert await events.rest() == []


@pytest.mark.thorough
async def test_silence_is_broken_by_a_comment(world: World) -> None:
    async with opened(world) as events:
        world.clock.advance(15)
        assert (await events.next()).comment


@pytest.mark.thorough
async def test_a_drain_ends_streams(world: World) -> None:
    async with opened(world) as events:
        world.status.stopping = True
        assert await events.rest() == []


VIEWER = "viewer000000"
LATER = "2024-03-15T14:31:00Z"  # the clock of the tests stands a minute before

# fmt: off
NOBODYS = [
    # what became of the key
    ("revoked",                   ()),
    ("of another secret",         (key(VIEWER, "viewer", "t" * 40),)),
    ("of another role",           (key(VIEWER, "ingest"),)),
    ("of another workspace",      (key(VIEWER, "viewer", workspaces=["other"]),)),
    ("of another network",        (key(VIEWER, "viewer", allowed_cidrs=["10.0.0.0/8"]),)),
]
# fmt: on


@pytest.mark.parametrize("keys", [keys for _, keys in NOBODYS], ids=[name for name, _ in NOBODYS])
async def test_a_key_that_is_nobodys_any_more_gets_nothing_more(
    world: World, keys: tuple[ApiKey, ...]
) -> None:
    """T-SEC-01"""
    async with opened(world, **bearer(VIEWER)) as events, opened(world) as others:
        await put(world, "before")
        assert (await events.next()).data["event_id"] == "before"
        world.workspaces = (workspace("default", key("admin0000000"), *keys), WORKSPACES[1])
        await put(world, "after")
        assert await events.rest() == []
        assert [(await others.next()).data["event_id"] for _ in "12"] == ["before", "after"]


@pytest.mark.thorough
async def test_a_silent_stream_of_a_revoked_key_ends_too(world: World) -> None:
    async with opened(world, **bearer(VIEWER)) as events:
        world.workspaces = (workspace("default"),)
        assert await events.rest() == []


async def test_a_key_that_expires_while_it_streams_gets_nothing_more(world: World) -> None:
    keys = (key("admin0000000"), key(VIEWER, "viewer", expires_at=LATER))
    world.workspaces = (workspace("default", *keys),)
    async with opened(world, **bearer(VIEWER)) as events:
        await put(world, "before")
        assert (await events.next()).data["event_id"] == "before"
        world.clock.advance(61)
        await put(world, "after")
        assert await events.rest() == []


async def test_a_key_that_stays_as_it_was_streams_on(world: World) -> None:
    async with opened(world, **bearer(VIEWER)) as events:
        own = (key("admin0000000"), key("new000000000"), key(VIEWER, "viewer"))
        world.workspaces = (workspace("default", *own),)
        await put(world, "after")
        assert (await events.next()).data["event_id"] == "after"


async def test_a_position_the_log_does_not_have_is_a_reset(world: World) -> None:
    await put(world, "a")
    async with opened(world, "?after=7") as events:
        reset = await events.next()
        assert (reset.event, reset.id, reset.data) == ("stream.reset", "1", {"seq": 1})
        await put(world, "b")
        assert (await events.next()).data["event_id"] == "b"


async def test_a_log_that_lost_its_end_is_a_reset_also_when_it_is_longer_again(
    world: World,
) -> None:
    assert isinstance(world.store, MemoryStore)
    await put(world, "a", "b", "c")
    async with opened(world, "?after=0") as events:
        assert [(await events.next()).id for _ in range(3)] == ["1", "2", "3"]
        world.store.lost["default", EVENTS_LOG] = Setback(1, 1)
        world.intake.ring("default")
        reset = await events.next()
        assert (reset.event, reset.id, reset.data) == ("stream.reset", "1", {"seq": 1})
        assert [(await events.next()).id for _ in range(2)] == ["2", "3"]
        await put(world, "d")
        assert (await events.next()).id == "4"
    async with opened(
        world, "?after=4"
    ) as events:  # a setback of before is nothing to a new reader
        await put(world, "e")
        assert (await events.next()).id == "5"


class Shrinking(MemoryStore):
    """Its log of events may be cut, which is known a little later."""

    def cut(self, end: int) -> None:
        del self._rooms["default"].logs[EVENTS_LOG][end:]


async def test_a_reader_who_saw_the_end_go_back_is_told_once() -> None:
    clock = FakeClock()
    store = Shrinking(clock)
    async with running(store, clock=clock) as world:
        await put(world, "a", "b", "c")
        async with opened(world, "?after=3") as events:
            store.cut(1)
            world.intake.ring("default")
            reset = await events.next()
            assert (reset.event, reset.id) == ("stream.reset", "1")
            await put(world, "d")
            assert (await events.next()).data["event_id"] == "d"
            store.lost["default", EVENTS_LOG] = Setback(1, 1)
            await put(world, "e")
            assert (await events.next()).data["event_id"] == "e"


def narrow(address: tuple[Any, ...]) -> socket.socket:
    """A socket that takes little before it is read."""
    found = socket.socket(address[0], address[1], address[2])
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return found


@pytest.mark.thorough
async def test_a_reader_that_stops_is_told_and_resumes(world: World) -> None:
    connector = aiohttp.TCPConnector(socket_factory=narrow)
    async with (
        aiohttp.ClientSession(connector=connector, read_bufsize=4096) as session,
        opened(world, "?after=0", session) as events,
    ):
        await put(world, "first")
        assert (await events.next()).id == "1"
        for start in range(0, 3000, 250):  # 12 MB: more than all buffers on the way hold
            await put(world, *(f"e{i}" for i in range(start, start + 250)), note="x" * 4000)
        told = await events.rest()
    assert told[-1].event == "stream.overflow"
    last = int(told[-1].id)
    assert [int(one.id) for one in told[:-1]] == list(range(2, last + 1))
    assert last < 3001
    async with opened(world, f"?after={last}&max_events={3001 - last}") as events:
        assert [int(one.id) for one in await events.rest()] == list(range(last + 1, 3002))


@pytest.mark.thorough
async def test_a_backlog_is_no_falling_behind(world: World) -> None:
    for start in range(0, 2000, 500):
        await put(world, *(f"e{i}" for i in range(start, start + 500)))
    async with opened(world, "?after=0&max_events=2000") as events:
        assert len(await events.rest()) == 2000


async def test_twenty_streams_a_key(world: World) -> None:
    world.control = Control.model_validate({"rate_limits": {"stream": 2}})
    async with opened(world), opened(world) as second:
        assert second.response.headers["X-RateLimit-Remaining"] == "0"
        refused = await world.get(STREAM)
        assert (refused.status, refused.doc["violated-policies"]) == (429, ["stream"])
        other = await world.get(STREAM + "?timeout_s=x", bearer("viewer000000"))
        assert other.status == 422
    async with asyncio.timeout(5):
        while (await world.get(STREAM + "?limit=1")).status == 429:
            pass  # the server has not seen yet that both are gone
    async with opened(world):
        pass


# fmt: off
BAD = [
    ("?after=-1", {}, 422), ("?after=x", {}, 422), ("?max_events=0", {}, 422), ("?page=1", {}, 422),
    ("", {"Last-Event-ID": "x"}, 422), ("", {"Last-Event-ID": "9" * 19}, 422),
    ("?after=1", {"Last-Event-ID": "x"}, 422),
    ("?after=9999999999999999999", {}, 422), ("", {"Accept": "application/json"}, 406),
]
# fmt: on


@pytest.mark.parametrize(("query", "headers", "status"), BAD)
async def test_bad_streams(world: World, query: str, headers: dict[str, str], status: int) -> None:
    answer = await world.get(STREAM + query, {**ADMIN, **headers})
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_readers_of_two_workspaces_see_their_own(stored: World) -> None:
    url = f"http://127.0.0.1:{stored.port}/v1/workspaces/other/events/stream?max_events=1"
    async with stored.session.get(url, headers=bearer("foreign00000")) as response:
        await put(stored, "mine")
        await stored.post(
            "/v1/ingest/runtime", {**EVENT, "event_id": "theirs"}, bearer("foreign00000")
        )
        assert b'"theirs"' in await response.read()


async def test_a_caller_that_leaves_gives_its_place_back() -> None:
    control = Control.model_validate({"rate_limits": {"stream": 1}})
    async with running(control=control) as world:
        for _ in range(5):
            async with asyncio.timeout(5):
                while (await world.get(STREAM + "?after=x")).status == 429:
                    pass
            async with opened(world):
                pass


def test_bounds_of_the_contract() -> None:
    assert (stream.BEHIND_MAX, stream.HEARTBEAT_S) == (1000, 15.0)


class Silent(MemoryStore):
    """Cannot be read for a while."""

    away = False

    async def head(self, workspace_id: str, log: str) -> int:
        if self.away:
            raise StoreUnavailable("storage-unavailable", "it does not answer")
        return await super().head(workspace_id, log)

    async def range(self, workspace_id: str, log: str, query: LogFilter) -> LogPage:
        await self.head(workspace_id, log)
        return await super().range(workspace_id, log, query)


@pytest.mark.parametrize("query", ["", "?after=0"])
async def test_a_store_that_cannot_be_read_for_a_while_costs_no_event(query: str) -> None:
    clock = FakeClock()
    store = Silent(clock)
    async with running(store, clock=clock) as world, opened(world, query) as events:
        await put(world, "a")
        assert (await events.next()).data["event_id"] == "a"
        store.away = True
        await put(world, "b")
        await asyncio.sleep(0.05)
        store.away = False
        await put(world, "c")
        found = [await events.next() for _ in range(2)]
        assert [told.data["event_id"] for told in found] == ["b", "c"]
        store.away = True
        refused = await world.get(STREAM)
        assert (refused.status, refused.slug) == (503, "storage-unavailable")
