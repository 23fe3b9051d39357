"""T-ING: what comes in, in every shape, right and wrong (events.md §2)."""

import gzip
import io
import json
from typing import Any

import pytest

from proxy.model.events import derived
from tests.control.world import ADMIN, CHANGE, EVENT, NOW, World, bearer, running

INGEST = bearer("ingest000000")


async def stored_event(world: World, event_id: str, workspace: str = "default") -> Any:
    answer = await world.get(f"/v1/workspaces/{workspace}/events/{event_id}")
    assert answer.status == 200, answer.body
    return answer.doc


async def count(world: World) -> int:
    total = (await world.get("/v1/workspaces/default/events")).doc["total"]
    assert isinstance(total, int)
    return total


async def test_t_ing_01_the_same_event_twice_is_one_row(stored: World) -> None:
    first = await stored.ingest_runtime(EVENT)
    again = await stored.ingest_runtime(EVENT)
    assert (first.status, again.status) == (202, 202)
    assert first.doc == {
        "event_id": "evt-1", "status": "accepted", "duplicate": False, "seq": 1,
        "received_at": "2024-03-15T14:30:00Z",
    }  # fmt: skip
    assert again.doc == first.doc | {"status": "duplicate", "duplicate": True}
    assert await count(stored) == 1


async def test_t_ing_02_the_same_id_with_other_content_is_a_conflict(stored: World) -> None:
    await stored.ingest_runtime(EVENT)
    other = {**EVENT, "latency_ms": 5}
    alone = await stored.ingest_runtime(other)
    assert (alone.status, alone.slug) == (409, "event-id-conflict")
    batch = await stored.ingest_runtime([other, {**EVENT, "event_id": "evt-2"}])
    assert batch.status == 202
    assert batch.doc["rejected"] == 1
    assert batch.doc["results"][0]["errors"][0] == {
        "pointer": "#/0/event_id", "field": "0.event_id", "code": "event_id_conflict",
        "detail": "was used for another event",
    }  # fmt: skip


async def test_t_ing_03_a_change_without_id_has_a_derived_one(stored: World) -> None:
    first = await stored.ingest_change(CHANGE)
    again = await stored.ingest_change(CHANGE)
    event_id = derived("evt-", 20, "default", "anthropic", "c-1")
    assert first.doc["event_id"] == again.doc["event_id"] == event_id
    assert (first.doc["status"], again.doc["status"]) == ("accepted", "duplicate")
    assert await count(stored) == 1


async def test_t_ing_04_a_change_without_timestamp_may_be_retried_later(stored: World) -> None:
    first = await stored.ingest_change(CHANGE)
    stored.clock.advance(60)
    again = await stored.ingest_change(CHANGE)
    assert again.status == 202
    assert again.doc["duplicate"] is True
    assert again.doc["seq"] == first.doc["seq"]
    assert again.doc["received_at"] == first.doc["received_at"] == NOW


async def test_t_ing_05_time_may_be_old_but_not_in_the_future(world: World) -> None:
    old = {**EVENT, "timestamp": "1999-12-31T23:59:60+02:00"}
    assert (await world.ingest_runtime(old)).status == 202
    assert (await stored_event(world, "evt-1"))["timestamp"] == "1999-12-31T21:59:59Z"
    near = {**EVENT, "event_id": "evt-2", "timestamp": "2024-03-15T14:35:00Z"}
    assert (await world.ingest_runtime(near)).status == 202
    late = await world.ingest_runtime(
        {**EVENT, "event_id": "evt-3", "timestamp": "2024-03-15T14:35:00.001Z"}
    )
    assert late.status == 422
    assert late.codes() == [("timestamp", "timestamp_in_future")]
    change = await world.ingest_change({**CHANGE, "timestamp": "2024-03-15T14:36:00Z"})
    assert change.codes() == [("timestamp", "timestamp_in_future")]


FLAT = {
    **EVENT, "cost": 0.0214, "model": "claude-3-opus", "latency_ms": 1250, "provider": "anthropic",
    "tokens": {"input": 512, "output": 256}, "user_id": "u1", "status_code": 200,
    "outcome": "success", "ttft_ms": 10.5, "endpoint_id": "anthropic-claude", "team": "blue",
    "policy_profile": ["safety-v2@2.1.0", "pii@1.0.0"], "request_id": "req-9", "trace_id": "t-9",
}  # fmt: skip
IN_PAYLOAD = {
    "latency_ms", "tokens", "cost", "model", "provider", "ttft_ms", "user_id", "status_code",
    "outcome", "endpoint_id",
}  # fmt: skip


async def test_t_ing_07_flat_and_enveloped_are_stored_byte_for_byte_alike(world: World) -> None:
    enveloped: dict[str, Any] = {k: v for k, v in FLAT.items() if k not in IN_PAYLOAD}
    enveloped["payload"] = {k: FLAT[k] for k in reversed(FLAT) if k in IN_PAYLOAD}
    await world.ingest_runtime(FLAT)
    flat = (await world.get("/v1/workspaces/default/events/evt-1")).body
    again = await world.ingest_runtime(enveloped)
    assert again.doc["duplicate"] is True
    async with running() as second:
        await second.ingest_runtime(enveloped)
        assert (await second.get("/v1/workspaces/default/events/evt-1")).body == flat
    doc = json.loads(flat)
    assert doc["ext"] == {"team": "blue"}
    assert doc["policy_profile"] == "safety-v2@2.1.0,pii@1.0.0"
    assert doc["source"] == "api/admin0000000"
    assert doc["schema_version"] == "1.0"
    assert doc["workspace_id"] == "default"
    assert (doc["received_at"], doc["seq"]) == (NOW, 1)


async def test_t_ing_07_one_member_in_both_places_must_agree(world: World) -> None:
    same = {**EVENT, "cost": 1, "payload": {"cost": 1}}
    assert (await world.ingest_runtime(same)).status == 202
    differs = {**EVENT, "event_id": "e2", "cost": 1, "payload": {"cost": 2}}
    assert (await world.ingest_runtime(differs)).codes() == [("cost", "conflicting_value")]
    mirrored = {**CHANGE, "severity": "low", "payload": {"severity": "high"}}
    assert (await world.ingest_change(mirrored)).codes() == [("severity", "conflicting_value")]


async def test_t_ing_07_a_batch_of_four_kinds_succeeds_in_part(stored: World) -> None:
    await stored.ingest_runtime({**EVENT, "event_id": "known"})
    answer = await stored.ingest_runtime(
        {
            "events": [
                {**EVENT, "event_id": "new"},
                {**EVENT, "event_id": "known"},
                {**EVENT, "event_id": "known", "cost": 3},
                {"event_id": "no route"},
            ]
        }
    )
    assert answer.status == 202
    assert [answer.doc[name] for name in ("accepted", "duplicates", "rejected")] == [1, 1, 2]
    results = answer.doc["results"]
    assert [result["index"] for result in results] == [0, 1, 2, 3]
    assert [result["status"] for result in results] == [
        "accepted", "duplicate", "rejected", "rejected",
    ]  # fmt: skip
    pointers = {error["pointer"] for error in results[3]["errors"]}
    assert pointers == {
        "#/events/3/event_id", "#/events/3/route_id", "#/events/3/timestamp",
    }  # fmt: skip
    assert await count(stored) == 2


async def test_two_ids_in_one_batch_follow_the_same_rules_in_order(stored: World) -> None:
    answer = await stored.ingest_runtime([EVENT, EVENT, {**EVENT, "cost": 1}])
    assert [result["status"] for result in answer.doc["results"]] == [
        "accepted", "duplicate", "rejected",
    ]  # fmt: skip


async def test_t_ing_07_nothing_accepted_and_nothing_duplicate(world: World) -> None:
    answer = await world.ingest_runtime([{}, 7, {"event_id": "x"}])
    assert (answer.status, answer.slug) == (422, "validation-error")
    assert ("1", "wrong_type") in answer.codes()
    await world.ingest_runtime(EVENT)
    conflicts = await world.ingest_runtime([{**EVENT, "cost": 1}])
    assert conflicts.codes() == [("0.event_id", "event_id_conflict")]


async def test_t_ing_07_ndjson(world: World) -> None:
    lines = "\n".join(json.dumps({**EVENT, "event_id": f"e{i}"}) for i in range(3)) + "\n\n"
    answer = await world.call(
        "POST",
        "/v1/ingest/runtime",
        headers={**INGEST, "Content-Type": "application/x-ndjson"},
        data=lines,
    )
    assert (answer.status, answer.doc["accepted"]) == (202, 3)
    broken = await world.call(
        "POST",
        "/v1/ingest/runtime",
        headers={**INGEST, "Content-Type": "application/x-ndjson"},
        data=lines + "{",
    )
    assert (broken.status, broken.slug) == (400, "malformed-json")


# fmt: off
COUNTS = [
    ([], "too_short", ""),
    ({"events": []}, "too_short", "events"),
    ([EVENT] * 1001, "too_long", ""),
    ({"events": [{}] * 1001}, "too_long", "events"),
    ({"events": [EVENT], "extra": 1}, "extra_forbidden", "extra"),
]
# fmt: on


@pytest.mark.parametrize(("body", "code", "field"), COUNTS)
async def test_t_ing_07_how_many(world: World, body: object, code: str, field: str) -> None:
    answer = await world.ingest_runtime(body)
    assert (answer.status, answer.codes()) == (422, [(field, code)])


async def test_a_thousand_events_in_one_request(stored: World) -> None:
    answer = await stored.ingest_runtime([{**EVENT, "event_id": f"e{i}"} for i in range(1000)])
    assert (answer.status, answer.doc["accepted"]) == (202, 1000)
    assert answer.doc["results"][-1]["seq"] == 1000


async def test_t_ing_07_sizes(world: World) -> None:
    over = b'{"summary":"' + b"x" * 1024 * 1024 + b'"}'
    for data in (io.BytesIO(over), chunked(over)):
        answer = await world.call(
            "POST",
            "/v1/ingest/change",
            headers={**INGEST, "Content-Type": "application/json"},
            data=data,
        )
        assert (answer.status, answer.slug, answer.doc["limit"]) == (
            413, "content-too-large", 1024 * 1024,
        )  # fmt: skip
    large = {**EVENT, "note": "x" * 70_000}
    alone = await world.ingest_runtime(large)
    assert (alone.status, alone.doc["limit"]) == (413, 65_536)
    batch = await world.ingest_runtime([large, {**EVENT, "event_id": "e2"}])
    assert [result["status"] for result in batch.doc["results"]] == ["rejected", "accepted"]
    assert batch.doc["results"][0]["errors"][0]["code"] == "too_large"


async def chunked(data: bytes) -> Any:
    for start in range(0, len(data), 65_536):
        yield data[start : start + 65_536]


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # the same bytes in every process that names a test by them


ONE = json.dumps(EVENT).encode()
# fmt: off
GZIPPED = [
    ("good",      gz(ONE),                              202, ""),
    ("two parts", gz(b"[" + ONE) + gz(b"]"), 202, ""),
    ("bomb",      gz(b"0" * 30_000_000),                413, "content-too-large"),
    ("ratio",     gz(b'"' + b" " * 60_000 + b'"'),      413, "content-too-large"),
    ("not gzip",  ONE,                                             400, "malformed-json"),
    ("cut",       gz(ONE)[:-6],                         400, "malformed-json"),
    ("nested",    gz(gz(ONE)),               400, "malformed-json"),
    ("garbage",   gz(ONE) + b"x",                       400, "malformed-json"),
    ("empty",     b"",                                             400, "malformed-json"),
]
# fmt: on


@pytest.mark.parametrize(("name", "data", "status", "slug"), GZIPPED)
async def test_t_http_05_gzip(world: World, name: str, data: bytes, status: int, slug: str) -> None:
    answer = await world.call(
        "POST",
        "/v1/ingest/runtime",
        headers={**INGEST, "Content-Type": "application/json", "Content-Encoding": "gzip"},
        data=data,
    )
    assert answer.status == status
    assert not slug or answer.slug == slug


async def test_t_ing_08_who_the_user_is_stays_with_the_client(world: World) -> None:
    user = "alice@example.com"
    await world.ingest_runtime({**EVENT, "user_id": user})
    await world.ingest_runtime({**EVENT, "event_id": "e2", "payload": {"user_id": user}})
    page = await world.get("/v1/workspaces/default/events")
    assert user.encode() not in page.body
    hashes = {event["payload"]["user_id_hash"] for event in page.doc["data"]}
    assert len(hashes) == 1
    assert len(hashes.pop()) == 16


# fmt: off
BAD_RUNTIME: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"event_id": None},                     [("event_id", "wrong_type")]),
    ({"event_id": "-x"},                     [("event_id", "pattern")]),
    ({"event_id": "x" * 129},                [("event_id", "pattern")]),
    ({"event_id": "a b"},                    [("event_id", "pattern")]),
    ({"route_id": ""},                       [("route_id", "pattern")]),
    ({"route_id": "a\u0000b"},               [("route_id", "control_character")]),
    ({"timestamp": "yesterday"},             [("timestamp", "invalid_value")]),
    ({"timestamp": "2024-03-15T14:30:00"},   [("timestamp", "invalid_value")]),
    ({"timestamp": "2024-02-30T14:30:00Z"},  [("timestamp", "invalid_value")]),
    ({"timestamp": 1710513000},              [("timestamp", "wrong_type")]),
    ({"type": "watcher.x.change"},           [("type", "pattern")]),
    ({"type": "runtime"},                    [("type", "pattern")]),
    ({"payload": []},                        [("payload", "wrong_type")]),
    ({"payload": {"latency_ms": -1}},        [("payload.latency_ms", "greater_than_equal")]),
    ({"latency_ms": "12"},                   [("latency_ms", "wrong_type")]),
    ({"latency_ms": True},                   [("latency_ms", "wrong_type")]),
    ({"tokens": {"input": 1.5}},             [("tokens.input", "wrong_type")]),
    ({"tokens": {"input": -1}},              [("tokens.input", "greater_than_equal")]),
    ({"tokens": 5},                          [("tokens", "wrong_type")]),
    ({"cost": "free"},                       [("cost", "wrong_type")]),
    ({"status_code": 99},                    [("status_code", "greater_than_equal")]),
    ({"outcome": "Good!"},                   [("outcome", "pattern")]),
    ({"schema_version": "2.0"},              [("schema_version", "unknown_value")]),
    ({"model": "\u001b[31m"},                [("model", "control_character")]),
    ({"ext": 3},                             [("ext", "wrong_type")]),
    ({"event_id": "!", "cost": -1, "type": "x"},
     [("event_id", "pattern"), ("cost", "greater_than_equal"), ("type", "pattern")]),
]
BAD_CHANGE: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"provider": "Anthropic"},              [("provider", "pattern")]),
    ({"change_id": ""},                      [("change_id", "too_short")]),
    ({"change_id": None},                    [("change_id", "wrong_type")]),
    ({"classification": None},               [("classification", "missing")]),
    ({"classification": "Big Change"},       [("classification", "pattern")]),
    ({"severity": "urgent"},                 [("severity", "unknown_value")]),
    ({"source_url": "javascript:alert(1)"},  [("source_url", "invalid_value")]),
    ({"source_url": "https://x/" + "y" * 2048}, [("source_url", "too_long")]),
    ({"affected_assets": "one"},             [("affected_assets", "wrong_type")]),
    ({"affected_assets": ["a"] * 201},       [("affected_assets", "too_long")]),
    ({"affected_assets": [1]},               [("affected_assets.0", "wrong_type")]),
    ({"summary": "x" * 4097},                [("summary", "too_long")]),
    ({"effective_date": "2024-13-01"},       [("effective_date", "invalid_value")]),
    ({"type": "watcher"},                    [("type", "pattern")]),
    ({"payload": "text"},                    [("payload", "wrong_type")]),
]
# fmt: on


def _resolves(pointer: str, body: Any) -> bool:
    *parents, last = pointer.removeprefix("#").split("/")[1:] or [""]
    for part in parents:
        body = body[int(part) if isinstance(body, list) else part]
    if not last:
        return True
    return isinstance(body, dict) or int(last) < len(body)


@pytest.mark.parametrize(("change", "errors"), BAD_RUNTIME)
async def test_what_a_runtime_event_must_not_be(
    world: World, change: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    body = {**EVENT, **change}
    answer = await world.ingest_runtime(body)
    assert (answer.status, sorted(answer.codes())) == (422, sorted(errors))
    assert all(_resolves(error["pointer"], body) for error in answer.doc["errors"])


@pytest.mark.parametrize(("change", "errors"), BAD_CHANGE)
async def test_what_a_change_event_must_not_be(
    world: World, change: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    body = {**CHANGE, **change}
    answer = await world.ingest_change(body)
    assert (answer.status, sorted(answer.codes())) == (422, sorted(errors))
    assert all(_resolves(error["pointer"], body) for error in answer.doc["errors"])


@pytest.mark.parametrize("name", ["event_id", "route_id", "timestamp"])
async def test_what_a_runtime_event_needs(world: World, name: str) -> None:
    answer = await world.ingest_runtime({k: v for k, v in EVENT.items() if k != name})
    assert answer.codes() == [(name, "missing")]
    assert answer.doc["errors"][0]["pointer"] == f"#/{name}"


async def test_what_a_change_event_needs(world: World) -> None:
    assert (await world.ingest_change({"provider": "x"})).codes() == [("change_id", "missing")]
    nested = await world.ingest_change({"payload": {"summary": "s"}, "provider": "x"})
    assert nested.doc["errors"][0]["pointer"] == "#/payload/change_id"
    typed = {"provider": "x", "change_id": "c", "type": "watcher.pricing.change"}
    assert (await world.ingest_change(typed)).status == 202


async def test_unknown_routes_types_and_members_are_taken(world: World) -> None:
    answer = await world.ingest_runtime(
        {**EVENT, "route_id": "nowhere", "type": "runtime.custom.thing", "payload": {"x": [1]}}
    )
    assert answer.status == 202
    assert answer.doc["warnings"] == [
        {"pointer": "#/route_id", "code": "unknown_reference", "detail": "no route 'nowhere'"}
    ]
    assert (await stored_event(world, "evt-1"))["payload"] == {"x": [1]}


async def test_an_event_that_was_read_can_be_sent_again(world: World) -> None:
    await world.ingest_runtime({**EVENT, "type": "runtime.request.completed"})
    read = await stored_event(world, "evt-1")
    assert (await world.ingest_runtime(read)).doc["duplicate"] is True


# fmt: off
WHO_AND_WHERE = [
    # key             header     body       status  reason or code
    ("admin0000000",  None,      None,       202, ""),
    ("admin0000000",  "default", "default",  202, ""),
    ("admin0000000",  "other",   None,       403, "workspace_mismatch"),
    ("admin0000000",  None,      "nowhere",  403, "workspace_mismatch"),
    ("both00000000",  None,      None,       422, "workspace_required"),
    ("both00000000",  "other",   None,       202, ""),
    ("both00000000",  None,      "other",    202, ""),
    ("both00000000",  "other",   "default",  403, "workspace_mismatch"),
    ("root00000000",  None,      None,       422, "workspace_required"),
    ("root00000000",  "nowhere", None,       404, ""),
    ("viewer000000",  None,      None,       403, "scope_missing"),
    ("app000000000",  None,      None,       403, "scope_missing"),
]
# fmt: on


@pytest.mark.parametrize(("who", "header", "named", "status", "why"), WHO_AND_WHERE)
async def test_which_workspace(
    world: World, who: str, header: str | None, named: str | None, status: int, why: str
) -> None:
    headers = bearer(who) | ({"x-parapet-workspace": header} if header else {})
    body = EVENT | ({"workspace_id": named} if named else {})
    answer = await world.post("/v1/ingest/runtime", body, headers)
    assert answer.status == status
    if status == 403:
        assert answer.doc["reason"] == why
    elif why:
        assert answer.codes()[0][1] == why


async def test_the_workspaces_of_a_batch_must_agree(world: World) -> None:
    both = [{**EVENT, "workspace_id": "default"}, {**EVENT, "workspace_id": "other"}]
    answer = await world.post("/v1/ingest/runtime", both, bearer("both00000000"))
    assert (answer.status, answer.doc["reason"]) == (403, "workspace_mismatch")


async def test_t_sec_04_one_event_id_in_two_workspaces_is_two_events(stored: World) -> None:
    here = await stored.ingest_runtime(EVENT)
    there = await stored.post("/v1/ingest/runtime", {**EVENT, "cost": 1}, bearer("foreign00000"))
    assert (here.doc["status"], there.doc["status"]) == ("accepted", "accepted")
    assert (await stored.get("/v1/workspaces/other/events", ADMIN)).doc["total"] == 1


async def test_a_store_that_cannot_write_says_so(world: World) -> None:
    world.store.can_write = False  # type: ignore[attr-defined]
    answer = await world.ingest_runtime(EVENT)
    assert (answer.status, answer.slug) == (503, "storage-unavailable")
    assert answer.headers["Retry-After"] == "1"


async def test_a_repeat_is_recognised_for_thirty_days(stored: World) -> None:
    await stored.ingest_runtime(EVENT)
    stored.clock.advance(30 * 86_400 - 1)
    assert (await stored.ingest_runtime(EVENT)).doc["duplicate"] is True
    stored.clock.advance(2)
    assert (await stored.ingest_runtime({**EVENT, "cost": 1})).doc["status"] == "accepted"
