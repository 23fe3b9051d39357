"""Incidents over the API: lists, the whole of one, and its parts (T-INC-01 to 03, T-PG-07)."""

from typing import Any

import pytest

from proxy.incidents.changes import Found
from proxy.incidents.incident import BlastRadius
from tests.control.found import INCIDENTS, START_MS, incident, signal, stored_document
from tests.control.world import World, bearer

MINUTE_MS = 60_000


async def four(world: World) -> None:
    radius = BlastRadius(incident_id="x", affected_routes=["prod-summary"], failed_requests=7)
    # fmt: off
    await incident(world, "inc-1", severity="high", type="policy_violation",
                   route_ids=["prod-chat"], providers=["anthropic"])
    await incident(world, "inc-2", severity="critical", at_ms=START_MS + MINUTE_MS,
                   status="acknowledged", assignee="bob", blast_radius=radius)
    await incident(world, "inc-3", severity="info", at_ms=START_MS + 2 * MINUTE_MS,
                   status="resolved", providers=["bedrock", "anthropic"])
    await incident(world, "inc-4", severity="high", at_ms=START_MS + 2 * MINUTE_MS + 500)
    # fmt: on


LISTS = [
    ("", ["inc-4", "inc-3", "inc-2", "inc-1"]),
    ("?sort=created_at", ["inc-1", "inc-2", "inc-3", "inc-4"]),
    ("?sort=severity:asc", ["inc-3", "inc-1", "inc-4", "inc-2"]),
    ("?sort=severity:desc,created_at:desc", ["inc-2", "inc-4", "inc-1", "inc-3"]),
    ("?sort=status", ["inc-2", "inc-1", "inc-4", "inc-3"]),
    ("?sort=failed_requests:desc", ["inc-2", "inc-1", "inc-3", "inc-4"]),
    ("?sort=updated_at:desc&limit=1", ["inc-4"]),
    ("?status=active&severity=high", ["inc-4", "inc-1"]),
    ("?status=acknowledged,resolved", ["inc-3", "inc-2"]),
    ("?type=policy_violation", ["inc-1"]),
    ("?route_id=prod-chat", ["inc-1"]),
    ("?route_id=prod-summary", ["inc-2"]),
    ("?provider=anthropic", ["inc-3", "inc-1"]),
    ("?assignee=bob&assignee=ann", ["inc-2"]),
    ("?since=2024-03-15T14:31:00Z&until=2024-03-15T14:32:00Z", ["inc-2"]),
    ("?status=active&severity=info", []),
]


async def test_t_inc_01_lists_are_narrowed_and_ordered(stored: World) -> None:
    await four(stored)
    for query, wanted in LISTS:
        answer = await stored.get(INCIDENTS + query)
        assert answer.status == 200, answer.body
        assert [each["incident_id"] for each in answer.doc["data"]] == wanted, query


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("?status=open", "status", "unknown_value"),
        ("?severity=worst", "severity", "unknown_value"),
        ("?sort=title", "sort", "unknown_value"),
        ("?since=yesterday", "since", "invalid_value"),
        ("?statsu=active", "statsu", "unknown_parameter"),
        ("?limit=101", "limit", "less_than_equal"),
    ],
)
async def test_what_a_list_does_not_take(world: World, query: str, field: str, code: str) -> None:
    answer = await world.get(INCIDENTS + query)
    assert (answer.status, answer.codes()) == (422, [(field, code)])


async def test_t_inc_03_a_list_has_no_timeline_and_at_most_20_events(stored: World) -> None:
    path = await incident(stored, "inc-1")
    await signal(stored, "inc-1", Found([f"e{n}" for n in range(30)]))
    (listed,) = (await stored.get(INCIDENTS)).doc["data"]
    assert "timeline" not in listed
    assert listed["related_events"] == [f"e{n}" for n in range(20)]
    assert listed["related_events_total"] == 30
    whole = (await stored.get(path)).doc
    assert len(whole["related_events"]) == 30
    assert [entry["kind"] for entry in whole["timeline"]] == ["opened", "event_added"]


async def test_t_inc_02_the_whole_of_one(stored: World) -> None:
    path = await incident(stored, "inc-1")
    answer = await stored.get(path)
    assert answer.status == 200
    assert answer.headers["ETag"] == '"r1"'
    wanted = {
        "incident_id", "status", "severity", "created_at", "updated_at", "related_events",
        "policy_violations", "failover_actions", "timeline", "correlations", "blast_radius",
        "alerts", "assignee", "notes_count", "suspected_causes", "revision", "origin",
    }  # fmt: skip
    assert wanted <= answer.doc.keys()
    assert (answer.doc["created_at"], answer.doc["origin"]) == ("2024-03-15T14:30:00Z", "system")
    assert "fingerprint" not in answer.doc["timeline"][0]


async def test_observation_does_not_change_the_entity_tag(stored: World) -> None:
    path = await incident(stored, "inc-1")
    await signal(stored, "inc-1", Found(["e1"]))
    assert (await stored.get(path)).headers["ETag"] == '"r1"'
    await signal(stored, "inc-1", Found(["e2"], severity="critical"))
    assert (await stored.get(path)).headers["ETag"] == '"r2"'


async def test_the_parts_of_one(stored: World) -> None:
    path = await incident(stored, "inc-1", route_ids=["prod-chat"])
    for n in range(3):
        await signal(stored, "inc-1", Found([f"e{n}"]), START_MS + n * 1000)
    timeline = (await stored.get(path + "/timeline?limit=2")).doc
    assert (timeline["total"], [e["kind"] for e in timeline["data"]]) == (
        4, ["opened", "event_added"]
    )  # fmt: skip
    newest = (await stored.get(path + "/timeline?sort=created_at:desc&limit=1")).doc["data"]
    assert newest[0]["message"] == "e2"
    radius = (await stored.get(path + "/blast-radius")).doc
    assert (radius["incident_id"], radius["affected_routes"], radius["computed_at"]) == (
        "inc-1", ["prod-chat"], None
    )  # fmt: skip
    for n, owner in enumerate(["inc-1", "inc-2", "inc-1"]):
        said = {"correlation_id": f"corr-{n}", "incident_id": owner, "related_events": ["a", "b"],
                "pattern": "p", "confidence": 0.5 + n / 10}  # fmt: skip
        await stored_document(stored, "correlation", f"corr-{n}", said)
    mine = (await stored.get(path + "/correlations?sort=confidence:desc")).doc
    assert [each["correlation_id"] for each in mine["data"]] == ["corr-2", "corr-0"]
    all_of_them = "/v1/workspaces/default/correlations"
    assert (await stored.get(all_of_them)).doc["total"] == 3
    assert (await stored.get(all_of_them + "?incident_id=inc-2")).doc["total"] == 1
    assert (await stored.get(all_of_them + "/corr-1")).doc["incident_id"] == "inc-2"
    assert (await stored.get(all_of_them + "/corr-9")).status == 404


PARTS = ["", "/timeline", "/notes", "/blast-radius", "/correlations"]


@pytest.mark.parametrize("part", PARTS)
async def test_who_may_read_and_what_is_not_there(world: World, part: str) -> None:
    path = await incident(world, "inc-1")
    assert (await world.get(path + part, bearer("viewer000000"))).status == 200
    assert (await world.get(path + part, bearer("ingest000000"))).status == 403
    assert (await world.get(path + part, bearer("foreign00000"))).status == 403
    assert (await world.get(f"{INCIDENTS}/inc-9{part}")).status == 404


async def test_incidents_of_another_workspace_are_not_seen(world: World) -> None:
    await incident(world, "inc-1")
    other: Any = await world.get("/v1/workspaces/other/incidents", bearer("both00000000"))
    assert (other.status, other.doc["data"]) == (200, [])
