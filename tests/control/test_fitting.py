"""Packs that a route cannot have are refused where they would meet it (guardrails.md §3.2)."""

from typing import Any

import pytest

from proxy.control.kinds import body_of
from proxy.model.batch import ABSENT, Batch, Put
from tests.control.world import ADMIN, World

W = "/v1/workspaces/default"
POLICIES, ROUTES = f"{W}/policies", f"{W}/routes"
WHY = "judges whole answers and needs stream_recovery: buffer or off"
SHAPED = {"rule_id": "shaped", "kind": "json_schema", "action": "block",
          "config": {"schema": {"type": "object"}}}  # fmt: skip
LOGGED = {**SHAPED, "action": "log"}
WORD = {"rule_id": "word", "pattern": "forbidden"}
ROUTE: dict[str, Any] = {"id": "r", "endpoint": "anthropic-claude"}


async def sent(world: World, method: str, path: str, body: Any, status: int) -> Any:
    answer = await world.call(method, path, body)
    assert answer.status == status, answer.doc
    return answer.doc


async def refused(
    world: World, method: str, path: str, body: dict[str, Any], pointer: str, pack: str = "shape"
) -> None:
    """It is told which rule of which pack, where, and why; and nothing of it is kept."""
    before = world.in_force
    doc = await sent(world, method, path, body, 422)
    assert doc["errors"] == [
        {
            "pointer": pointer,
            "field": pointer.removeprefix("#").removeprefix("/").replace("/", "."),
            "code": "kind_not_possible",
            "detail": f"rule shaped of pack {pack} {WHY} on route r",
            "policy_pack_id": pack,
            "rule_id": "shaped",
            "route_id": "r",
        }
    ]
    assert world.in_force is before


@pytest.mark.parametrize(
    ("method", "path", "before", "body", "pointer"),
    [
        ("POST", ROUTES, None, {**ROUTE, "policy_packs": ["shape"]}, "#/policy_packs/0"),
        ("POST", ROUTES, None, {**ROUTE, "policy_packs": ["other", "shape@1.0.0"]},
         "#/policy_packs/1"),
        ("PUT", f"{ROUTES}/r", {}, {**ROUTE, "policy_packs": ["shape"]}, "#/policy_packs/0"),
        ("PATCH", f"{ROUTES}/r", {}, {"policy_packs": ["shape"]}, "#/policy_packs/0"),
        ("PATCH", f"{ROUTES}/r", {"policy_packs": ["shape"], "stream_recovery": "off"},
         {"stream_recovery": "resume"}, "#/stream_recovery"),
        ("PATCH", f"{ROUTES}/r", {"policy_packs": ["shape"], "stream_recovery": "buffer"},
         {"stream_recovery": None}, "#/stream_recovery"),
    ],
)  # fmt: skip
async def test_a_route_that_would_have_such_a_pack(
    stored: World, method: str, path: str, before: Any, body: dict[str, Any], pointer: str
) -> None:
    await sent(stored, "POST", POLICIES, {"id": "other", "rules": [WORD]}, 201)
    await sent(stored, "POST", POLICIES, {"id": "shape", "rules": [SHAPED]}, 201)
    if before is not None:
        await sent(stored, "POST", ROUTES, ROUTE | before, 201)
    await refused(stored, method, path, body, pointer)


@pytest.mark.parametrize("recovery", ["off", "buffer"])
async def test_a_route_that_holds_or_gives_up_may_have_it(stored: World, recovery: str) -> None:
    await sent(stored, "POST", POLICIES, {"id": "shape", "rules": [SHAPED]}, 201)
    route = {**ROUTE, "policy_packs": ["shape"], "stream_recovery": recovery}
    await sent(stored, "POST", ROUTES, route, 201)
    assert stored.config().workspaces["default"].unusable == {}


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("PUT", "/shape", {"rules": [WORD, SHAPED]}, "#/rules/1"),
        ("PATCH", "/shape", {"rules": [SHAPED]}, "#/rules/0"),
        ("PATCH", "/shape", {"status": "active", "rules": [SHAPED]}, "#/rules/0"),
    ],
)
async def test_a_pack_that_its_routes_could_not_have(
    stored: World, method: str, path: str, body: dict[str, Any], pointer: str
) -> None:
    await sent(stored, "POST", POLICIES, {"id": "shape", "rules": [LOGGED]}, 201)
    await sent(stored, "POST", ROUTES, {**ROUTE, "policy_packs": ["shape"]}, 201)
    await refused(stored, method, POLICIES + path, body, pointer)


async def test_a_new_pack_that_attaches_itself_or_was_named_before_it_was_there(
    stored: World,
) -> None:
    await sent(stored, "POST", ROUTES, {**ROUTE, "policy_packs": ["shape", "pinned@2.0.0"]}, 201)
    await refused(stored, "POST", POLICIES, {"id": "shape", "rules": [SHAPED]}, "#/rules/0")
    body = {"id": "pinned", "version": "2.0.0", "rules": [SHAPED]}
    await refused(stored, "POST", POLICIES, body, "#/rules/0", "pinned")
    body = {"id": "third", "rules": [SHAPED], "route_ids": ["r"]}
    await refused(stored, "POST", POLICIES, body, "#/rules/0", "third")


async def test_a_version_that_is_pinned_stays_and_others_may_come(stored: World) -> None:
    await sent(stored, "POST", POLICIES, {"id": "shape", "rules": [LOGGED]}, 201)
    await sent(stored, "POST", ROUTES, {**ROUTE, "policy_packs": ["shape@1.0.0"]}, 201)
    await sent(stored, "PATCH", f"{POLICIES}/shape", {"rules": [SHAPED]}, 200)
    assert stored.config().workspaces["default"].unusable == {}
    body = {"policy_packs": ["shape@1.0.1"]}
    await refused(stored, "PATCH", f"{ROUTES}/r", body, "#/policy_packs/0")


async def test_a_version_is_not_brought_back_onto_a_route_that_cannot_have_it(
    stored: World,
) -> None:
    await sent(stored, "POST", POLICIES, {"id": "shape", "rules": [SHAPED]}, 201)
    await sent(stored, "PATCH", f"{POLICIES}/shape", {"rules": [LOGGED]}, 200)
    await sent(stored, "POST", ROUTES, {**ROUTE, "policy_packs": ["shape"]}, 201)
    path = f"{POLICIES}/shape/activate"
    await refused(stored, "POST", path, {"version": "1.0.0"}, "#/version")
    assert (await stored.get(f"{POLICIES}/shape")).doc["active_version"] == "1.0.1"
    await sent(stored, "PATCH", f"{ROUTES}/r", {"stream_recovery": "off"}, 200)
    await sent(stored, "POST", path, {"version": "1.0.0"}, 200)


async def test_a_base_is_looked_at_on_the_routes_of_what_extends_it(stored: World) -> None:
    await sent(stored, "POST", POLICIES, {"id": "base", "rules": [LOGGED]}, 201)
    await sent(stored, "POST", POLICIES, {"id": "shape", "extends": "base", "rules": []}, 201)
    await sent(stored, "POST", ROUTES, {**ROUTE, "policy_packs": ["shape"]}, 201)
    await refused(stored, "PATCH", f"{POLICIES}/base", {"rules": [SHAPED]}, "#/rules/0")
    rule = {"rule_id": "shaped", "action": "block"}
    await refused(stored, "PATCH", f"{POLICIES}/shape", {"rules": [rule]}, "#/rules/0")


async def test_a_paused_pack_does_nothing_until_it_is_woken(stored: World) -> None:
    body = {"id": "shape", "rules": [SHAPED], "status": "paused"}
    await sent(stored, "POST", POLICIES, body, 201)
    await sent(stored, "POST", ROUTES, {**ROUTE, "policy_packs": ["shape"]}, 201)
    assert stored.config().workspaces["default"].unusable == {}
    await refused(stored, "PATCH", f"{POLICIES}/shape", {"status": "active"}, "#")


async def test_what_is_stored_all_the_same_is_told_and_serves_nobody(stored: World) -> None:
    await sent(stored, "POST", POLICIES, {"id": "shape", "rules": [SHAPED]}, 201)
    await sent(stored, "POST", POLICIES, {"id": "other", "rules": [WORD]}, 201)
    body = body_of({**ROUTE, "policy_packs": ["shape"]}, 1, 1)
    await stored.store.commit("default", Batch("cm-1", (Put("route", "r", body, ABSENT),)))
    await stored.apply()
    why = f"policy pack shape {WHY}"
    assert stored.config().workspaces["default"].unusable == {"r": why}
    for path, pointer in ((f"{ROUTES}/r", "#/policy_packs/0"), (f"{POLICIES}/shape", "#/rules/0")):
        (warning,) = (await stored.get(path)).doc["warnings"]
        assert (warning["code"], warning["pointer"]) == ("kind_not_possible", pointer)
    await sent(stored, "PATCH", f"{POLICIES}/other", {"description": "goes on"}, 200)
    await sent(stored, "PATCH", f"{ROUTES}/r", {"stream_recovery": "off"}, 200)
    assert stored.config().workspaces["default"].unusable == {}


async def test_a_route_of_the_file_is_looked_at_too(stored: World) -> None:
    body = {"id": "shape", "rules": [SHAPED], "route_ids": ["prod-chat"]}
    answer = await stored.call("POST", POLICIES, body, headers=ADMIN)
    assert (answer.status, answer.doc["errors"][0]["route_id"]) == (422, "prod-chat")


async def test_a_pack_of_another_version_of_the_program_holds_up_no_route(stored: World) -> None:
    body = body_of({"policy_pack_id": "old", "version": "1.0.0", "rules": "gone"}, 1, 1)
    await stored.store.commit("default", Batch("cm-1", (Put("policy", "old", body, ABSENT),)))
    await sent(stored, "POST", ROUTES, {**ROUTE, "policy_packs": ["old"]}, 201)
    await sent(stored, "GET", f"{ROUTES}/r", None, 200)
