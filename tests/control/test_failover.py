"""Failover policies over the API (T-FO-01 to 05, control-api.md §12.6)."""

from typing import Any

import pytest

from proxy.model.events import NewEvent
from tests.control.found import START_MS
from tests.control.world import World, running

W = "/v1/workspaces/default"
POLICIES = f"{W}/failover-policies"
SEED: dict[str, Any] = {
    "route_id": "prod-chat",
    "primary_endpoint": "anthropic-claude",
    "fallback_endpoints": ["bedrock-claude"],
    "conditions": {"latency_threshold_ms": 2000, "error_rate_threshold": 0.1},
}
BEDROCK = {"id": "bedrock-claude", "provider": "bedrock", "region": "us-east-1", "api_key": "k"}


async def made(world: World, body: dict[str, Any]) -> dict[str, Any]:
    answer = await world.post(POLICIES, body)
    assert answer.status == 201, answer.body
    doc: dict[str, Any] = answer.doc
    return doc


async def test_t_fo_01_and_02_the_seeds_policy_has_the_seeds_answer(stored: World) -> None:
    assert (await stored.post(f"{W}/endpoints", BEDROCK)).status == 201
    doc = await made(stored, SEED)
    assert doc["id"].startswith("failover-")
    assert (doc["status"], doc["route_id"]) == ("active", "prod-chat")
    assert doc["fallback_endpoints"] == [{"id": "bedrock-claude", "status": "healthy"}]
    assert (doc["primary_status"], doc["state"]) == ("healthy", "normal")
    assert doc["active_endpoint"] == "anthropic-claude"
    assert "warnings" not in doc
    (policy,) = stored.config().workspaces["default"].failover_policies
    assert policy.id == doc["id"]


async def test_t_fo_03_listed_and_removed(stored: World) -> None:
    doc = await made(stored, {**SEED, "name": "Latency Failover"})
    assert doc["id"] == "latency-failover"
    listed = await stored.get(f"{POLICIES}?route_id=prod-chat&state=normal&sort=route_id")
    assert [each["id"] for each in listed.doc["data"]] == ["latency-failover"]
    assert listed.doc["data"][0]["fallback_endpoints"] == [
        {"id": "bedrock-claude", "status": "unknown"}
    ]
    path = f"{POLICIES}/latency-failover"
    assert [(await stored.call("DELETE", path)).status for _ in range(2)] == [204, 404]
    assert stored.config().workspaces["default"].failover_policies == []


async def test_t_fo_04_ids_and_objects_are_the_same_input(stored: World) -> None:
    doc = await made(stored, {**SEED, "fallback_endpoints": [{"id": "bedrock-claude"}]})
    again = await stored.call("PUT", f"{POLICIES}/{doc['id']}", doc)
    assert (again.status, again.doc["revision"]) == (200, 1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"conditions": {}}, "conditions"),
        ({"fallback_endpoints": ["anthropic-claude"]}, ""),
        ({"fallback_endpoints": ["a", "a"]}, ""),
        ({"fallback_endpoints": []}, "fallback_endpoints"),
        ({"nonsense": 1}, "nonsense"),
        ({"conditions": {"error_rate_threshold": 1.5}}, "conditions.error_rate_threshold"),
        ({"tiers": [["anthropic-claude"]]}, "tiers"),
        ({"recovery": {"ramp_percent": [100, 50]}}, "recovery.ramp_percent"),
    ],
)
async def test_t_fo_05_what_a_policy_may_not_say(
    world: World, change: dict[str, Any], field: str
) -> None:
    answer = await world.post(POLICIES, {**SEED, **change})
    assert answer.status == 422
    assert field in [error["field"] for error in answer.doc["errors"]]


async def test_one_active_policy_on_a_route(stored: World) -> None:
    await made(stored, {**SEED, "id": "one"})
    answer = await stored.post(POLICIES, {**SEED, "id": "two"})
    assert (answer.status, answer.slug) == (409, "conflict")
    await made(stored, {**SEED, "id": "two", "status": "paused"})
    answer = await stored.call("PATCH", f"{POLICIES}/two", {"status": "active"})
    assert (answer.status, answer.slug) == (409, "conflict")
    await stored.call("PATCH", f"{POLICIES}/one", {"status": "paused"})
    answer = await stored.call("PATCH", f"{POLICIES}/two", {"status": "active"})
    assert answer.status == 200
    paused = (await stored.get(f"{POLICIES}/one")).doc
    assert paused["primary_status"] == "disabled"


async def test_the_files_policy_of_a_route_stays() -> None:
    file = {("default", "failover_policy"): [("parapet.yaml#/x", {**SEED, "id": "file"})]}
    async with running(declared=file) as world:
        answer = await world.post(POLICIES, SEED)
        assert (answer.status, answer.doc["location"]) == (409, "parapet.yaml#/x")
        assert (await world.post(POLICIES, {**SEED, "status": "paused"})).status == 201
        doc = (await world.get(f"{POLICIES}/file")).doc
        assert doc["fallback_endpoints"] == [{"id": "bedrock-claude", "status": "unknown"}]


async def test_what_is_probably_not_meant_is_told(world: World) -> None:
    doc = await made(world, {**SEED, "id": "lost"})
    assert [each["code"] for each in doc["warnings"]] == ["unknown_reference"]
    await world.call("DELETE", f"{POLICIES}/lost")
    await world.post(f"{W}/endpoints", BEDROCK)
    swapped = {"primary_endpoint": "bedrock-claude", "fallback_endpoints": ["anthropic-claude"]}
    doc = await made(world, {**SEED, **swapped})
    codes = [(each["pointer"], each["code"]) for each in doc["warnings"]]
    assert ("#/primary_endpoint", "primary_differs_from_route") in codes


NO_SAMPLES = {"samples": 0, "error_rate": None, "slow_ratio": None, "p50_ms": None}
DECISION: dict[str, Any] = {
    "failover_policy_id": "latency-failover",
    "trigger_condition": "status 503",
    "original_endpoint": "anthropic-claude",
    "selected_fallback": "bedrock-claude",
    "timestamp": "2024-03-15T14:30:00Z",
}


async def decided(world: World, number: int, source: str, **more: Any) -> dict[str, Any]:
    """A decision as it comes out of a gateway's spool, or in through the API."""
    payload = {**DECISION, "trigger_condition": f"status 50{number}", **more}
    event = {
        "event_id": f"evt-decision-{number}",
        "type": "runtime.failover.decision",
        "timestamp": DECISION["timestamp"],
        "route_id": "prod-chat",
        "payload": payload,
    }
    await world.intake.accept("default", [NewEvent(event, START_MS)], source=source)
    return payload


async def test_what_is_observed_of_a_policy_is_kept_apart_from_it(stored: World) -> None:
    doc = await made(stored, {**SEED, "name": "Latency Failover"})
    assert (doc["since"], doc["last_decision"]) == (None, None)
    assert doc["stats"] == {"anthropic-claude": NO_SAMPLES, "bedrock-claude": NO_SAMPLES}
    first = await decided(stored, 1, "proxy/node-1/0")
    last = await decided(stored, 2, "proxy/node-1/1")
    other = await decided(stored, 3, "proxy/node-1/0", failover_policy_id="cost-failover")
    sent = await decided(stored, 4, "api/key0")
    path = f"{POLICIES}/latency-failover"
    shown = await stored.get(path)
    assert (shown.doc["last_decision"], shown.doc["revision"]) == (last, 1)
    assert shown.doc["updated_at"] == doc["updated_at"]
    (listed,) = (await stored.get(POLICIES)).doc["data"]
    alone = {name: value for name, value in shown.doc.items() if name != "warnings"}
    assert listed == {**alone, "explain": None}
    listed = (await stored.get(f"{path}/decisions")).doc
    assert (listed["data"], listed["total"]) == ([sent, last, first], 3)
    assert other not in listed["data"]
    again = await stored.call("PUT", path, shown.doc)
    assert (again.doc["revision"], again.doc["last_decision"]) == (1, last)
    assert (await stored.call("DELETE", path)).status == 204
    assert (await made(stored, {**SEED, "name": "Latency Failover"}))["last_decision"] is None
    assert (await stored.get(path)).doc["last_decision"] is None
