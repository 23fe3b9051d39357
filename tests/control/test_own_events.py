"""Events of the control API itself: in the commit of the change, and nothing secret in them
(events.md §5.9)."""

from typing import Any

import pytest

from proxy.model.batch import LogFilter
from proxy.wire import jsonbody
from tests.control.found import incident
from tests.control.test_failover import SEED
from tests.control.test_keys import KEYS, VIEWER, made
from tests.control.world import ADMIN, World

W = "/v1/workspaces/default"
PACK = {"policy_pack_id": "safety", "rules": [{"rule_id": "word", "pattern": "hate"}]}
SLACK = {
    "name": "Slack",
    "type": "slack",
    "config": {"webhook_url": "https://hooks.slack.com/services/T0/B0/canary"},
}
DAY = {"period": "daily", "date": "2024-03-14"}

# Each type of the page.  True: something in this version does what it tells of, and tells it.
TYPES = {
    "control.config.changed": True,
    "control.policy.published": True,
    "control.alert.fired": False,  # no alert rule is evaluated
    "control.alert.resolved": False,
    "control.incident.opened": False,  # of endpoints alone: tests/app/test_raising.py
    "control.incident.updated": True,
    "control.incident.resolved": True,
    "control.incident.reopened": True,
    "control.correlation.created": False,  # nothing correlates
    "control.delivery.failed": False,  # nothing is sent
    "control.delivery.dead_lettered": False,
    "control.target.disabled": False,
    "control.digest.generated": True,
    "control.watcher.diff": False,  # nothing is watched
    "control.key.created": True,
    "control.key.revoked": True,
    "control.node.leader_changed": False,  # nobody leads
    "control.spool.dropped": False,  # a metric alone
}


async def told(world: World, workspace_id: str = "default") -> list[dict[str, Any]]:
    """Events of the control API, oldest first."""
    query = LogFilter(types=("control.*",), newest_first=False, limit=100)
    page = await world.store.range(workspace_id, "events", query)
    return [{**jsonbody.loads(each.body)} for each in page.entries]  # type: ignore[dict-item]


async def test_every_type_of_the_page_is_told_or_said_not_to_be(stored: World) -> None:
    doc = await made(stored, VIEWER)
    assert (await stored.call("DELETE", f"{KEYS}/{doc['key_id']}")).status == 204
    assert (await stored.post(f"{W}/policies", PACK)).status == 201
    assert (await stored.post(f"{W}/digests", DAY)).status == 201
    path = await incident(stored, "inc-1")
    for action, body in (("acknowledge", None), ("resolve", {}), ("reopen", None)):
        assert (await stored.post(f"{path}/{action}", body)).status == 200
    emitted = {each["type"] for each in await told(stored) + await told(stored, "_server")}
    assert emitted == {name for name, is_told in TYPES.items() if is_told}


async def test_an_event_is_whole_and_can_be_asked_for(stored: World) -> None:
    headers = {**ADMIN, "X-Request-Id": "req-own"}
    policy = {**SEED, "name": "L"}
    assert (await stored.post(f"{W}/failover-policies", policy, headers)).status == 201
    (event,) = (await stored.get(f"{W}/events?type=control.*")).doc["data"]
    assert event == {
        "event_id": event["event_id"],
        "type": "control.config.changed",
        "timestamp": "2024-03-15T14:30:00Z",
        "received_at": "2024-03-15T14:30:00Z",
        "route_id": "prod-chat",
        "request_id": "req-own",
        "workspace_id": "default",
        "schema_version": "1.0",
        "source": "control",
        "seq": 1,
        "payload": {
            "resource": {"type": "failover_policy", "id": "l"},
            "change": "create",
            "changed_members": [
                "conditions", "fallback_endpoints", "id", "name", "primary_endpoint", "route_id"
            ],
            "actor": "admin",
        },
    }  # fmt: skip
    assert event["event_id"].startswith("evt-")
    assert (await stored.get(f"{W}/events/{event['event_id']}")).doc == event


async def test_a_change_is_told_once_and_no_change_not_at_all(stored: World) -> None:
    again = {**ADMIN, "Idempotency-Key": "k"}
    for _ in range(2):
        assert (await stored.post(f"{W}/policies", PACK, again)).status == 201
    path = f"{W}/policies/safety"
    for body in (
        {"rules": PACK["rules"]},  # as it is
        {"labels": {"team": "a"}},  # beside the pack
        {"rules": []},
    ):
        assert (await stored.call("PATCH", path, body)).status == 200
    assert (await stored.post(f"{path}/activate", {"version": "1.0.0"})).status == 200
    assert (await stored.call("PATCH", path, {"version": "nonsense"})).status == 422
    assert (await stored.call("DELETE", path)).status == 204
    said = [
        (event["type"].partition(".")[2], payload.get("change") or payload["version"])
        for event in await told(stored)
        for payload in (event["payload"],)
    ]
    assert said == [
        ("config.changed", "create"),
        ("policy.published", "1.0.0"),
        ("config.changed", "update"),
        ("config.changed", "update"),
        ("policy.published", "1.0.1"),
        ("config.changed", "activate"),
        ("config.changed", "delete"),
    ]


async def test_what_is_refused_is_not_told(stored: World) -> None:
    assert (await stored.post(f"{W}/failover-policies", SEED)).status == 201
    before = await told(stored)
    assert (await stored.post(f"{W}/failover-policies", SEED)).status == 409
    assert await told(stored) == before


async def test_no_secret_is_in_an_event(stored: World) -> None:
    doc = await made(stored, VIEWER)
    assert (await stored.post(f"{W}/deliveries", SLACK)).status == 201
    events = await told(stored) + await told(stored, "_server")
    assert [each["type"] for each in events] == ["control.config.changed", "control.key.created"]
    written = jsonbody.dumps(events)  # type: ignore[arg-type]
    assert b"canary" not in written
    assert doc["key"].rpartition("_")[2].encode() not in written


@pytest.mark.parametrize(
    ("actions", "types"),
    [
        ([("acknowledge", None)], ["updated"]),
        ([("notes", {"text": "seen"})], ["updated"]),
        ([("resolve", {}), ("resolve", {})], ["resolved"]),
        ([("resolve", {}), ("reopen", None)], ["resolved", "reopened"]),
        ([("merge", {"into": "inc-2"})], ["resolved", "updated"]),
    ],
)
async def test_what_is_done_to_an_incident_is_told_by_its_id(
    stored: World, actions: list[tuple[str, Any]], types: list[str]
) -> None:
    path = await incident(stored, "inc-1", route_ids=["prod-chat"])
    await incident(stored, "inc-2")
    for action, body in actions:
        assert (await stored.post(f"{path}/{action}", body)).status in (200, 201)
    events = await told(stored)
    assert [each["type"].rpartition(".")[2] for each in events] == types
    ours = (await stored.get(f"{W}/events?incident_id=inc-1&severity=medium")).doc["data"]
    assert {each["payload"]["incident_id"] for each in ours} == {"inc-1"}
    assert {each["route_id"] for each in ours} == {"prod-chat"}


async def test_who_waits_for_events_hears_of_a_change(world: World) -> None:
    bell = world.intake.bell("default")
    assert (await world.post(f"{W}/failover-policies", SEED)).status == 201
    assert bell.is_set()
