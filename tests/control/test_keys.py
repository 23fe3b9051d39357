"""Keys over the API: shown once, never granted beyond the giver, revoked for good (T-IDM-09)."""

from typing import Any

import pytest

from tests.control.world import ADMIN, World, bearer, running

KEYS = "/v1/keys"
APP: dict[str, Any] = {"name": "checkout", "role": "app", "workspaces": ["default"]}
VIEWER: dict[str, Any] = {"name": "board", "role": "viewer", "workspaces": ["default"]}
EVENTS = "/v1/workspaces/default/events"


async def made(
    world: World, body: dict[str, Any], headers: dict[str, str] = ADMIN
) -> dict[str, Any]:
    answer = await world.post(KEYS, body, headers)
    assert answer.status == 201, answer.body
    doc: dict[str, Any] = answer.doc
    return doc


def by(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_key_is_shown_once_and_works_at_once(stored: World) -> None:
    again = {**ADMIN, "Idempotency-Key": "k"}
    doc = await made(stored, VIEWER, again)
    key = doc["key"]
    assert key.startswith(f"ppt_{doc['key_id']}_")
    assert (len(doc["key_id"]), len(key.rpartition("_")[2])) == (12, 40)
    assert (doc["status"], doc["origin"]) == ("active", "api")
    assert (await stored.get(EVENTS, by(key))).status == 200
    replayed = await stored.post(KEYS, VIEWER, again)
    assert (replayed.status, replayed.doc["key"]) == (201, "***")
    assert replayed.doc["warnings"][-1]["code"] == "secret_shown_once"
    secret = key.rpartition("_")[2].encode()
    for answer in (
        replayed,
        await stored.get(f"{KEYS}/{doc['key_id']}"),
        await stored.get(KEYS),
        await stored.get("/v1/audit"),
    ):
        assert secret not in answer.body
        assert b"sha256" not in answer.body
    row = await stored.store.get("_server", "key", doc["key_id"])
    assert row is not None
    assert secret not in row[1]


async def test_a_revoked_key_is_nobodys_and_stays_readable(stored: World) -> None:
    doc = await made(stored, VIEWER)
    path = f"{KEYS}/{doc['key_id']}"
    assert (await stored.call("DELETE", path)).status == 204
    assert (await stored.get(EVENTS, by(doc["key"]))).status == 401
    assert (await stored.call("DELETE", path)).status == 404
    shown = (await stored.get(path)).doc
    assert (shown["status"], shown["revoked_at"]) == ("revoked", "2024-03-15T14:30:00Z")
    listed = await stored.get(f"{KEYS}?status=revoked")
    assert [each["key_id"] for each in listed.doc["data"]] == [doc["key_id"]]
    assert (await stored.post(f"{path}/rotate", {})).status == 404


async def test_a_rotated_key_takes_its_old_secret_until_the_grace_is_over(stored: World) -> None:
    doc = await made(stored, VIEWER)
    path = f"{KEYS}/{doc['key_id']}/rotate"
    headers = {**ADMIN, "Idempotency-Key": "r"}
    first = await stored.post(path, {"grace_seconds": 60}, headers)
    assert first.status == 200, first.body
    new = first.doc["key"]
    assert first.doc["previous_expires_at"] == "2024-03-15T14:31:00Z"
    second = await stored.post(path, {"grace_seconds": 60}, headers)
    assert (second.doc["key"], second.headers["Idempotent-Replayed"]) == ("***", "true")
    for key in (new, doc["key"]):
        assert (await stored.get(EVENTS, by(key))).status == 200
    stored.clock.advance(60)
    assert (await stored.get(EVENTS, by(doc["key"]))).status == 401
    assert (await stored.get(EVENTS, by(new))).status == 200
    at_once = await stored.post(path, {"grace_seconds": 0})
    assert at_once.doc["previous_expires_at"] is None
    assert (await stored.get(EVENTS, by(new))).status == 401
    assert (await stored.get(EVENTS, by(at_once.doc["key"]))).status == 200


async def test_an_expired_key_says_so(stored: World) -> None:
    doc = await made(stored, {**VIEWER, "expires_at": "2024-03-15T15:30:00+01:00"})
    assert doc["status"] == "expired"
    assert (await stored.get(EVENTS, by(doc["key"]))).status == 401


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"role": None}, "role", "missing"),
        ({"role": "king"}, "role", "unknown_value"),
        ({"scopes": ["events:eat"]}, "scopes.0", "unknown_value"),
        ({"workspaces": []}, "workspaces", "too_short"),
        ({"workspaces": ["A B"]}, "workspaces.0", "pattern"),
        ({"expires_at": "tomorrow"}, "expires_at", "invalid_value"),
        ({"allowed_cidrs": ["10.0.0.0/99"]}, "allowed_cidrs.0", "invalid_value"),
        ({"limits": {"rpm": 0}}, "limits.rpm", "greater_than_equal"),
        ({"limits": {"tpm": 2**60}}, "limits.tpm", "invalid_value"),
        ({"limits": {"rps": 1}}, "limits.rps", "extra_forbidden"),
        ({"name": ""}, "name", "too_short"),
        ({"secret": "x"}, "secret", "extra_forbidden"),
    ],
)
async def test_what_a_key_may_not_say(
    world: World, change: dict[str, Any], field: str, code: str
) -> None:
    answer = await world.post(KEYS, {**APP, **change})
    assert answer.status == 422
    assert (field, code) in answer.codes()


async def test_a_key_keeps_its_limits(stored: World) -> None:
    limits = {"rpm": 60, "tpm": 9007199254740992, "concurrency": 5, "daily_cost_usd": 2.5}
    doc = await made(stored, {**APP, "limits": limits})
    path = f"{KEYS}/{doc['key_id']}"
    assert doc["limits"] == (await stored.get(path)).doc["limits"] == limits
    answer = await stored.call("PATCH", path, {"limits": {"rpm": 1}})
    assert answer.status == 200, answer.body
    assert (await stored.get(path)).doc["limits"]["rpm"] == 1


GRANTS = [
    ({"role": "admin", "workspaces": ["*"]}, "admin0000000"),  # all workspaces, bound to one
    ({"role": "viewer", "workspaces": ["other"]}, "admin0000000"),
    ({"role": "viewer", "workspaces": ["default", "other"]}, "admin0000000"),
    ({"role": "admin", "workspaces": ["default"]}, "keeper000000"),  # more scopes than its own
    ({"role": None, "scopes": ["policies:write"], "workspaces": ["default"]}, "keeper000000"),
    ({"role": "admin", "workspaces": ["*"]}, "everything00"),  # all scopes, and no administrator
]


@pytest.mark.parametrize(("grant", "giver"), GRANTS)
async def test_nobody_grants_what_he_does_not_have(
    world: World, grant: dict[str, Any], giver: str
) -> None:
    answer = await world.post(KEYS, {"name": "x", **grant}, bearer(giver))
    assert (answer.status, answer.doc["reason"]) == (403, "role_restriction")


async def test_nobody_changes_a_key_that_can_more_than_he_can(world: World) -> None:
    strong = await made(world, {"name": "s", "role": "operator", "workspaces": ["default"]})
    path = f"{KEYS}/{strong['key_id']}"
    keeper = bearer("keeper000000")
    for answer in (
        await world.call("PATCH", path, {"name": "mine"}, keeper),
        await world.post(f"{path}/rotate", {}, keeper),
        await world.call("DELETE", path, headers=keeper),
    ):
        assert (answer.status, answer.doc["reason"]) == (403, "role_restriction")


async def test_no_key_changes_itself(world: World) -> None:
    doc = await made(world, {"name": "a", "role": "admin", "workspaces": ["*"]})
    path, own = f"{KEYS}/{doc['key_id']}", by(doc["key"])
    for answer in (
        await world.call("PATCH", path, {"name": "b"}, own),
        await world.post(f"{path}/rotate", {}, own),
        await world.call("DELETE", path, headers=own),
    ):
        assert (answer.status, answer.doc["reason"]) == (403, "role_restriction")


async def test_of_the_keys_of_others_nobody_learns(world: World) -> None:
    there = await made(world, {**VIEWER, "workspaces": ["other"]})
    here = await made(world, VIEWER)
    admin = bearer("admin0000000")
    assert (await world.get(f"{KEYS}/{there['key_id']}", admin)).status == 404
    listed = await world.get(f"{KEYS}?limit=100", admin)
    ids = [each["key_id"] for each in listed.doc["data"]]
    assert here["key_id"] in ids
    assert there["key_id"] not in ids
    assert "root00000000" not in ids


async def test_keys_of_the_file_are_shown_and_not_changed(world: World) -> None:
    path = f"{KEYS}/viewer000000"
    doc = (await world.get(path)).doc
    assert (doc["origin"], doc["role"], doc["workspaces"]) == ("file", "viewer", ["default"])
    assert "sha256" not in str(doc)
    for answer in (
        await world.call("PATCH", path, {"name": "x"}),
        await world.post(f"{path}/rotate", {}),
        await world.call("DELETE", path),
    ):
        assert (answer.status, answer.slug) == (409, "managed-by-file")


async def test_the_last_administrator_stays() -> None:
    async with running(workspaces=()) as world:
        await world.apply()
        body = {"name": "a", "role": "admin", "workspaces": ["*"]}
        first, second = await made(world, body), await made(world, body)
        assert (await world.call("DELETE", f"{KEYS}/{first['key_id']}")).status == 204
        answer = await world.call("DELETE", f"{KEYS}/{second['key_id']}")
        assert (answer.status, answer.slug) == (409, "conflict")


ADMINISTRATOR: dict[str, Any] = {"name": "a", "role": "admin", "workspaces": ["*"]}
LESS = (
    {"role": "operator"},
    {"role": None, "scopes": ["keys:read", "keys:write"]},
    {"workspaces": ["default"]},
    {"expires_at": "2024-03-15T14:30:00Z"},
    {"expires_at": "2030-01-01T00:00:00Z"},
)
NO_LESS = (
    {"name": "b"},
    {"scopes": ["events:read"]},
    {"workspaces": ["*", "default"]},
    {"allowed_cidrs": ["10.0.0.0/8"]},
)


async def test_the_last_administrator_remains_one() -> None:
    async with running(workspaces=()) as world:
        await world.apply()
        path = f"{KEYS}/{(await made(world, ADMINISTRATOR))['key_id']}"
        for change in LESS:
            answer = await world.call("PATCH", path, change)
            assert (answer.status, answer.slug) == (409, "conflict"), change
        stale = {**ADMIN, "If-Match": '"r9"'}
        assert (await world.call("PATCH", path, LESS[0], stale)).status == 412
        for change in NO_LESS:
            assert (await world.call("PATCH", path, change)).status == 200, change
        await made(world, {**ADMINISTRATOR, "expires_at": "2024-03-15T14:31:00Z"})
        assert (await world.call("PATCH", path, LESS[0])).status == 200


async def test_an_expiry_of_the_last_administrator_is_only_put_off() -> None:
    async with running(workspaces=()) as world:
        await world.apply()
        body = {**ADMINISTRATOR, "expires_at": "2024-04-01T00:00:00Z"}
        path = f"{KEYS}/{(await made(world, body))['key_id']}"
        for at, status in (("2024-03-31T00:00:00Z", 409), ("2024-05-01T00:00:00Z", 200)):
            assert (await world.call("PATCH", path, {"expires_at": at})).status == status
        world.clock.advance(90 * 86_400)  # it has expired, and is nobody's last key any more
        assert (await world.call("PATCH", path, LESS[0])).status == 200


@pytest.mark.parametrize("change", LESS)
async def test_an_administrator_of_the_file_is_another_one(
    world: World, change: dict[str, Any]
) -> None:
    path = f"{KEYS}/{(await made(world, ADMINISTRATOR))['key_id']}"
    assert (await world.call("PATCH", path, change)).status == 200


async def test_a_changed_key_is_in_force_at_once(stored: World) -> None:
    doc = await made(stored, VIEWER)
    path = f"{KEYS}/{doc['key_id']}"
    patched = await stored.call("PATCH", path, {"allowed_cidrs": ["10.0.0.0/8"]})
    assert (patched.status, patched.doc["revision"]) == (200, 2)
    refused = await stored.get(EVENTS, by(doc["key"]))
    assert (refused.status, refused.doc["reason"]) == (403, "ip_not_allowed")
    rows = (await stored.get("/v1/audit")).doc["data"]
    assert [row["action"] for row in rows if row["outcome"] == "success"] == [
        "key.update", "key.create"
    ]  # fmt: skip


async def test_no_tenant_meets_the_replies_of_another(stored: World) -> None:
    """T-IDM-08, for what belongs to no workspace."""
    ours, theirs = bearer("admin0000000"), bearer("foreign00000")
    key = {"Idempotency-Key": "1"}
    here = await stored.post(KEYS, VIEWER, {**ours, **key})
    there = await stored.post(KEYS, {**VIEWER, "workspaces": ["other"]}, {**theirs, **key})
    assert (here.status, there.status) == (201, 201)
    path = f"{KEYS}/{there.doc['key_id']}/rotate"
    foreign = await stored.post(path, {}, {**ours, "Idempotency-Key": "2"})
    own = await stored.post(path, {}, {**theirs, "Idempotency-Key": "2"})
    assert (foreign.status, own.status) == (404, 200)
    again = await stored.post(path, {}, {**theirs, "Idempotency-Key": "2"})
    assert (again.doc["key"], again.headers["ETag"]) == ("***", own.headers["ETag"])


async def test_a_key_for_what_is_not_there_is_made_with_a_warning(stored: World) -> None:
    body = {"name": "k", "role": "app", "workspaces": ["default", "future"], "route": "nope"}
    made = await stored.post(KEYS, body)
    assert made.status == 201
    pointers = [each["pointer"] for each in made.doc["warnings"]]
    assert pointers[:2] == ["#/workspaces/1", "#/route"]
    strict = {**ADMIN, "Prefer": "handling=strict"}
    refused = await stored.post(KEYS, body, strict)
    assert (refused.status, refused.slug) == (422, "unknown-reference")
    assert [each["pointer"] for each in refused.doc["errors"]] == ["#/workspaces/1", "#/route"]
    for workspaces in (["default"], ["other", "default"], ["*"]):
        known = {**body, "workspaces": workspaces, "route": "prod-chat"}
        assert (await stored.post(KEYS, known, strict)).status == 201, workspaces
