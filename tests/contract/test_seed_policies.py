"""One test per bullet of the seeds about policies, failover and the evolution of the contract."""

import copy
import re
from datetime import date

import pytest

from proxy.control.deprecations import Deprecated
from proxy.control.openapi import describe
from proxy.control.routes import OPERATIONS
from tests.contract.compatibility import breaks
from tests.contract.literals import holds, seed
from tests.contract.snapshot import described, today
from tests.control.world import World, bearer

W = "/v1/workspaces/default"
POLICIES, FAILOVER = f"{W}/policies", f"{W}/failover-policies"


@pytest.fixture(autouse=True)
async def bedrock(api: World) -> None:
    """The fallback of the literals."""
    endpoint = {"id": "bedrock-claude", "provider": "bedrock", "region": "us-east-1"}
    assert (await api.post(f"{W}/endpoints", endpoint)).status == 201


async def test_a1_stable_api_contracts(api: World) -> None:
    """What it promises is held by test_compatibility.py."""
    served = (await api.get("/openapi.json", {})).doc
    assert (served["openapi"], set(served["paths"])) == ("3.1.0", set(described()["paths"]))


async def test_a6_workspace_scoped_endpoints(api: World) -> None:
    foreign = bearer("foreign00000")
    for path in (POLICIES, f"{W}/alert-rules", f"{W}/deliveries", FAILOVER):
        assert (await api.get(path)).status == 200
        answer = await api.get(path, foreign)
        assert (answer.status, answer.doc["reason"]) == (403, "workspace_mismatch")


async def test_a7_get_policies_for_policy_list(api: World) -> None:
    assert (await api.post(POLICIES, seed("policy_pack"))).status == 201
    answer = await api.get(f"{POLICIES}?sort=created_at:desc")
    listed = {each["id"]: each for each in answer.doc["data"]}
    assert holds(listed["safety-v2"], seed("policy_pack"))


async def test_a11_a12_post_failover_policy_example_request_and_response(api: World) -> None:
    answer = await api.post(FAILOVER, seed("failover_policy"))
    assert answer.status == 201
    expected = {**seed("failover_policy_answer"), "id": answer.doc["id"]}
    assert answer.doc["id"].startswith("failover-")
    assert holds(answer.doc, expected)
    named = {**seed("failover_policy"), "id": "failover-123", "status": "paused"}
    answer = await api.post(FAILOVER, named)
    active = {**seed("failover_policy_answer"), "status": "paused"}
    active["fallback_endpoints"] = [{"id": "bedrock-claude", "status": "disabled"}]
    assert holds(answer.doc, active)


async def test_a13_get_failover_policies_to_list_all_policies(api: World) -> None:
    made = (await api.post(FAILOVER, seed("failover_policy"))).doc
    listed = (await api.get(FAILOVER)).doc["data"]
    assert [each["id"] for each in listed] == [made["id"]]


async def test_a14_delete_failover_policy_to_remove_a_policy(api: World) -> None:
    made = (await api.post(FAILOVER, seed("failover_policy"))).doc
    path = f"{FAILOVER}/{made['id']}"
    assert [(await api.call("DELETE", path)).status for _ in range(2)] == [204, 404]


def test_a30_enum_values_are_never_removed_and_new_ones_are_optional() -> None:
    place = "/v1/workspaces/{workspace}/alert-rules"
    now = {**described(), "paths": {place: described()["paths"][place]}}
    promised = copy.deepcopy(now)
    severity = promised["components"]["schemas"]["AlertRuleNew"]["properties"]["severity"]
    severity["enum"].append("apocalyptic")  # promised once, and gone now
    assert breaks(promised, now, today=today(), announced=set())
    assert breaks(now, now, today=today(), announced=set()) == []


async def test_a31_schema_versions_are_listed_with_their_status(api: World) -> None:
    listed = (await api.get("/v1/schemas", {})).doc["data"]
    assert {each["status"] for each in listed} == {"current"}
    assert "policy-pack" in {each["name"] for each in listed}


async def test_a32_deprecations_are_announced_in_the_changelog(api: World) -> None:
    answer = await api.get("/v1/changelog", {})
    kinds = {each["kind"] for each in answer.doc["data"]}
    assert kinds <= {"added", "changed", "deprecated", "removed"}


@pytest.mark.thorough
def test_a33_the_deprecation_template_is_the_contracts() -> None:
    since, until = date(2026, 1, 15), date(2026, 4, 15)
    row = Deprecated(
        "createAlertRule", "body", "/condition/operator", "new_field", since, "2.1.0", until
    )
    said = re.findall(r"DEPRECATED:.{0,40}? in v[0-9.]+", str(describe(OPERATIONS, (row,))))
    assert set(said) == {"DEPRECATED: Use new_field instead. Will be removed in v2.1.0"}
    assert "DEPRECATED:" not in str(describe(OPERATIONS, ()))


async def test_b3_policy_result(api: World) -> None:
    """The names of the literal, from a rule that hits."""
    pack = {**seed("policy_pack"), "lists": {"regulated terms": ["hateful"]}}
    assert (await api.post(POLICIES, pack)).status == 201
    answer = await api.post(f"{POLICIES}/safety-v2/evaluate", {"text": "a hateful text"})
    (result,) = answer.doc["results"]
    literal = seed("policy_result")
    same = ("verdict", "rule_matched", "action_taken")
    assert {name: result[name] for name in same} == {name: literal[name] for name in same}
    assert set(literal) <= set(result)


async def test_b3_route_exposure(api: World) -> None:
    literal = seed("route_exposure")
    members = ("daily_requests", "affected_users", "revenue_impact")
    route = {
        "id": "sold", "endpoint": "anthropic-claude",
        "exposure": {name: literal[name] for name in members},
    }  # fmt: skip
    assert (await api.post(f"{W}/routes", route)).status == 201
    answer = await api.get(f"{W}/routes/sold/exposure")
    assert holds(answer.doc, {**literal, "route_id": "sold"})


async def test_b4_policy_pack_config_payload(api: World) -> None:
    answer = await api.post(POLICIES, seed("policy_pack"))
    assert answer.status == 201
    assert holds(answer.doc, seed("policy_pack"))
    assert holds((await api.get(f"{POLICIES}/safety-v2")).doc, seed("policy_pack"))
