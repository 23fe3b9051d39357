"""Workspaces over the API (control-api.md §12.1)."""

import asyncio
from typing import Any

import pytest

from proxy.model.batch import Batch, OutboxPut
from tests.control.world import World, bearer, running

ALL = "/v1/workspaces"
TEAM: dict[str, Any] = {"name": "Team Blue"}


async def made(world: World, body: dict[str, Any]) -> dict[str, Any]:
    answer = await world.post(ALL, body)
    assert answer.status == 201, answer.body
    doc: dict[str, Any] = answer.doc
    return doc


async def test_a_workspace_is_there_when_it_is_answered(stored: World) -> None:
    doc = await made(stored, TEAM)
    assert (doc["id"], doc["settings"]["timezone"]) == ("team-blue", "UTC")
    own = f"{ALL}/team-blue"
    assert (await stored.get(f"{own}/events")).status == 200
    endpoint = {"id": "e", "provider": "openai"}
    assert (await stored.post(f"{own}/endpoints", endpoint)).status == 201
    assert [each.id for each in stored.config().workspaces["team-blue"].endpoints] == ["e"]
    again = await stored.post(ALL, TEAM)
    assert (again.status, again.slug) == (409, "already-exists")
    taken = await stored.post(ALL, {"name": "default"})
    assert (taken.status, taken.slug) == (409, "already-exists")


async def test_settings_are_changed_member_by_member(stored: World) -> None:
    await made(stored, TEAM)
    path = f"{ALL}/team-blue"
    put = await stored.call("PUT", path, {"settings": {"timezone": "Europe/Berlin"}})
    assert (put.doc["name"], put.doc["settings"]["timezone"]) == ("Team Blue", "Europe/Berlin")
    patched = await stored.call("PATCH", path, {"settings": {"digest": {"period": "daily"}}})
    assert patched.doc["settings"]["digest"] == {"period": "daily", "hour": 8, "targets": []}
    assert patched.doc["settings"]["timezone"] == "Europe/Berlin"
    targets = {"settings": {"default_delivery_targets": ["nobody"]}, "default_route": "r"}
    warned = await stored.call("PUT", path, targets)
    assert [each["pointer"] for each in warned.doc["warnings"]] == [
        "#/default_route", "#/settings/default_delivery_targets/0"
    ]  # fmt: skip
    assert stored.config().workspaces["team-blue"].default_route == "r"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "id"),
        ({"name": "x", "id": "A"}, "id"),
        ({"name": "x" * 101}, "name"),
        ({"name": "x", "settings": {"timezone": "Mars/Base"}}, "settings.timezone"),
        ({"name": "x", "settings": {"digest": {"hour": 24}}}, "settings.digest.hour"),
        ({"name": "x", "routes": []}, "routes"),
    ],
)
async def test_what_a_workspace_may_not_say(world: World, body: dict[str, Any], field: str) -> None:
    answer = await world.post(ALL, body)
    assert answer.status == 422
    assert field in [error["field"] for error in answer.doc["errors"]]


async def test_only_an_empty_workspace_goes_unless_all_of_it_shall(stored: World) -> None:
    await made(stored, TEAM)
    own = f"{ALL}/team-blue"
    await stored.post(f"{own}/policies", {"id": "p", "rules": []})
    await stored.post(f"{own}/routes", {"id": "r", "endpoint": "e"})
    refused = await stored.call("DELETE", own)
    assert (refused.status, refused.slug) == (409, "in-use")
    assert refused.doc["referenced_by"] == ["route/r", "policy/p"]
    assert (await stored.call("DELETE", f"{own}?cascade=true")).status == 204
    assert (await stored.get(own)).status == 404
    for kind in ("route", "policy", "policy_version"):
        assert list(await stored.store.scan("team-blue", kind)) == []
    namesake = await stored.post(ALL, TEAM)  # its audit is still kept: nobody inherits it
    assert (namesake.status, namesake.slug) == (409, "conflict")


async def test_what_a_workspace_had_to_send_goes_with_it(stored: World) -> None:
    """Claimed or not; and it keeps nobody from removing the workspace."""
    await made(stored, TEAM)
    posts = [OutboxPut("ops", "g", "alert", b"{}", 0) for _ in range(501)]
    await stored.store.commit("team-blue", Batch("cm-1", tuple(posts)))
    await stored.store.commit("default", Batch("cm-2", tuple(posts[:1])))
    await stored.store.claim("team-blue", "n", lease_ms=60_000)
    assert (await stored.call("DELETE", f"{ALL}/team-blue")).status == 204
    assert list(await stored.store.outbox("team-blue")) == []
    assert len(await stored.store.outbox("default")) == 1


async def test_no_key_outlives_the_workspaces_that_it_opens(stored: World) -> None:
    await made(stored, TEAM)
    key = {"name": "k", "role": "admin", "workspaces": ["team-blue"]}
    only = (await stored.post("/v1/keys", key)).doc
    both = (await stored.post("/v1/keys", {**key, "workspaces": ["team-blue", "default"]})).doc
    own = f"{ALL}/team-blue"
    refused = await stored.call("DELETE", own)
    assert sorted(refused.doc["referenced_by"]) == sorted(
        [f"key/{only['key_id']}", f"key/{both['key_id']}"]
    )
    assert (await stored.call("DELETE", f"{own}?cascade=true")).status == 204
    assert (await stored.get(f"/v1/keys/{only['key_id']}")).doc["status"] == "revoked"
    assert (await stored.get(f"/v1/keys/{both['key_id']}")).doc["workspaces"] == ["default"]
    named = {"Authorization": f"Bearer {only['key']}"}
    assert (await stored.get(f"{ALL}/default/events", named)).status == 401


async def test_the_default_always_exists_and_can_be_written() -> None:
    async with running(workspaces=()) as world:
        await world.apply()
        own = f"{ALL}/default"
        doc = (await world.get(own)).doc
        assert (doc["revision"], doc["origin"]) == (0, "api")
        put = await world.call("PUT", own, {"name": "Main", "default_route": None})
        assert (put.status, put.doc["name"], put.doc["revision"]) == (200, "Main", 1)
        assert [each["name"] for each in (await world.get(ALL)).doc["data"]] == ["Main"]
        removed = await world.call("DELETE", own)
        assert (removed.status, removed.slug) == (409, "conflict")


async def test_a_workspace_of_the_file_lives_there(world: World) -> None:
    own = f"{ALL}/other"
    answer = await world.call("PATCH", own, {"name": "x"})
    assert (answer.status, answer.doc["location"]) == (409, "parapet.yaml#/other")
    assert (await world.call("DELETE", own)).slug == "managed-by-file"


async def test_only_who_administers_the_server_makes_and_removes(world: World) -> None:
    admin = bearer("admin0000000")
    for answer in (
        await world.post(ALL, TEAM, admin),
        await world.call("DELETE", f"{ALL}/default", headers=admin),
    ):
        assert (answer.status, answer.doc["reason"]) == (403, "role_restriction")


async def test_what_is_written_while_a_workspace_is_removed_goes_with_it(stored: World) -> None:
    """Each writer makes documents until he hears that the workspace is not there any more."""
    await made(stored, TEAM)
    own = f"{ALL}/team-blue"
    rules = [{"rule_id": "word", "pattern": "forbidden", "action": "log"}]

    async def writes(writer: int) -> None:
        for count in range(40):
            name = f"p{writer}-{count}"
            answer = await stored.post(f"{own}/policies", {"id": name, "rules": rules})
            if answer.status == 404:
                return
            assert answer.status == 201, answer.body

    writers = asyncio.gather(*(writes(writer) for writer in range(6)))
    await asyncio.sleep(0.05)
    assert (await stored.call("DELETE", f"{own}?cascade=true")).status == 204
    await writers
    for kind in ("policy", "policy_version"):
        assert [name for name, _, _ in await stored.store.scan("team-blue", kind)] == []
