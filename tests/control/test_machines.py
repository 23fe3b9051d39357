"""Two machines over one Redis: one bucket per key, one effect per Idempotency-Key, also while they
cannot agree (control-api.md §6, §7)."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.model.batch import Batch, CommitResult
from proxy.model.coord import NodeBeat
from proxy.settings.schema import Control
from proxy.storage.redis.coord import RedisCoord
from proxy.storage.redis.engine import RedisStore
from proxy.storage.redis.server import HINT_S
from tests.control.world import EVENT, World, bearer, running
from tests.kit.coord import PATIENT_S, machine
from tests.kit.redis import RedisServer
from tests.kit.store import HandNow

pytestmark = pytest.mark.redis
STATUS, EVENTS = "/v1/status", "/v1/workspaces/default/events"
KEY = {"Idempotency-Key": "k-1"}
WITHIN_S = 0.5


class Gated:
    """A store whose commits wait until the test lets them go."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.entered, self.gate = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, workspace_id: str, batch: Batch) -> CommitResult:
        self.entered.set()
        await self.gate.wait()
        return await self._store.commit(workspace_id, batch)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may freeze and kill."""
    with RedisServer(tmp_path / "own") as server:
        yield server


@asynccontextmanager
async def machines(
    url: str, *, hint_s: float = PATIENT_S, lease_s: float = 60.0, gated: bool = False
) -> AsyncIterator[list[World]]:
    """Two; with `gated` the first has a store that waits."""
    async with AsyncExitStack() as stack:
        worlds = []
        for number in range(2):
            there = machine(url, HandNow(), hint_s=hint_s, lease_s=lease_s)
            store, coord = await stack.enter_async_context(there)
            seen: Any = Gated(store) if gated and number == 0 else store
            worlds.append(await stack.enter_async_context(running(seen, coord=coord)))
        for _ in range(2):
            for number, world in enumerate(worlds):
                await world.coord.beat(NodeBeat(f"node-{number}", "f"))
        yield worlds


async def test_a_key_has_its_limit_once_over_all_machines(redis: RedisServer) -> None:
    async with machines(redis.url) as worlds:
        for world in worlds:
            world.control = Control.model_validate({"rate_limits": {"control_read": 10}})
        answers = [await worlds[n % 2].get(STATUS, bearer("viewer000000")) for n in range(14)]
        assert [answer.status for answer in answers] == [200] * 10 + [429] * 4
        left = [int(answer.headers["X-RateLimit-Remaining"]) for answer in answers]
        assert left == [*range(9, -1, -1), 0, 0, 0, 0]
        assert answers[-1].headers["Retry-After"] == "6"
        assert answers[-1].headers["RateLimit-Policy"] == '"control-read";q=10;w=60'
        assert (await worlds[0].get(STATUS, bearer("app000000000"))).status == 200
        both = bearer("both00000000")  # a key of several workspaces has one bucket, too
        for n in range(10):
            world, name = worlds[n % 2], ("default", "other")[n % 2]
            assert (await world.get(f"/v1/workspaces/{name}/events", both)).status == 200
        assert (await worlds[0].get(EVENTS, both)).status == 429


async def test_at_once_too(redis: RedisServer) -> None:
    async with machines(redis.url) as worlds:
        for world in worlds:
            world.control = Control.model_validate({"rate_limits": {"control_read": 5}})
        answers = await asyncio.gather(*(worlds[n % 2].get(STATUS) for n in range(12)))
        assert sorted(answer.status for answer in answers) == [200] * 5 + [429] * 7


@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_without_redis_each_has_its_share_and_answers_fast(
    own: RedisServer, how: str
) -> None:
    async with machines(own.url, hint_s=HINT_S) as worlds:
        for world in worlds:
            world.control = Control.model_validate({"rate_limits": {"control_read": 10}})
        if how == "frozen":
            own.freeze()
        else:
            own.kill()
        for world in worlds:
            statuses = []
            for _ in range(8):
                began = time.monotonic()
                answer = await world.get(STATUS)
                assert time.monotonic() - began < WITHIN_S
                statuses.append(answer.status)
                assert answer.headers["X-RateLimit-Limit"] == "5"
            assert statuses == [200] * 5 + [429] * 3
            for _ in range(3):
                began = time.monotonic()
                answer = await world.ingest_runtime(EVENT, **KEY)
                assert time.monotonic() - began < WITHIN_S
                assert (answer.status, answer.slug) == (503, "storage-unavailable")
        if how == "frozen":
            own.signal(signal.SIGCONT)


async def test_t_idm_03_at_once_on_two_machines(redis: RedisServer) -> None:
    """One effect and equal replies."""
    async with machines(redis.url) as worlds:
        for number in range(20):
            body = {**EVENT, "event_id": f"evt-{number}"}
            key = {"Idempotency-Key": f"k-{number}"}
            answers = await asyncio.gather(
                *(worlds[n % 2].ingest_runtime(body, **key) for n in range(4))
            )
            assert {answer.status for answer in answers} == {202}
            assert len({answer.body for answer in answers}) == 1
            assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
        assert (await worlds[0].get(EVENTS)).doc["total"] == 20


async def test_documents_are_made_once(redis: RedisServer) -> None:
    async with machines(redis.url) as worlds:
        rule = {"name": "slow", "condition": {"metric": "violations"}}
        path = "/v1/workspaces/default/alert-rules"
        headers = bearer("admin0000000") | KEY
        answers = await asyncio.gather(*(worlds[n % 2].post(path, rule, headers) for n in range(4)))
        assert {answer.status for answer in answers} == {201}
        assert len({answer.headers["Location"] for answer in answers}) == 1
        assert (await worlds[1].get(path)).doc["total"] == 1
        assert redis.command("KEYS", "parapet:*:run:*") == b"*0\r\n"  # nothing is left behind


async def test_t_idm_03_one_that_does_not_finish_is_409(redis: RedisServer) -> None:
    async with machines(redis.url, gated=True) as (one, other):
        store: Any = one.store

        async def first() -> None:
            assert (await one.ingest_runtime(EVENT, **KEY)).status == 202

        async with asyncio.TaskGroup() as group:
            group.create_task(first())
            await store.entered.wait()
            changed = await other.ingest_runtime({**EVENT, "cost": 1}, **KEY)
            assert (changed.status, changed.slug) == (422, "idempotency-key-reused")
            began = time.monotonic()
            waited = await other.ingest_runtime(EVENT, **KEY)
            assert 1.9 < time.monotonic() - began < 3
            assert (waited.status, waited.slug) == (409, "idempotency-in-progress")
            assert waited.headers["Retry-After"] == "1"
            again = group.create_task(other.ingest_runtime(EVENT, **KEY))
            await asyncio.sleep(0.1)
            store.gate.set()
        assert again.result().headers["Idempotent-Replayed"] == "true"
        assert (await other.get(EVENTS)).doc["total"] == 1


async def under_way(redis: RedisServer, world: World) -> None:
    """As if the machine had died with the one request of this test: its mark is there."""
    (name,) = [
        word
        for word in redis.command("KEYS", "parapet:{default}:idem:*").decode().split("\r\n")
        if word.startswith("parapet:")
    ]
    key = bytes.fromhex(name.rpartition(":")[2])
    record = await world.store.idempotency("default", key)
    assert record is not None
    assert await world.coord.begin("default", key, record.fingerprint) is None


async def test_t_idm_05_who_died_after_the_commit_is_replayed_at_once(redis: RedisServer) -> None:
    async with machines(redis.url) as (one, other):
        first = await one.ingest_runtime(EVENT, **KEY)
        await under_way(redis, one)
        began = time.monotonic()
        again = await other.ingest_runtime(EVENT, **KEY)
        assert time.monotonic() - began < 1
        assert (again.body, again.headers["Idempotent-Replayed"]) == (first.body, "true")


@pytest.mark.parametrize(("lease_s", "seen"), [(1.0, [202]), (3.0, [409, 202])])
async def test_t_idm_06_who_died_before_the_commit_is_waited_for(
    redis: RedisServer, lease_s: float, seen: list[int]
) -> None:
    """For as long as its mark lives; then the next retry executes."""
    async with machines(redis.url, lease_s=lease_s) as (one, other):
        await one.ingest_runtime(EVENT, **KEY)
        await under_way(redis, one)
        for name in ("idem:*", "eid:*", "dd:*"):  # the commit did not happen
            for word in redis.command("KEYS", f"parapet:{{default}}:{name}").decode().split():
                if word.startswith("parapet:"):
                    redis.command("DEL", word)
        answers = [await other.ingest_runtime(EVENT, **KEY)]
        if answers[0].status == 409:
            answers.append(await other.ingest_runtime(EVENT, **KEY))
        assert [answer.status for answer in answers] == seen
        assert "Idempotent-Replayed" not in answers[-1].headers


async def test_a_mark_that_is_lost_costs_nothing(redis: RedisServer) -> None:
    """Both execute, and the commit decides."""
    async with machines(redis.url, gated=True) as (one, other):
        store: Any = one.store
        async with asyncio.TaskGroup() as group:
            first = group.create_task(one.ingest_runtime(EVENT, **KEY))
            await store.entered.wait()
            for word in redis.command("KEYS", "parapet:*:run:*").decode().split():
                redis.command("DEL", word)
            second = await other.ingest_runtime(EVENT, **KEY)
            store.gate.set()
        assert second.status == first.result().status == 202
        assert second.body == first.result().body
        assert (await other.get(EVENTS)).doc["total"] == 1


async def test_a_change_is_told_to_the_other_machine(redis: RedisServer) -> None:
    async with machines(redis.url) as (one, other):
        coord = other.coord
        assert isinstance(coord, RedisCoord)
        async with asyncio.timeout(2):
            await coord.noticed()  # it listens
        async with asyncio.TaskGroup() as group:
            noticed = group.create_task(coord.noticed())
            await asyncio.sleep(0.2)
            assert not noticed.done()
            began = time.monotonic()
            route = {"id": "new", "endpoint": "anthropic-claude"}
            made = await one.post("/v1/workspaces/default/routes", route)
            assert made.status == 201
        assert time.monotonic() - began < 1
