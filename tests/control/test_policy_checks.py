"""Dry runs of a pack and the coverage of a workspace (control-api.md §12.3, guardrails.md §12)."""

from typing import Any

import pytest

from tests.control.world import World, bearer

W = "/v1/workspaces/default"
PACK = {
    "id": "mine",
    "rules": [
        {"rule_id": "word", "pattern": "forbidden", "action": "redact", "severity": "high"},
        {"rule_id": "end", "pattern": "launch codes", "action": "block"},
        {"rule_id": "seen", "pattern": "noticed", "action": "log"},
    ],
}


async def evaluated(world: World, body: dict[str, Any]) -> Any:
    answer = await world.post(f"{W}/policies/mine/evaluate", body)
    assert answer.status == 200, answer.body
    return answer.doc


@pytest.mark.parametrize(
    ("text", "verdict", "rules", "after"),
    [
        ("nothing here", "pass", [], "nothing here"),
        ("a forbidden word", "violation", ["word"], "a [WORD] word"),
        ("the launch codes", "violation", ["end"], None),
        ("as noticed", "violation", ["seen"], "as noticed"),
        ("forbidden launch codes", "violation", ["end", "word"], None),
        ("", "pass", [], ""),
    ],
)
async def test_a_text_is_judged_and_nothing_is_told(
    world: World, text: str, verdict: str, rules: list[str], after: str | None
) -> None:
    await world.post(f"{W}/policies", PACK)
    doc = await evaluated(world, {"text": text})
    assert (doc["verdict"], doc["text_after"]) == (verdict, after)
    assert sorted(each["rule_matched"] for each in doc["results"]) == rules
    for each in doc["results"]:
        assert each["policy_id"] == "mine"
        assert each["timestamp"] == "2024-03-15T14:30:00Z"
    assert doc["elapsed_us"] >= 0
    assert (await world.get(f"{W}/events?type=runtime.*")).doc["data"] == []


async def test_rules_can_be_tried_before_they_are_written(world: World) -> None:
    await world.post(f"{W}/policies", PACK)
    rules = [{"rule_id": "new", "pattern": "novel", "action": "block"}]
    doc = await evaluated(world, {"text": "a novel", "rules": rules, "direction": "response"})
    assert [each["rule_matched"] for each in doc["results"]] == ["new"]
    assert (await world.get(f"{W}/policies/mine")).doc["versions_count"] == 1
    bad = {"text": "x", "rules": [{"rule_id": "a", "kind": "regex", "pattern": "(x"}]}
    answer = await world.post(f"{W}/policies/mine/evaluate", bad)
    assert (answer.status, answer.codes()[0][0]) == (422, "rules.0.pattern")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": 1}, "text"),
        ({"text": "x" * 200_001}, "text"),
        ({"text": "x", "direction": "sideways"}, "direction"),
        ({"text": "x", "nonsense": 1}, "nonsense"),
    ],
)
async def test_what_cannot_be_judged(world: World, body: dict[str, Any], field: str) -> None:
    await world.post(f"{W}/policies", PACK)
    answer = await world.post(f"{W}/policies/mine/evaluate", body)
    assert (answer.status, answer.codes()[0][0]) == (422, field)


async def test_who_reads_policies_may_try_them(world: World) -> None:
    await world.post(f"{W}/policies", PACK)
    viewer = bearer("viewer000000")
    answer = await world.post(f"{W}/policies/mine/evaluate", {"text": "x"}, viewer)
    assert (answer.status, answer.headers["RateLimit-Policy"]) == (200, '"test";q=10;w=60')
    assert (await world.post(f"{W}/policies/nobody/evaluate", {"text": "x"})).status == 404


async def test_the_coverage_of_each_route(stored: World) -> None:
    await stored.post(f"{W}/policies", PACK)
    route = {"id": "guarded", "endpoint": "anthropic-claude", "policy_packs": ["mine"]}
    await stored.post(f"{W}/routes", route)
    await stored.post(f"{W}/routes", {**route, "id": "lost", "policy_packs": ["gone"]})
    doc = (await stored.get(f"{W}/policies/coverage")).doc
    told = {each["route_id"]: each for each in doc["routes"]}
    assert told["prod-chat"]["guarded"] is False
    assert told["lost"]["unusable"] == "policy pack gone is not there"
    assert told["guarded"]["packs"] == ["mine@1.0.0"]
    texts = [each for each in told["guarded"]["parts"] if each["part"] == "text"]
    assert [(each["direction"], each["enforced"]) for each in texts] == [
        ("request", ["mine"]), ("response", ["mine"])
    ]  # fmt: skip


async def test_the_decisions_of_a_failover_policy(stored: World) -> None:
    policy = {
        "id": "latency-failover",
        "route_id": "prod-chat",
        "primary_endpoint": "anthropic-claude",
        "fallback_endpoints": ["bedrock-claude"],
        "conditions": {"latency_threshold_ms": 2000},
    }
    await stored.post(f"{W}/failover-policies", policy)
    decision = {
        "failover_policy_id": "latency-failover",
        "trigger_condition": "latency > 2000ms",
        "original_endpoint": "anthropic-claude",
        "selected_fallback": "bedrock-claude",
        "timestamp": "2024-03-15T14:30:00Z",
    }
    told = (decision, {**decision, "failover_policy_id": "cost-failover"})
    for number, payload in enumerate((*told, decision)):
        event = {
            "event_id": f"evt-{number % 2}",  # the first comes twice
            "route_id": "prod-chat",
            "timestamp": "2024-03-15T14:30:00Z",
            "type": "runtime.failover.decision",
            "payload": payload,
        }
        assert (await stored.ingest_runtime(event)).status == 202
    doc = (await stored.get(f"{W}/failover-policies/latency-failover/decisions")).doc
    assert doc["data"] == [decision]
    assert (await stored.get(f"{W}/failover-policies/nobody/decisions")).status == 404


async def test_a_dry_run_asks_no_service_and_says_so(world: World) -> None:
    config = {"adapter": "http", "url": "http://127.0.0.1:9", "allow_private": True}
    rule = {"rule_id": "ask", "kind": "external", "action": "block", "config": config}
    await world.post(f"{W}/policies", PACK | {"rules": [rule]})
    doc = await evaluated(world, {"text": "anything"})
    assert (doc["verdict"], doc["text_after"]) == ("skipped", "anything")
    assert [each["rule_matched"] for each in doc["results"]] == ["ask"]
