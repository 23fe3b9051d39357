"""Events that come while the store is away (events.md §2.4, storage.md §5)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.model.batch import Batch, CommitResult, FinishedIdem, StoreUnavailable
from proxy.spool.keeper import Keeper
from proxy.spool.reader import SpoolReader
from proxy.workers.spooler import Spooler
from tests.control.world import ADMIN, CHANGE, EVENT, Answer, World, bearer, running
from tests.kit.fakes import FakeClock
from tests.kit.store import MemoryStore

EVENTS = "/v1/workspaces/default/events"
KEY = {"Idempotency-Key": "k-1"}
LOCAL = {"duplicate": None, "seq": None, "durability": "local", "status": "accepted"}


class Leaving(MemoryStore):
    """Is away, or loses the answer to the next commit and is away then."""

    away: StoreUnavailable | None = None
    loses = False

    async def commit(self, workspace_id: str, batch: Batch) -> CommitResult:
        self._there()
        result = await super().commit(workspace_id, batch)
        if self.loses:
            self.leave()
        self._there()
        return result

    async def idempotency(self, workspace_id: str, key: bytes) -> FinishedIdem | None:
        self._there()
        return await super().idempotency(workspace_id, key)

    def leave(self, code: str = "storage-unavailable") -> None:
        self.away = StoreUnavailable(code, "away")

    def come_back(self) -> None:
        self.away, self.loses = None, False

    def _there(self) -> None:
        if self.away is not None:
            raise self.away


class Node:
    """A world whose store may leave, with its spool."""

    def __init__(self, world: World, home: Path) -> None:
        self.world = world
        assert isinstance(world.store, Leaving)
        self.store = world.store
        self.home = home
        self._spooler = self.started()

    def started(self) -> Spooler:
        """A spooler as a new process has it."""
        self._spooler = Spooler(
            SpoolReader(self.home),
            self.store,
            self.world.intake.accept,
            self.world.clock,
            node="node-1",
            batch_lines=3,
        )
        return self._spooler

    async def back(self) -> None:
        """The store returns, and the spool is read to its end."""
        self.store.come_back()
        while await self._spooler.step():
            pass

    async def stored(self) -> list[tuple[str, str, str]]:
        """(event id, when it was received, from where), in order"""
        found = (await self.world.get(f"{EVENTS}?sort=created_at:asc&limit=100")).doc["data"]
        return [(each["event_id"], each["received_at"], each["source"]) for each in found]

    async def counted(self, result: str) -> int:
        text = (await self.world.get("/metrics")).body.decode()
        name = f'parapet_events_ingested_total{{source="api",result="{result}"}} '
        return next((int(line[len(name) :]) for line in text.splitlines() if name in line), 0)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    clock = FakeClock()
    keeper = Keeper(tmp_path, clock.monotonic)
    async with running(Leaving(clock), clock=clock, keeper=keeper) as world:
        yield Node(world, tmp_path)
        await keeper.close()


async def test_one_event_is_kept_and_stored_on_return(node: Node) -> None:
    node.store.leave()
    answer = await node.world.ingest_runtime(EVENT)
    assert (answer.status, answer.doc) == (
        202, {"event_id": "evt-1", "received_at": "2024-03-15T14:30:00Z", **LOCAL},
    )  # fmt: skip
    node.world.clock.advance(60)
    await node.back()
    assert await node.stored() == [("evt-1", "2024-03-15T14:30:00Z", "api/admin0000000")]
    assert [await node.counted(each) for each in ("spooled", "accepted")] == [1, 1]


async def test_a_batch_is_judged_item_by_item(node: Node) -> None:
    node.store.leave()
    batch = [EVENT, {"broken": True}, {**EVENT, "event_id": "evt-2", "route_id": "nowhere"}, EVENT]
    answer = await node.world.ingest_runtime(batch)
    doc = answer.doc
    assert (answer.status, doc["accepted"], doc["duplicates"], doc["rejected"]) == (202, 3, 0, 1)
    assert [each["status"] for each in doc["results"]] == [
        "accepted", "rejected", "accepted", "accepted",
    ]  # fmt: skip
    assert doc["results"][2].items() >= {**LOCAL, "index": 2, "event_id": "evt-2"}.items()
    assert doc["results"][2]["warnings"]
    await node.back()
    assert [event_id for event_id, _, _ in await node.stored()] == ["evt-1", "evt-2"]
    assert await node.counted("duplicate") == 1


@pytest.mark.parametrize(
    ("key", "body", "status", "slug"),
    [
        ("viewer000000", EVENT, 403, "forbidden"),
        ("admin0000000", {"broken": True}, 422, "validation-error"),
        ("admin0000000", [], 422, "validation-error"),
        ("nobody000000", EVENT, 401, "unauthenticated"),
        ("admin0000000", {**EVENT, "workspace_id": "other"}, 403, "forbidden"),
    ],
)
async def test_what_is_refused_is_refused_then_too(
    node: Node, key: str, body: object, status: int, slug: str
) -> None:
    node.store.leave()
    answer = await node.world.post("/v1/ingest/runtime", body, bearer(key))
    assert (answer.status, answer.slug) == (status, slug)
    await node.back()
    assert await node.stored() == []


async def test_repeats_are_settled_on_return(node: Node) -> None:
    """Known before, sent twice meanwhile, sent again before the spool was read, another content."""
    await node.world.ingest_runtime(EVENT)
    node.store.leave()
    for event_id in ("evt-1", "evt-2", "evt-2", "evt-3"):
        await node.world.ingest_runtime({**EVENT, "event_id": event_id})
    await node.world.ingest_runtime({**EVENT, "event_id": "evt-2", "cost": 1})
    for _ in range(2):
        await node.world.ingest_change(CHANGE)
    node.store.come_back()
    early = await node.world.ingest_runtime({**EVENT, "event_id": "evt-3"})
    assert early.doc["status"] == "accepted"
    await node.back()
    stored = [event_id for event_id, _, _ in await node.stored()]
    assert stored[:3] == ["evt-1", "evt-3", "evt-2"]
    assert len(stored) == 4
    assert [await node.counted(each) for each in ("duplicate", "conflict")] == [4, 1]
    again = await node.world.ingest_runtime({**EVENT, "event_id": "evt-2"})
    assert (again.doc["status"], again.doc["seq"]) == ("duplicate", 3)


async def test_a_key_is_recorded_with_the_events(node: Node) -> None:
    """The same request again, while the store is away and after, is one effect."""
    node.store.leave()
    batch = [EVENT, {**EVENT, "event_id": "evt-2"}]
    for _ in range(2):
        first = await node.world.ingest_runtime(batch, **KEY)
        assert "Idempotent-Replayed" not in first.headers
        node.world.clock.advance(1)
    await node.back()
    assert len(await node.stored()) == 2
    again = await node.world.ingest_runtime(batch, **KEY)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert [(each["status"], each["seq"]) for each in again.doc["results"]] == [
        ("accepted", 1), ("accepted", 2),
    ]  # fmt: skip
    other = await node.world.ingest_runtime([EVENT], **KEY)
    assert (other.status, other.slug) == (422, "idempotency-key-reused")
    assert len(await node.stored()) == 2


async def test_a_repetition_may_overtake_the_spool(node: Node) -> None:
    node.store.leave()

    async def sent(n: int) -> Answer:
        event = {**EVENT, "event_id": f"evt-{n}"}
        return await node.world.ingest_runtime(event, **{"Idempotency-Key": f"k-{n}"})

    for n in range(4):
        await sent(n)
    node.store.come_back()
    direct = await sent(0)
    assert direct.doc["status"] == "accepted"
    await node.back()
    assert sorted(event_id for event_id, _, _ in await node.stored()) == [
        f"evt-{n}" for n in range(4)
    ]
    assert (await sent(0)).body == direct.body
    assert (await sent(3)).headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize("headers", [{}, KEY], ids=["without a key", "with a key"])
async def test_a_commit_whose_answer_was_lost_is_one_effect(
    node: Node, headers: dict[str, str]
) -> None:
    node.store.loses = True
    answer = await node.world.ingest_runtime(EVENT, **headers)
    assert (answer.status, answer.doc["durability"]) == (202, "local")
    await node.back()
    assert len(await node.stored()) == 1
    await node.world.ingest_runtime(EVENT, **headers)
    assert len(await node.stored()) == 1


async def test_a_new_process_reads_what_the_old_one_kept(node: Node) -> None:
    node.store.leave()
    for n in range(10):
        await node.world.ingest_runtime({**EVENT, "event_id": f"evt-{n}"})
    node.started()
    await node.back()
    node.started()
    await node.back()
    assert [event_id for event_id, _, _ in await node.stored()] == [f"evt-{n}" for n in range(10)]


async def test_a_store_without_time_is_not_away(node: Node) -> None:
    node.store.leave("overloaded")
    answer = await node.world.ingest_runtime(EVENT)
    assert (answer.status, answer.slug) == (503, "overloaded")
    await node.back()
    assert await node.stored() == []


async def test_without_a_spool_for_it_ingest_says_503() -> None:
    clock = FakeClock()
    store = Leaving(clock)
    async with running(store, clock=clock) as world:
        store.leave()
        answer = await world.ingest_runtime(EVENT)
        assert (answer.status, answer.slug) == (503, "storage-unavailable")


async def test_a_full_spool_says_so(tmp_path: Path) -> None:
    clock = FakeClock()
    store = Leaving(clock)
    keeper = Keeper(tmp_path, clock.monotonic, cap_bytes=3_000)
    async with running(store, clock=clock, keeper=keeper) as world:
        store.leave()
        answers = [await world.ingest_runtime({**EVENT, "event_id": f"e-{n}"}) for n in range(20)]
        kept = [answer for answer in answers if answer.status == 202]
        refused = answers[len(kept) :]
        assert 1 < len(kept) < 20
        assert {(one.status, one.slug) for one in refused} == {(503, "spool-full")}
        assert refused[0].headers["Retry-After"] == "1"
        node = Node(world, tmp_path)
        await node.back()
        stored = (await world.get(f"{EVENTS}?limit=100", ADMIN)).doc["data"]
        assert len(stored) == len(kept)
    await keeper.close()
