"""How endpoints stand, over the API; what an operator forces and releases (failover.md §1, §14)."""

import re
from typing import Any

import pytest

from proxy.model.failover import Outcome
from proxy.routing.effects import Switched
from proxy.routing.holds import Key
from proxy.routing.standing import Standing
from proxy.routing.states import Reason, State
from tests.control.test_failover import BEDROCK, POLICIES, SEED, W, made
from tests.control.world import ADMIN, World, bearer, running

POLICY = {**SEED, "name": "Latency Failover"}
PATH = f"{POLICIES}/latency-failover"
FORCE = {"endpoint": "bedrock-claude", "ttl_seconds": 600, "reason": "maintenance"}
CLAUDE, SPARE = "anthropic-claude", "bedrock-claude"


async def set_up(world: World, **more: Any) -> Standing:
    """The seed's pair under the seed's policy."""
    assert (await world.post(f"{W}/endpoints", BEDROCK)).status == 201
    await made(world, {**POLICY, **more})
    standing = world.standings.of("default", "latency-failover")
    assert standing is not None
    return standing


def see(world: World, standing: Standing, outcome: Outcome, times: int, name: str = CLAUDE) -> None:
    now = world.clock.monotonic()
    for _ in range(times):
        standing.observe(name, now, outcome, began=now, quick=True)


async def shown(world: World) -> dict[str, Any]:
    answer = await world.get(PATH)
    assert answer.status == 200, answer.body
    doc: dict[str, Any] = answer.doc
    return doc


async def test_an_endpoint_that_was_left_is_seen_at_once(world: World) -> None:
    standing = await set_up(world)
    see(world, standing, Outcome.SUCCESS, 10)
    standing.breakers[CLAUDE].latencies.add(world.clock.monotonic(), 0.4)
    doc = await shown(world)
    assert (doc["state"], doc["active_endpoint"], doc["since"]) == ("normal", CLAUDE, None)
    stats = doc["stats"][CLAUDE]
    assert stats.pop("p50_ms") == pytest.approx(400, rel=0.07)
    assert stats == {"samples": 10, "error_rate": 0.0, "slow_ratio": 0.0}
    world.clock.advance(5)
    see(world, standing, Outcome.CONNECT, 3)
    world.clock.advance(2)
    doc = await shown(world)
    assert (doc["state"], doc["active_endpoint"]) == ("failed_over", SPARE)
    assert doc["primary_status"] == "unhealthy"
    assert doc["fallback_endpoints"] == [{"id": SPARE, "status": "healthy"}]
    assert doc["since"] == "2024-03-15T14:30:05Z"
    told = doc["explain"][CLAUDE]
    assert (told["state"], told["next_probe_in_ms"]) == ("open", 3000)
    assert told["opened_by"] == {
        "reason_code": "hard_failure", "trigger_condition": "connect_failures >= 3",
        "value": 3, "threshold": 3, "samples": 3,
    }  # fmt: skip
    assert (told["timed"], told["ramp_percent"]) == (10, None)
    assert doc["explain"][SPARE]["opened_by"] is None
    assert [rule["why"] for rule in told["rules"]] == ["already_open"] * 5
    listed = (await world.get(f"{POLICIES}?state=failed_over")).doc["data"]
    assert [each["id"] for each in listed] == ["latency-failover"]
    assert listed[0]["explain"] is None


# fmt: off
LEFT = [
    # why                                    in the words of a policy that judges by neither
    (Reason("error_rate", 0.5, 0.1, 20),            "error_rate > 0.1"),
    (Reason("consecutive_failures", 7.0, 7.0, 7),   "consecutive_failures >= 7"),
    (Reason("latency", 0.9, 0.5, 20),               "latency"),
]
# fmt: on


@pytest.mark.parametrize(("why", "words"), LEFT, ids=[row[0].code for row in LEFT])
async def test_why_it_was_left_outlives_the_rule_that_found_it(
    world: World, why: Reason, words: str
) -> None:
    standing = await set_up(world)
    standing.breakers[CLAUDE].open(world.clock.monotonic(), why)
    only_rates = {"latency_threshold_ms": None, "error_rate_threshold": 0.2}
    only_slow = {"latency_threshold_ms": 900, "error_rate_threshold": None}
    said = only_rates if why.code == "latency" else only_slow
    answer = await world.call("PATCH", PATH, {"conditions": {**said, "consecutive_failures": 0}})
    assert answer.status == 200, answer.body
    told = (await shown(world))["explain"][CLAUDE]["opened_by"]
    assert (told["trigger_condition"], told["samples"]) == (words, why.samples)


async def test_a_limit_that_is_over_has_no_end_to_tell(world: World) -> None:
    standing = await set_up(world)
    breaker = standing.breakers[CLAUDE]
    breaker.open(world.clock.monotonic(), Reason("rate_limited", 0.8, 0.5, 20))
    told = (await shown(world))["explain"][CLAUDE]["opened_by"]
    assert told["trigger_condition"].startswith("rate_limited until 2024-03-15T14:30:")
    breaker.state, breaker.since = State.PROBING, world.clock.monotonic() + 5
    world.clock.advance(9)
    told = (await shown(world))["explain"][CLAUDE]["opened_by"]
    assert told["trigger_condition"] == "rate_limited"


async def test_the_endpoint_that_has_all_traffic_by_force_was_not_left(world: World) -> None:
    await set_up(world)
    assert (await world.post(f"{PATH}/force", FORCE)).status == 200
    told = (await shown(world))["explain"]
    assert told[CLAUDE]["opened_by"]["trigger_condition"] == "manual: maintenance"
    assert told[SPARE]["opened_by"] is None


async def test_each_rule_says_why_it_does_not_trip(world: World) -> None:
    standing = await set_up(world, conditions={**SEED["conditions"], "consecutive_failures": 0})
    see(world, standing, Outcome.SUCCESS, 8)
    see(world, standing, Outcome.UPSTREAM_5XX, 2)
    see(world, standing, Outcome.CALLER, 7)
    told = (await shown(world))["explain"][CLAUDE]
    assert told["excluded"] == {"caller": 7}
    assert told["rules"][0] == {
        "rule": "a", "reason": "error_rate", "value": 0.2, "lower_bound": 0.0686, "threshold": 0.1,
        "have": 2, "need": 3, "would_trip": False, "why": "lower_bound_below_threshold",
        "sentence": "2 errors in 10 samples (20 %) could still be a 7 % error rate; 3 would trip",
    }  # fmt: skip


async def test_a_hold_is_told_with_what_is_left_of_it(world: World) -> None:
    standing = await set_up(world)
    standing.hit(Key(CLAUDE, "", "claude-3"), world.clock.monotonic(), 60.0, quota=False)
    world.clock.advance(1)
    doc = await shown(world)
    assert (doc["primary_status"], doc["active_endpoint"]) == ("rate_limited", SPARE)
    assert doc["explain"][CLAUDE]["hold"] == [{"model": "claude-3", "remaining_ms": 59_000}]


async def test_a_paused_policy_is_explained(world: World) -> None:
    await set_up(world)
    doc = (await world.call("PATCH", PATH, {"status": "paused"})).doc
    assert (doc["primary_status"], doc["state"]) == ("disabled", "normal")
    assert {rule["why"] for rule in doc["explain"][SPARE]["rules"]} == {"paused"}


async def test_nobody_left(world: World) -> None:
    standing = await set_up(world)
    see(world, standing, Outcome.CONNECT, 3)
    see(world, standing, Outcome.CONNECT, 3, SPARE)
    doc = await shown(world)
    assert (doc["state"], doc["active_endpoint"]) == ("exhausted", CLAUDE)


async def test_the_health_of_an_endpoint_per_policy(world: World) -> None:
    standing = await set_up(world)
    see(world, standing, Outcome.CONNECT, 3)
    (seen,) = (await world.get(f"{W}/endpoints/{CLAUDE}/health")).doc["policies"]
    assert (seen["failover_policy_id"], seen["route_id"]) == ("latency-failover", "prod-chat")
    assert (seen["status"], seen["role"], seen["active"]) == ("unhealthy", "primary", False)
    assert seen["rules"][3]["why"] == "already_open"
    (seen,) = (await world.get(f"{W}/endpoints/{SPARE}/health")).doc["policies"]
    assert (seen["status"], seen["role"], seen["active"]) == ("healthy", "fallback", True)


# --- an operator


async def test_what_is_forced_is_shown_told_and_audited(stored: World) -> None:
    await set_up(stored)
    answer = await stored.post(f"{PATH}/force", FORCE)
    assert answer.status == 200, answer.body
    doc = answer.doc
    assert (doc["state"], doc["active_endpoint"]) == ("forced", SPARE)
    assert doc["forced"] == {
        "endpoint": SPARE, "until": "2024-03-15T14:40:00Z", "reason": "maintenance"
    }  # fmt: skip
    assert (doc["primary_status"], doc["fallback_endpoints"][0]["status"]) == (
        "disabled", "healthy"
    )  # fmt: skip
    assert doc["explain"][SPARE]["rules"][0]["why"] == "forced_closed"
    (switched,) = [each for each in stored.effects if isinstance(each, Switched)]
    assert (switched.before, switched.after) == (CLAUDE, SPARE)
    assert (switched.reason.code, switched.reason.said) == ("manual", "maintenance")
    row = (await stored.get(f"{W}/audit?limit=1")).doc["data"][0]
    assert (row["action"], row["outcome"]) == ("failover_policy.force", "success")
    assert row["resource"] == {"type": "failover_policy", "id": "latency-failover"}
    assert {each["path"]: each["new"] for each in row["changes"]} == {
        "/forced/endpoint": SPARE, "/forced/ttl_seconds": 600, "/forced/reason": "maintenance"
    }  # fmt: skip
    assert (await stored.get(f"{W}/audit/verify")).doc["ok"]


async def test_a_release_takes_it_back_once(world: World) -> None:
    await set_up(world)
    await world.post(f"{PATH}/force", FORCE)
    world.effects.clear()
    doc = (await world.post(f"{PATH}/release", {"reason": "done"})).doc
    assert (doc["state"], doc["active_endpoint"], doc["forced"]) == ("normal", CLAUDE, None)
    (switched,) = [each for each in world.effects if isinstance(each, Switched)]
    assert (switched.after, switched.reason.said) == (CLAUDE, "done")
    again = await world.post(f"{PATH}/release", {})
    assert (again.status, again.doc["state"]) == (200, "normal")
    rows = (await world.get(f"{W}/audit?limit=5")).doc["data"]
    assert [row["action"] for row in rows][:2] == [
        "failover_policy.release", "failover_policy.force"
    ]  # fmt: skip
    assert rows[0]["changes"][0] == {"path": "/forced/endpoint", "old": SPARE, "new": None}


async def test_what_is_forced_ends_by_itself(world: World) -> None:
    standing = await set_up(world)
    await world.post(f"{PATH}/force", {**FORCE, "ttl_seconds": 60})
    world.clock.advance(61)
    standing.tick(world.clock.monotonic())
    assert (await shown(world))["state"] == "normal"


async def test_the_active_endpoint_can_be_held_where_it_is(world: World) -> None:
    standing = await set_up(world)
    await world.post(f"{PATH}/force", {**FORCE, "endpoint": CLAUDE})
    see(world, standing, Outcome.CONNECT, 9)
    doc = await shown(world)
    assert (doc["state"], doc["active_endpoint"]) == ("forced", CLAUDE)
    (switched,) = [each for each in world.effects if isinstance(each, Switched)]
    assert (switched.before, switched.after) == (CLAUDE, CLAUDE)


# fmt: off
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"endpoint": "nobody"},         "endpoint",    "unknown_reference"),
    ({"endpoint": "Not A Slug"},     "endpoint",    "pattern"),
    ({"endpoint": None},             "endpoint",    "wrong_type"),
    ({"ttl_seconds": 0},             "ttl_seconds", "greater_than_equal"),
    ({"ttl_seconds": 86_401},        "ttl_seconds", "less_than_equal"),
    ({"ttl_seconds": "600"},         "ttl_seconds", "wrong_type"),
    ({"reason": ""},                 "reason",      "too_short"),
    ({"reason": "x" * 201},          "reason",      "too_long"),
    ({"reason": "a\x00b"},           "reason",      "control_character"),
    ({"nonsense": 1},                "nonsense",    "extra_forbidden"),
]
# fmt: on


@pytest.mark.parametrize(("change", "field", "code"), REFUSED)
async def test_what_cannot_be_forced(
    world: World, change: dict[str, Any], field: str, code: str
) -> None:
    await set_up(world)
    answer = await world.post(f"{PATH}/force", {**FORCE, **change})
    assert answer.status == 422
    assert (field, code) in answer.codes()
    assert answer.doc["errors"][0]["pointer"] == f"#/{field}"
    assert not world.effects


async def test_an_endpoint_of_the_policy_that_is_not_there(world: World) -> None:
    await made(world, POLICY)
    answer = await world.post(f"{PATH}/force", FORCE)
    assert (answer.status, answer.codes()) == (422, [("endpoint", "unknown_reference")])


async def test_a_paused_policy_cannot_be_forced(world: World) -> None:
    assert (await world.post(f"{W}/endpoints", BEDROCK)).status == 201
    await made(world, {**POLICY, "status": "paused"})
    answer = await world.post(f"{PATH}/force", FORCE)
    assert (answer.status, answer.slug) == (409, "conflict")
    assert (await world.post(f"{POLICIES}/nobody/force", FORCE)).status == 404
    assert (await world.post(f"{POLICIES}/nobody/release", {})).status == 404


async def test_who_may_force(world: World) -> None:
    await set_up(world)
    for who, status in (("viewer000000", 403), ("operator0000", 200)):
        assert (await world.post(f"{PATH}/force", FORCE, bearer(who))).status == status


async def test_a_repeated_force_moves_once(world: World) -> None:
    await set_up(world)
    said = {**ADMIN, "Idempotency-Key": "once"}
    first = await world.post(f"{PATH}/force", FORCE, said)
    world.clock.advance(1)
    again = await world.post(f"{PATH}/force", FORCE, said)
    assert (first.status, again.doc) == (200, first.doc)
    assert len([each for each in world.effects if isinstance(each, Switched)]) == 1


async def test_a_policy_of_the_file_can_be_forced() -> None:
    file = {("default", "failover_policy"): [("parapet.yaml#/x", {**SEED, "id": "file"})]}
    async with running(declared=file) as world:
        doc = (await world.get(f"{POLICIES}/file")).doc
        assert doc["explain"].keys() == {CLAUDE, SPARE}
        answer = await world.post(f"{POLICIES}/file/force", FORCE)
        assert answer.codes() == [("endpoint", "unknown_reference")]


async def test_a_sentence_is_one_plain_sentence(world: World) -> None:
    await set_up(world)
    for told in (await shown(world))["explain"].values():
        for rule in told["rules"]:
            assert re.fullmatch(r"[a-z0-9][^.\n]{10,150}", rule["sentence"]), rule


# --- T-FO-71 over the API


async def test_t_fo_71_warnings_stand_in_what_is_written_and_read(world: World) -> None:
    standing = await set_up(world, request_failover={"max_attempts": 1})
    standing.breakers[CLAUDE].latencies.add(world.clock.monotonic(), 4.0)
    warned = {(each["pointer"], each["code"]) for each in (await shown(world))["warnings"]}
    assert warned == {
        ("#/request_failover/max_attempts", "single_attempt"),
        ("#/conditions/latency_threshold_ms", "threshold_below_median"),
    }
    answer = await world.call("PATCH", PATH, {"request_failover": None})
    assert [each["code"] for each in answer.doc["warnings"]] == ["threshold_below_median"]


async def test_the_metrics_show_how_endpoints_stand(world: World) -> None:
    standing = await set_up(world)
    see(world, standing, Outcome.CONNECT, 3)
    standing.hit(Key(SPARE, "", "claude-3"), world.clock.monotonic(), 60.0, quota=False)
    text = (await world.get("/metrics")).body.decode()
    labels = 'workspace="default",policy="latency-failover",endpoint="{}",state="{}"'
    for name, state, value in ((CLAUDE, "open", 1), (CLAUDE, "closed", 0), (SPARE, "limited", 1)):
        told = f"parapet_endpoint_state{{{labels.format(name, state)}}} {value}\n"
        assert told in text
    held = 'parapet_rate_limit_hold_seconds{workspace="default",endpoint="bedrock-claude"} 60\n'
    assert held in text
    await world.call("DELETE", PATH)
    assert "latency-failover" not in (await world.get("/metrics")).body.decode()
