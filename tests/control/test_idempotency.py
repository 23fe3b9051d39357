"""T-IDM: one effect per Idempotency-Key, on both engines (control-api.md §6)."""

import asyncio

import pytest

from proxy.control.idempotency import read_key
from proxy.control.problems import Problem
from proxy.model.batch import Batch, CommitResult
from proxy.settings.schema import Control, Ingest
from tests.control.world import ADMIN, CHANGE, EVENT, World, bearer, running
from tests.kit.fakes import FakeClock
from tests.kit.store import MemoryStore

KEY = {"Idempotency-Key": "k-1"}
RUNTIME, EVENTS = "/v1/ingest/runtime", "/v1/workspaces/default/events"


async def total(world: World) -> int:
    found = (await world.get(EVENTS)).doc["total"]
    assert isinstance(found, int)
    return found


async def test_t_idm_01_the_same_twice_is_one_effect_and_one_answer(stored: World) -> None:
    first = await stored.ingest_runtime(EVENT, **KEY)
    stored.clock.advance(10)
    again = await stored.ingest_runtime(EVENT, **KEY)
    assert (first.status, again.status) == (202, 202)
    assert first.body == again.body
    assert again.doc["status"] == "accepted"
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert first.headers["X-Request-Id"] != again.headers["X-Request-Id"]
    assert await total(stored) == 1
    assert b"parapet_idempotent_replays_total 1\n" in (await stored.get("/metrics")).body


async def test_a_batch_is_replayed_item_by_item(stored: World) -> None:
    await stored.ingest_runtime({**EVENT, "event_id": "known"})
    stored.clock.advance(1)
    batch = [
        {**EVENT, "event_id": "new", "route_id": "nowhere"},
        {**EVENT, "event_id": "known"},
        {**EVENT, "event_id": "new", "route_id": "nowhere"},
        {**EVENT, "event_id": "known", "cost": 1},
        {"broken": True},
    ]
    first = await stored.ingest_runtime(batch, **KEY)
    stored.clock.advance(1)
    again = await stored.ingest_runtime(batch, **KEY)
    assert [result["status"] for result in first.doc["results"]] == [
        "accepted", "duplicate", "duplicate", "rejected", "rejected",
    ]  # fmt: skip
    assert first.body == again.body
    assert await total(stored) == 2


async def test_what_was_refused_then_is_refused_in_a_replay(stored: World) -> None:
    soon = {**EVENT, "event_id": "soon", "timestamp": "2024-03-15T14:40:00Z"}
    first = await stored.ingest_runtime([EVENT, soon], **KEY)
    stored.clock.advance(600)
    again = await stored.ingest_runtime([EVENT, soon], **KEY)
    assert [r["status"] for r in again.doc["results"]] == ["accepted", "rejected"]
    assert first.doc["rejected"] == again.doc["rejected"] == 1
    assert await total(stored) == 1


async def test_t_idm_02_another_body_under_the_same_key(stored: World) -> None:
    raw = b'{"event_id":"evt-1","route_id":"r","timestamp":"2024-03-15T14:30:00Z"}'
    headers = {**bearer("admin0000000"), **KEY, "Content-Type": "application/json"}
    await stored.call("POST", RUNTIME, headers=headers, data=raw)
    for path, data in ((RUNTIME, raw + b" "), (RUNTIME, raw.replace(b"evt-1", b"evt-2"))):
        answer = await stored.call("POST", path, headers=headers, data=data)
        assert (answer.status, answer.slug) == (422, "idempotency-key-reused")
    assert await total(stored) == 1


async def test_t_idm_03_two_at_once_are_one_effect(stored: World) -> None:
    answers = await asyncio.gather(*(stored.ingest_runtime(EVENT, **KEY) for _ in range(5)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.body for answer in answers}) == 1
    assert sorted("Idempotent-Replayed" in answer.headers for answer in answers) == [
        False, True, True, True, True,
    ]  # fmt: skip
    assert await total(stored) == 1


class SlowStore(MemoryStore):
    """A store whose commits wait until the test lets them go."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()

    async def commit(self, workspace_id: str, batch: Batch) -> CommitResult:
        self.entered.set()
        await self.gate.wait()
        return await super().commit(workspace_id, batch)


@pytest.mark.thorough
async def test_t_idm_03_one_that_does_not_finish_is_409() -> None:
    store = SlowStore()
    async with running(store) as world:

        async def first() -> None:
            assert (await world.ingest_runtime(EVENT, **KEY)).status == 202

        async with asyncio.TaskGroup() as group:
            group.create_task(first())
            await store.entered.wait()
            other = await world.ingest_runtime({**EVENT, "cost": 1}, **KEY)
            assert (other.status, other.slug) == (422, "idempotency-key-reused")
            waited = await world.ingest_runtime(EVENT, **KEY)
            assert (waited.status, waited.slug) == (409, "idempotency-in-progress")
            assert waited.headers["Retry-After"] == "1"
            store.gate.set()


class ForgetfulStore(MemoryStore):
    """The record is there at the commit only: another process has written it in between."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.blind = 0

    async def idempotency(self, workspace_id: str, key: bytes):  # type: ignore[no-untyped-def]
        self.blind -= 1
        return None if self.blind >= 0 else await super().idempotency(workspace_id, key)


async def test_a_commit_that_finds_a_finished_record_replays_it() -> None:
    store = ForgetfulStore()
    async with running(store) as world:
        first = await world.ingest_runtime(EVENT, **KEY)
        store.blind = 1
        again = await world.ingest_runtime(EVENT, **KEY)
        assert again.body == first.body
        assert again.headers["Idempotent-Replayed"] == "true"


async def test_t_idm_04_the_key_belongs_to_one_path_template(stored: World) -> None:
    assert (await stored.ingest_runtime(EVENT, **KEY)).status == 202
    change = await stored.ingest_change(CHANGE, **KEY)
    assert (change.status, change.doc["status"]) == (202, "accepted")


async def test_t_idm_07_after_its_time_the_event_id_still_counts(stored: World) -> None:
    await stored.ingest_runtime(EVENT, **KEY)
    stored.clock.advance(24 * 3600 + 1)
    again = await stored.ingest_runtime(EVENT, **KEY)
    assert "Idempotent-Replayed" not in again.headers
    assert again.doc["duplicate"] is True
    assert await total(stored) == 1


async def test_the_time_of_a_key_is_a_setting(stored: World) -> None:
    stored.control = Control(idempotency_ttl_hours=1)
    await stored.ingest_runtime(EVENT, **KEY)
    stored.clock.advance(3601)
    assert "Idempotent-Replayed" not in (await stored.ingest_runtime(EVENT, **KEY)).headers


async def test_t_idm_08_a_key_of_one_workspace_is_unknown_in_another(stored: World) -> None:
    await stored.ingest_runtime(EVENT, **KEY)
    foreign = bearer("foreign00000") | KEY
    answer = await stored.post(RUNTIME, {**EVENT, "cost": 9}, foreign)
    assert (answer.status, answer.doc["status"]) == (202, "accepted")


async def test_another_key_of_the_workspace_may_repeat(stored: World) -> None:
    await stored.ingest_runtime(EVENT, **KEY)
    answer = await stored.post(RUNTIME, EVENT, bearer("ingest000000") | KEY)
    assert answer.headers["Idempotent-Replayed"] == "true"


async def test_refusals_are_not_kept(stored: World) -> None:
    bad = await stored.ingest_runtime({"event_id": "evt-1"}, **KEY)
    assert bad.status == 422
    good = await stored.ingest_runtime(EVENT, **KEY)
    assert (good.status, "Idempotent-Replayed" in good.headers) == (202, False)


async def test_after_a_5xx_the_same_key_may_be_used(world: World) -> None:
    world.store.can_write = False  # type: ignore[attr-defined]
    assert (await world.ingest_runtime(EVENT, **KEY)).status == 503
    world.store.can_write = True  # type: ignore[attr-defined]
    answer = await world.ingest_runtime(EVENT, **KEY)
    assert (answer.status, answer.doc["status"]) == (202, "accepted")


async def test_a_conflict_is_replayed_as_a_conflict(stored: World) -> None:
    await stored.ingest_runtime(EVENT)
    for _ in range(2):
        answer = await stored.ingest_runtime({**EVENT, "cost": 1}, **KEY)
        assert (answer.status, answer.slug) == (409, "event-id-conflict")
    assert await total(stored) == 1


async def test_a_reload_happens_once_per_key(world: World) -> None:
    for _ in range(3):
        assert (await world.call("POST", "/v1/admin/reload", headers=ADMIN | KEY)).status == 200
    assert world.reloads == 1
    assert (await world.call("POST", "/v1/admin/reload", headers=ADMIN)).status == 200
    assert world.reloads == 2


async def test_a_key_can_be_required() -> None:
    async with running(ingest=Ingest(require_idempotency_key=True)) as world:
        answer = await world.ingest_runtime(EVENT)
        assert (answer.status, answer.slug) == (400, "idempotency-key-missing")
        assert (await world.ingest_runtime(EVENT, **KEY)).status == 202


async def test_other_methods_ignore_the_header(world: World) -> None:
    assert (await world.get(EVENTS, ADMIN | {"Idempotency-Key": "not a key"})).status == 200


# fmt: off
KEYS = [
    ("abc", "abc"), ('"abc"', "abc"), ("a" * 255, "a" * 255), ("~!#", "~!#"),
    ('"a\\"b"', 'a"b'), ('"a\\\\b"', "a\\b"),
    ("", None), ('""', None), ("a" * 256, None), ('"' + "a" * 256 + '"', None), ("a b", None),
    ('"a b"', None), ("é", None), ('a"b', None), ('"abc', None), ('"a\\b"', None), ("a\tb", None),
]
# fmt: on


@pytest.mark.parametrize(("header", "text"), KEYS)
def test_the_grammar_of_a_key(header: str, text: str | None) -> None:
    if text is not None:
        assert read_key(header) == text
    else:
        with pytest.raises(Problem, match="invalid-idempotency-key"):
            read_key(header)


async def test_the_quoted_and_the_bare_form_are_the_same_key(world: World) -> None:
    await world.ingest_runtime(EVENT, **{"Idempotency-Key": "abc"})
    again = await world.ingest_runtime(EVENT, **{"Idempotency-Key": '"abc"'})
    assert again.headers["Idempotent-Replayed"] == "true"
