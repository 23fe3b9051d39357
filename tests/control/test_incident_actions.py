"""Working on incidents by hand (T-INC-04, T-INC-05, T-IDM): one commit each, seen by everybody."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from proxy.incidents.changes import Found
from proxy.incidents.incident import BlastRadius
from proxy.model.batch import Batch, CommitResult
from proxy.settings.schema import Control
from proxy.storage.incidents import TIMELINE
from tests.control.found import INCIDENTS, incident, signal, stored_document
from tests.control.world import ADMIN, World, bearer, running
from tests.kit.fakes import FakeClock
from tests.kit.store import MemoryStore

AUDIT = "/v1/workspaces/default/audit"


async def kinds(world: World, path: str) -> list[str]:
    return [entry["kind"] for entry in (await world.get(path)).doc["timeline"]]


async def audited(world: World) -> list[str]:
    rows = (await world.get(AUDIT + "?sort=created_at:asc")).doc["data"]
    assert (await world.get(AUDIT + "/verify")).doc["ok"] is True
    return [row["action"] for row in rows]


async def test_t_inc_04_from_found_to_resolved_and_back(stored: World) -> None:
    path = await incident(stored, "inc-1")
    operator = bearer("operator0000")
    for action, body, status in (
        ("acknowledge", None, "acknowledged"),
        ("acknowledge", None, "acknowledged"),
        ("resolve", {"resolution": "rolled back"}, "resolved"),
        ("resolve", {"resolution": "again"}, "resolved"),
        ("resolve", None, "resolved"),
        ("reopen", None, "active"),
        ("reopen", None, "active"),
    ):
        bare = {} if body else {"skip_auto_headers": ("Content-Type",)}
        answer = await stored.call("POST", f"{path}/{action}", body, operator, **bare)
        assert (answer.status, answer.doc["status"]) == (200, status)
        assert answer.doc == (await stored.get(path)).doc
        if status == "resolved":
            assert answer.doc["resolution"] == "rolled back"
    assert await kinds(stored, path) == ["opened", "acknowledged", "resolved", "reopened"]
    assert await audited(stored) == ["incident.acknowledge", "incident.resolve", "incident.reopen"]
    row = (await stored.get(AUDIT + "?limit=1")).doc["data"][0]
    assert row["resource"] == {"type": "incident", "id": "inc-1"}
    assert {"path": "/status", "old": "resolved", "new": "active"} in row["changes"]


# fmt: off
REFUSED = [
    # status         action         body
    ("resolved",     "acknowledge", None),
    ("acknowledged", "reopen",      None),
]
# fmt: on


@pytest.mark.parametrize(("status", "action", "body"), REFUSED)
async def test_t_inc_04_a_bad_move(stored: World, status: str, action: str, body: Any) -> None:
    path = await incident(stored, "inc-1", status=status)
    answer = await stored.call("POST", f"{path}/{action}", body)
    assert (answer.status, answer.slug) == (409, "invalid-state-transition")
    patched = {"acknowledge": "acknowledged", "reopen": "active"}[action]
    answer = await stored.call("PATCH", path, {"status": patched, "title": "not this either"})
    assert (answer.status, answer.slug) == (409, "invalid-state-transition")
    assert (await stored.get(path)).doc["title"] == "found"
    assert await audited(stored) == []


async def test_patch_changes_what_is_sent(stored: World) -> None:
    path = await incident(stored, "inc-1")
    answer = await stored.call(
        "PATCH", path, {"severity": "low", "assignee": "bob", "title": "cafe\u0301"}
    )
    assert (answer.status, answer.headers["ETag"]) == (200, '"r2"')
    doc = answer.doc
    assert (doc["severity"], doc["assignee"], doc["title"]) == ("low", "bob", "caf\u00e9")
    assert doc["severity_by_hand"] is True
    assert [e["kind"] for e in doc["timeline"]] == ["opened", "severity_changed", "assigned"]
    assert doc["timeline"][1]["actor"] == "admin"
    same = await stored.call("PATCH", path, doc)
    assert (same.status, same.headers["ETag"], same.doc) == (200, '"r2"', doc)
    await signal(stored, "inc-1", Found(["e1"], severity="critical"))
    assert (await stored.get(path)).doc["severity"] == "low"
    nobody = await stored.call("PATCH", path, {"assignee": None})
    assert nobody.doc["assignee"] is None
    assert await audited(stored) == ["incident.update"] * 2


# fmt: off
BAD = [
    ({"status": "open"},            "status",   "unknown_value"),
    ({"status": None},              "status",   "unknown_value"),
    ({"severity": None},            "severity", "unknown_value"),
    ({"title": ""},                 "title",    "too_short"),
    ({"title": "x" * 301},          "title",    "too_long"),
    ({"assignee": 7},               "assignee", "wrong_type"),
    ({"prio": 1},                   "prio",     "extra_forbidden"),
]
# fmt: on


@pytest.mark.parametrize(("body", "field", "code"), BAD)
async def test_what_patch_does_not_take(
    world: World, body: dict[str, Any], field: str, code: str
) -> None:
    path = await incident(world, "inc-1")
    answer = await world.call("PATCH", path, body)
    assert (answer.status, answer.codes()) == (422, [(field, code)])
    assert (await world.call("PATCH", f"{INCIDENTS}/inc-9", {"title": "t"})).status == 404


async def test_if_match_is_honoured(stored: World) -> None:
    path = await incident(stored, "inc-1")
    stale = {**ADMIN, "If-Match": '"r7"'}
    answer = await stored.call("PATCH", path, {"title": "t"}, stale)
    assert (answer.status, answer.doc["current_etag"]) == (412, '"r1"')
    fresh = {**ADMIN, "If-Match": '"r1"'}
    assert (await stored.call("PATCH", path, {"title": "t"}, fresh)).status == 200
    assert (await stored.call("PATCH", path, {"title": "u"}, fresh)).status == 412


async def test_if_match_can_be_required() -> None:
    async with running(control=Control(require_if_match=True)) as world:
        path = await incident(world, "inc-1")
        assert (await world.call("PATCH", path, {"title": "t"})).status == 428
        assert (await world.call("POST", path + "/acknowledge")).status == 200


async def test_an_action_happens_once_per_key(stored: World) -> None:
    path = await incident(stored, "inc-1")
    key = {**ADMIN, "Idempotency-Key": "k"}
    first, second = [await stored.call("POST", path + "/acknowledge", None, key) for _ in "12"]
    assert first.body == second.body
    assert second.headers["Idempotent-Replayed"] == "true"
    await stored.post(path + "/resolve", {})
    third = await stored.call("POST", path + "/acknowledge", None, key)
    assert (third.status, third.doc["status"]) == (200, "acknowledged")
    refused = [
        await stored.call("POST", path + "/acknowledge", None, {**ADMIN, "Idempotency-Key": "l"})
        for _ in "12"
    ]
    assert [each.status for each in refused] == [409, 409]
    assert refused[1].headers["Idempotent-Replayed"] == "true"
    notes = [await stored.post(path + "/notes", {"text": "t"}, key) for _ in "12"]
    assert notes[0].body == notes[1].body
    assert (await stored.get(path + "/notes")).doc["total"] == 1


async def test_many_at_once_lose_nothing(stored: World) -> None:
    path = await incident(stored, "inc-1")
    answers = await asyncio.gather(
        *(stored.post(path + "/notes", {"text": f"note {n}"}) for n in range(3))
    )
    assert {answer.status for answer in answers} == {201}
    assert (await stored.get(path)).doc["notes_count"] == 3
    assert (await stored.get(path + "/notes")).doc["total"] == 3


async def test_t_inc_05_notes(stored: World) -> None:
    path = await incident(stored, "inc-1", status="resolved")
    html = "<script>alert(1)</script>\n\tline &amp; two"
    answer = await stored.post(path + "/notes", {"text": html}, bearer("operator0000"))
    assert answer.status == 201
    assert answer.doc == {
        "note_id": answer.doc["note_id"], "incident_id": "inc-1", "text": html,
        "author": "operator0000", "created_at": "2024-03-15T14:30:00Z",
    }  # fmt: skip
    assert answer.doc["note_id"].startswith("note-")
    assert answer.headers["Content-Type"] == "application/json"
    await stored.post(path + "/notes", {"text": "x" * 10_000, "author": "Ann"})
    listed = (await stored.get(path + "/notes")).doc
    assert [note["author"] for note in listed["data"]] == ["Ann", "operator0000"]
    assert listed["data"][1] == answer.doc
    doc = (await stored.get(path)).doc
    assert (doc["notes_count"], doc["status"]) == (2, "resolved")
    told = [(e["kind"], e["actor"]) for e in doc["timeline"][1:]]
    assert told == [("note_added", "operator0000"), ("note_added", "Ann")]
    assert await audited(stored) == ["incident.note"] * 2
    assert (await stored.get(path)).headers["ETag"] == '"r1"'


async def test_notes_are_walked_by_cursor_and_are_of_one_incident(stored: World) -> None:
    path, other = await incident(stored, "inc-1"), await incident(stored, "inc-2")
    for n in range(5):
        await stored.post(path + "/notes", {"text": f"n{n}"})
        await stored.post(other + "/notes", {"text": "other"})
    first = (await stored.get(path + "/notes?limit=3")).doc
    cursor = first["next_cursor"]
    rest = (await stored.get(f"{path}/notes?limit=3&cursor={cursor}")).doc
    texts = [note["text"] for note in first["data"] + rest["data"]]
    assert texts == ["n4", "n3", "n2", "n1", "n0"]
    assert (await stored.get(f"{other}/notes?limit=3&cursor={cursor}")).status == 422


# fmt: off
BAD_NOTES = [
    ({},                                    "text",   "missing"),
    ({"text": ""},                          "text",   "too_short"),
    ({"text": "x" * 10_001},                "text",   "too_long"),
    ({"text": 1},                           "text",   "wrong_type"),
    ({"text": "bell\u0007"},                "text",   "control_character"),
    ({"text": "t", "author": ""},           "author", "too_short"),
    ({"text": "t", "html": True},           "html",   "extra_forbidden"),
]
# fmt: on


@pytest.mark.parametrize(("body", "field", "code"), BAD_NOTES)
async def test_what_a_note_cannot_be(
    world: World, body: dict[str, Any], field: str, code: str
) -> None:
    path = await incident(world, "inc-1")
    answer = await world.post(path + "/notes", body)
    assert (answer.status, answer.codes()) == (422, [(field, code)])


async def test_merging(stored: World) -> None:
    radius = BlastRadius(incident_id="inc-2", affected_routes=["r2"], failed_requests=5)
    into = await incident(stored, "inc-1", route_ids=["r1"])
    path = await incident(stored, "inc-2", severity="critical", blast_radius=radius)
    await signal(stored, "inc-2", Found(["e1", "e2"], alerts=["alert-1"]))
    said = {"correlation_id": "corr-1", "incident_id": "inc-2", "related_events": ["e1", "e2"],
            "pattern": "p", "confidence": 0.9}  # fmt: skip
    await stored_document(stored, "correlation", "corr-1", said)
    alert = {"alert_id": "alert-1", "incident_id": "inc-2", "status": "active",
             "severity": "high", "type": "latency", "starts_at": "2024-03-15T14:30:00Z",
             "rule_id": None}  # fmt: skip
    await stored_document(stored, "alert", "alert-1", alert)
    await stored.post(path + "/notes", {"text": "seen"})
    key = {**ADMIN, "Idempotency-Key": "m"}
    answers = [await stored.post(path + "/merge", {"into": "inc-1"}, key) for _ in "12"]
    answers.append(await stored.post(path + "/merge", {"into": "inc-1"}))
    for answer in answers:
        assert (answer.status, answer.doc["incident_id"]) == (200, "inc-1")
    kept = (await stored.get(into)).doc
    assert (kept["related_events"], kept["severity"], kept["alerts"]) == (
        ["e1", "e2"], "critical", ["alert-1"]
    )  # fmt: skip
    assert kept["blast_radius"]["incident_id"] == "inc-1"
    assert [e["kind"] for e in kept["timeline"]] == ["opened", "merged", "severity_changed"]
    gone = (await stored.get(path)).doc
    assert (gone["status"], gone["merged_into"], gone["related_events"]) == (
        "resolved", "inc-1", []
    )  # fmt: skip
    assert gone["resolution"] == "merged into inc-1"
    assert (await stored.get(path + "/notes")).doc["total"] == 1
    assert (await stored.get(into + "/correlations")).doc["total"] == 1
    alerts = "/v1/workspaces/default/alerts?incident_id="
    assert (await stored.get(alerts + "inc-1")).doc["total"] == 1
    assert (await stored.get(alerts + "inc-2")).doc["total"] == 0
    assert await audited(stored) == ["incident.note", "incident.merge", "incident.merge"]
    assert (await stored.call("POST", path + "/reopen")).slug == "invalid-state-transition"


async def test_what_cannot_be_merged(stored: World) -> None:
    path = await incident(stored, "inc-1")
    await incident(stored, "inc-2", status="resolved")
    for body, status, slug in (
        ({"into": "inc-1"}, 422, "validation-error"),
        ({}, 422, "validation-error"),
        ({"into": "inc-9"}, 422, "unknown-reference"),
        ({"into": "inc-2"}, 409, "invalid-state-transition"),
    ):
        answer = await stored.post(path + "/merge", body)
        assert (answer.status, answer.slug) == (status, slug)
    assert (await stored.post(f"{INCIDENTS}/inc-9/merge", {"into": "inc-1"})).status == 404


ACTIONS = ["acknowledge", "resolve", "reopen", "notes", "merge"]


@pytest.mark.parametrize("action", ACTIONS)
async def test_who_may_act(world: World, action: str) -> None:
    path = await incident(world, "inc-1")
    for key in ("viewer000000", "ingest000000", "foreign00000"):
        assert (await world.call("POST", f"{path}/{action}", None, bearer(key))).status == 403
    assert (await world.call("PATCH", path, {}, bearer("viewer000000"))).status == 403
    body = {"notes": {"text": "t"}, "merge": {"into": "inc-1"}}.get(action, {})
    missing = await world.call("POST", f"{INCIDENTS}/inc-9/{action}", body)
    assert missing.status == 404


async def test_a_refused_commit_leaves_nothing(stored: World) -> None:
    """Incident and timeline are one commit: a stale writer changes neither."""
    path = await incident(stored, "inc-1")
    await asyncio.gather(*(stored.call("POST", path + "/acknowledge") for _ in range(4)))
    row = await stored.store.get("default", TIMELINE, "inc-1")
    assert row is not None
    assert row[1].count(b'"acknowledged"') == 1
    assert await audited(stored) == ["incident.acknowledge"]


class Racing(MemoryStore):
    """A store in which somebody is faster, once."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def commit(self, workspace_id: str, batch: Batch) -> CommitResult:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await super().commit(workspace_id, batch)


# fmt: off
RACES = [
    # method  path            body                    what the timeline tells in the end
    ("PATCH", "",             {"assignee": "ann"},    ["opened", "event_added", "assigned"]),
    ("POST",  "/acknowledge", None,                   ["opened", "event_added", "acknowledged"]),
    ("POST",  "/notes",       {"text": "t"},          ["opened", "event_added", "note_added"]),
    ("POST",  "/merge",       {"into": "inc-2"},      ["opened", "event_added", "merged"]),
]
# fmt: on


@pytest.mark.parametrize(("method", "part", "body", "wanted"), RACES)
async def test_an_action_and_a_signal_at_once_are_both_kept(
    method: str, part: str, body: Any, wanted: list[str]
) -> None:
    clock = FakeClock()
    store = Racing(clock)
    async with running(store, clock=clock) as world:
        path = await incident(world, "inc-1")
        other = await incident(world, "inc-2")
        store.meanwhile = partial(signal, world, "inc-1", Found(["e1"]))
        key = {**ADMIN, "Idempotency-Key": "k"}
        first = await world.call(method, path + part, body, key)
        assert first.status in (200, 201), first.body
        assert await kinds(world, path) == wanted
        held = (await world.get(other if part == "/merge" else path)).doc
        assert held["related_events"] == ["e1"]
        again = await world.call(method, path + part, body, key)
        assert again.body == first.body
        assert len(await audited(world)) == (2 if part == "/merge" else 1)
