"""Policy packs over the API: versions, activation, what the engine refuses (T-POL-01)."""

import io
import json
from typing import Any

import pytest

from proxy.control.policies import bumped, precedence
from tests.control.world import ADMIN, SHIPPED, World, running

W = "/v1/workspaces/default"
POLICIES = f"{W}/policies"
SEED: dict[str, Any] = {
    "policy_pack_id": "safety-v2",
    "version": "2.1.0",
    "rules": [
        {
            "rule_id": "hate_speech",
            "severity": "high",
            "pattern": "[regulated terms]",
            "action": "block",
        }
    ],
    "default_action": "log",
    "description": "Comprehensive safety policies for production chat routes",
}
RULES = [{"rule_id": "word", "pattern": "forbidden", "action": "redact"}]


async def made(world: World, body: dict[str, Any]) -> dict[str, Any]:
    answer = await world.post(POLICIES, body)
    assert answer.status == 201, answer.body
    doc: dict[str, Any] = answer.doc
    return doc


async def test_the_seeds_pack_comes_back_as_it_was_sent(stored: World) -> None:
    doc = await made(stored, SEED)
    assert doc["id"] == "safety-v2"
    assert {name: doc[name] for name in SEED if name != "rules"} == {
        name: value for name, value in SEED.items() if name != "rules"
    }
    assert SEED["rules"][0].items() <= doc["rules"][0].items()
    assert (doc["status"], doc["active_version"], doc["versions_count"]) == ("active", "2.1.0", 1)
    assert len(doc["content_sha256"]) == 64
    assert [each["code"] for each in doc["warnings"]] == [
        "pattern_looks_like_placeholder", "list_missing"
    ]  # fmt: skip


async def test_a_changed_pack_is_a_new_version_and_an_old_one_can_come_back(stored: World) -> None:
    await made(stored, {"id": "mine", "rules": RULES})
    path = f"{POLICIES}/mine"
    same = await stored.call("PUT", path, {"rules": RULES})
    assert (same.doc["version"], same.doc["revision"]) == ("1.0.0", 1)
    patched = await stored.call("PATCH", path, {"description": "new"})
    assert (patched.doc["version"], patched.doc["versions_count"]) == ("1.0.1", 2)
    named = await stored.call("PUT", path, {"description": "newer", "version": "2.0.0"})
    assert (named.doc["version"], named.doc["active_version"]) == ("2.0.0", "2.0.0")
    back = await stored.post(f"{path}/activate", {"version": "1.0.0"})
    assert (back.status, back.doc["version"], back.doc["description"]) == (200, "1.0.0", "")
    assert back.doc["versions_count"] == 3
    again = await stored.call("PATCH", path, {"description": "newest"})
    assert again.doc["version"] == "1.0.2"  # 1.0.1 was published and never changes
    listed = await stored.get(f"{path}/versions?sort=version:asc")
    assert [(each["version"], each["active"]) for each in listed.doc["data"]] == [
        ("1.0.0", False), ("1.0.1", False), ("1.0.2", True), ("2.0.0", False)
    ]  # fmt: skip
    one = await stored.get(f"{path}/versions/2.0.0")
    assert (one.doc["description"], one.doc["active"]) == ("newer", False)
    asked = await stored.get(f"{path}?version=1.0.1")
    assert asked.doc["description"] == "new"
    assert (await stored.get(f"{path}?version=9.0.0")).status == 404
    assert (await stored.post(f"{path}/activate", {"version": "9.0.0"})).status == 404


@pytest.mark.parametrize("version", ["0.9.0", "1.0.0", "1.0.0-rc.1", "1.0.1"])
async def test_an_older_or_published_version_is_a_conflict(world: World, version: str) -> None:
    await made(world, {"id": "mine", "rules": RULES})
    path = f"{POLICIES}/mine"
    await world.call("PATCH", path, {"description": "x"})  # 1.0.1
    await world.post(f"{path}/activate", {"version": "1.0.0"})
    answer = await world.call("PUT", path, {"description": "y", "version": version})
    assert (answer.status, answer.slug, answer.doc["existing"]) == (
        409, "version-conflict", "1.0.0"
    )  # fmt: skip


async def test_what_stands_beside_a_version_changes_without_a_new_one(stored: World) -> None:
    await made(stored, {"id": "mine", "rules": RULES})
    change = {"status": "paused", "route_ids": ["prod-chat"], "labels": {"team": "a"}}
    answer = await stored.call("PATCH", f"{POLICIES}/mine", change)
    assert (answer.doc["version"], answer.doc["revision"]) == ("1.0.0", 2)
    rules = stored.config().workspaces["default"]
    assert [route.policy_packs for route in rules.routes] == [["mine"]]
    assert [pack.enabled for pack in rules.policies] == [False]
    await stored.call("PATCH", f"{POLICIES}/mine", {"status": "active"})
    assert [pack.enabled for pack in stored.config().workspaces["default"].policies] == [True]


async def test_a_removed_pack_takes_its_versions_along(stored: World) -> None:
    await made(stored, {"id": "mine", "rules": RULES})
    await stored.call("PATCH", f"{POLICIES}/mine", {"description": "x"})
    assert (await stored.call("DELETE", f"{POLICIES}/mine")).status == 204
    assert list(await stored.store.scan("default", "policy_version")) == []
    doc = await made(stored, {"id": "mine", "rules": RULES})
    assert doc["versions_count"] == 1


async def test_activation_is_once_per_key_and_a_row_of_the_audit(stored: World) -> None:
    await made(stored, {"id": "mine", "rules": RULES})
    path = f"{POLICIES}/mine"
    await stored.call("PATCH", path, {"description": "x"})
    key = {**ADMIN, "Idempotency-Key": "k"}
    first = await stored.post(f"{path}/activate", {"version": "1.0.0"}, key)
    await stored.post(f"{path}/activate", {"version": "1.0.1"})
    second = await stored.post(f"{path}/activate", {"version": "1.0.0"}, key)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.doc == first.doc
    assert (await stored.get(path)).doc["version"] == "1.0.1"
    rows = (await stored.get(f"{W}/audit")).doc["data"]
    assert [row["action"] for row in rows] == [
        "policy.activate", "policy.activate", "policy.update", "policy.create"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"rules": [{"rule_id": "a", "kind": "regex", "pattern": "(?<=x)y"}]},
         "rules.0.pattern", "unsupported_regex"),
        ({"rules": [{"rule_id": "a", "kind": "regex", "pattern": "(x"}]},
         "rules.0.pattern", "regex_syntax"),
        ({"rules": [{"rule_id": "a", "pattern": "x"}, {"rule_id": "a", "pattern": "y"}]},
         "rules.1.rule_id", "duplicate_rule_id"),
        ({"rules": [{"rule_id": "a", "pattern": "x", "severity": "huge"}]},
         "rules.0.severity", "unknown_value"),
        ({"version": "1.0"}, "version", "pattern"),
        ({"id": "coverage"}, "policy_pack_id", "reserved"),
        ({"nonsense": 1}, "nonsense", "extra_forbidden"),
        ({"extends": "nobody"}, "extends", "invalid_value"),
    ],
)  # fmt: skip
async def test_what_a_pack_may_not_say(
    world: World, change: dict[str, Any], field: str, code: str
) -> None:
    answer = await world.post(POLICIES, {"id": "mine", "rules": RULES, **change})
    assert answer.status == 422
    assert (field, code) in answer.codes()


async def test_a_position_leads_to_the_fault_and_duplicates_are_refused(world: World) -> None:
    bad = {"id": "m", "rules": [{"rule_id": "a", "kind": "regex", "pattern": "ab(?=c)"}]}
    answer = await world.post(POLICIES, bad)
    (error,) = answer.doc["errors"]
    assert (error["pointer"], error["position"]) == ("#/rules/0/pattern", 2)
    twice = await world.session.post(
        f"http://127.0.0.1:{world.port}{POLICIES}",
        data=b'{"id":"m","rules":[],"default_action":"log","default_action":"block"}',
        headers={**ADMIN, "Content-Type": "application/json"},
    )
    assert twice.status == 422
    assert b"duplicate_member" in await twice.read()


@pytest.mark.parametrize(("rules", "status"), [(20, 201), (27, 413)])
async def test_a_pack_may_have_a_megabyte(world: World, rules: int, status: int) -> None:
    terms = [f"{n:0200}" for n in range(200)]
    named = [{"rule_id": f"r{n}", "kind": "terms", "pattern": terms} for n in range(rules)]
    body = io.BytesIO(json.dumps({"id": "big", "rules": named}).encode())
    headers = {**ADMIN, "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{world.port}{POLICIES}"
    async with world.session.post(url, data=body, headers=headers) as answer:
        assert answer.status == status


async def test_shipped_packs_are_read_and_not_written() -> None:
    async with running() as world:
        path = f"{POLICIES}/secrets-core"
        doc = (await world.get(path)).doc
        assert (doc["origin"], doc["location"]) == ("file", "builtin:packs/small.yaml")
        assert doc["version"] == SHIPPED["version"]
        versions = (await world.get(f"{path}/versions")).doc["data"]
        assert [each["version"] for each in versions] == ["1.0.0"]
        for answer in (
            await world.call("PATCH", path, {"description": "x"}),
            await world.post(f"{path}/activate", {"version": "1.0.0"}),
            await world.call("DELETE", path),
        ):
            assert (answer.status, answer.slug) == (409, "managed-by-file")
        own = await made(world, {"id": "secrets-core", "rules": RULES})
        assert own["origin"] == "api"  # the workspace's own comes first
        assert (await world.get(path)).doc["origin"] == "api"


async def test_lists_are_filtered_by_what_their_rules_do(world: World) -> None:
    await made(world, {"id": "a", "rules": RULES})
    await made(world, {"id": "b", "rules": [{"rule_id": "x", "pattern": "y", "severity": "low"}]})
    for query, ids in (
        ("action=redact", ["a"]),
        ("action=log&sort=id", ["b", "secrets-core"]),
        ("severity=low", ["b"]),
        ("status=paused", []),
        ("sort=id:asc", ["a", "b", "secrets-core"]),
    ):
        listed = await world.get(f"{POLICIES}?{query}")
        assert [each["id"] for each in listed.doc["data"]] == ids, query


def test_versions_sort_as_semantic_versions_do() -> None:
    """The order of semver.org §11."""
    order = [
        "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
        "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "10.0.0",
    ]  # fmt: skip
    assert sorted(sorted(order), key=precedence) == order
    assert precedence("1.0.0+a") == precedence("1.0.0+b")


@pytest.mark.parametrize(
    ("version", "published", "following"),
    [
        ("1.0.0", [], "1.0.1"),
        ("1.0.0", ["1.0.1", "1.0.2"], "1.0.3"),
        ("1.0.0-rc.1", [], "1.0.0"),
        ("1.2.9+build", [], "1.2.10"),
    ],
)
def test_the_next_patch(version: str, published: list[str], following: str) -> None:
    assert bumped(version, frozenset(published)) == following


async def test_a_pack_that_a_route_names_is_not_removed_where_references_are_strict(
    world: World,
) -> None:
    await made(world, {"id": "mine", "rules": RULES})
    route = {"id": "r", "endpoint": "anthropic-claude", "policy_packs": ["mine"]}
    assert (await world.post(f"{W}/routes", route)).status == 201
    strict = {**ADMIN, "Prefer": "handling=strict"}
    refused = await world.call("DELETE", f"{POLICIES}/mine", headers=strict)
    assert (refused.status, refused.slug) == (409, "in-use")
    assert (await world.call("DELETE", f"{POLICIES}/mine")).status == 204


@pytest.mark.thorough
async def test_a_base_that_grew_too_large_holds_up_nothing_else(stored: World) -> None:
    def rules(name: str, count: int) -> list[dict[str, str]]:
        return [{"rule_id": f"{name}{n}", "pattern": f"word{n}"} for n in range(count)]

    await made(stored, {"id": "base", "rules": rules("b", 50)})
    await made(stored, {"id": "child", "extends": "base", "rules": rules("c", 400)})
    grown = await stored.call("PUT", f"{POLICIES}/base", {"rules": rules("b", 200)})
    assert grown.status == 200
    assert stored.in_force is not None
    assert [each.partition(":")[0] for each in stored.in_force.refused] == ["default/policy/child"]
    route = {"id": "r", "endpoint": "anthropic-claude", "policy_packs": ["child"]}
    assert (await stored.post(f"{W}/routes", route)).status == 201
    why = stored.config().workspaces["default"].unusable
    assert why == {"r": "policy pack child is not there"}


@pytest.mark.thorough
async def test_a_pack_that_takes_more_than_two_seconds_to_compile_is_refused(world: World) -> None:
    rules = [
        {**RULES[0], "rule_id": f"r{at}", "pattern": f"x{at}\\pL{{1,200}}y"} for at in range(500)
    ]
    answer = await world.post(POLICIES, {"id": "slow", "rules": rules})
    assert answer.status == 422
    assert [each["code"] for each in answer.doc["errors"]] == ["pack_too_large"]
    assert (await world.get(f"{POLICIES}/slow")).status == 404


@pytest.mark.thorough
async def test_packs_cannot_extend_each_other_in_a_ring(world: World) -> None:
    await made(world, {"id": "pa", "rules": RULES})
    await made(world, {"id": "pb", "extends": "pa", "rules": []})
    ring = await world.call("PUT", f"{POLICIES}/pa", {"extends": "pb"})
    assert (ring.status, ring.codes()) == (422, [("extends", "invalid_value")])
    itself = await world.call("PUT", f"{POLICIES}/pa", {"extends": "pa"})
    assert (itself.status, itself.codes()) == (422, [("extends", "invalid_value")])
    await made(world, {"id": "pc", "extends": "pb", "rules": []})
    assert (await world.call("PUT", f"{POLICIES}/pb", {"extends": None})).status == 200
    assert (await world.call("PUT", f"{POLICIES}/pa", {"extends": "pb"})).status == 200
    back = await world.post(f"{POLICIES}/pb/activate", {"version": "1.0.0"})
    assert (back.status, back.codes()) == (422, [("extends", "invalid_value")])


async def test_a_pack_that_others_extend_is_not_removed_where_references_are_strict(
    world: World,
) -> None:
    await made(world, {"id": "base", "rules": RULES})
    await made(world, {"id": "child", "extends": "base", "rules": []})
    strict = {**ADMIN, "Prefer": "handling=strict"}
    refused = await world.call("DELETE", f"{POLICIES}/base", headers=strict)
    assert (refused.status, refused.slug) == (409, "in-use")
    assert refused.doc["referenced_by"] == [
        {"type": "policy", "id": "child", "pointer": "#/extends"}
    ]
    assert (await world.call("DELETE", f"{POLICIES}/base")).status == 204
    child = await world.get(f"{POLICIES}/child")
    assert child.status == 200
    assert {each["code"] for each in child.doc["warnings"]} == {
        "unknown_reference", "invalid_value"
    }  # fmt: skip
    assert (await world.call("DELETE", f"{POLICIES}/child", headers=strict)).status == 204


async def test_a_rule_that_reroutes_names_endpoints_that_are_there(world: World) -> None:
    rule = {"rule_id": "r", "pattern": "word", "action": "reroute"}

    def sent(name: str, *targets: str) -> dict[str, Any]:
        return {"id": name, "rules": [{**rule, "config": {"reroute_to": list(targets)}}]}

    known = await made(world, sent("known", "anthropic-claude"))
    assert not known.get("warnings")
    lost = await made(world, sent("lost", "anthropic-claude", "gone"))
    assert [(w["code"], w["pointer"]) for w in lost["warnings"]] == [
        ("unknown_reference", "#/rules/0/config/reroute_to")
    ]
    strict = {**ADMIN, "Prefer": "handling=strict"}
    refused = await world.call("POST", POLICIES, sent("strict", "gone"), headers=strict)
    assert refused.status == 422
    wrong = await world.post(POLICIES, {"id": "wrong", "rules": [rule]})
    assert (wrong.status, wrong.codes()) == (422, [("rules.0.config.reroute_to", "missing")])


async def test_a_route_whose_pack_reroutes_to_nobody_says_so(stored: World) -> None:
    rule = {"rule_id": "r", "pattern": "word", "action": "reroute", "config": {"reroute_to": "x"}}
    await made(stored, {"id": "lost", "rules": [rule]})
    route = {"id": "r", "endpoint": "anthropic-claude", "policy_packs": ["lost"]}
    assert (await stored.post(f"{W}/routes", route)).status == 201
    why = stored.config().workspaces["default"].unusable
    assert why == {"r": "policy pack lost reroutes to endpoint x, which is not there"}


def asking(**config: Any) -> list[dict[str, Any]]:
    return [
        {"rule_id": "ask", "kind": "external", "action": "block",
         "config": {"adapter": "http", **config}}
    ]  # fmt: skip


async def test_what_a_check_outside_is_asked_with_lies_within_the_fence(stored: World) -> None:
    """SECURITY: else whoever may write a pack could have any variable sent to himself."""
    headers = {"authorization": {"$env": "PARAPET_ADMIN_KEY"}}
    rules = asking(url="https://evil.example", headers=headers)
    answer = await stored.post(POLICIES, {"id": "mine", "rules": rules})
    assert answer.status == 422
    assert [code for _, code in answer.codes()] == ["forbidden_reference"]
    headers = {"authorization": {"$env": "PARAPET_SECRET_CHECKS"}}
    rules = asking(url="https://checks.example", headers=headers)
    doc = await made(stored, {"id": "mine", "rules": rules})
    assert doc["rules"][0]["config"]["headers"] == headers
    literal = asking(url="https://checks.example", headers={"authorization": "Bearer hush-hush"})
    answer = await stored.post(POLICIES, {"id": "other", "rules": literal})
    assert answer.status == 422
    assert b"hush-hush" not in answer.body


async def test_an_endpoint_that_a_check_asks_and_is_not_there_is_warned_of(stored: World) -> None:
    doc = await made(stored, {"id": "mine", "rules": asking(endpoint="nobody")})
    (warning,) = doc["warnings"]
    assert warning["pointer"] == "#/rules/0/config/endpoint"
