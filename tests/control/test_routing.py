"""Routes and endpoints over the API: the same documents as in the file (control-api.md §12.7)."""

from typing import Any

import pytest

from tests.control.world import ADMIN, NOW, World, bearer

W = "/v1/workspaces/default"
ENDPOINTS, ROUTES = f"{W}/endpoints", f"{W}/routes"
BACKUP: dict[str, Any] = {"id": "backup", "provider": "openai", "api_key": "sk-verysecret-part"}
CHAT: dict[str, Any] = {"id": "chat", "endpoint": "backup", "match": {"models": ["gpt-*"]}}


async def made(world: World, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await world.post(path, body)
    assert answer.status == 201, answer.body
    doc: dict[str, Any] = answer.doc
    return doc


async def test_an_endpoint_shows_everything_but_its_credentials(stored: World) -> None:
    doc = await made(stored, ENDPOINTS, BACKUP)
    assert (doc["id"], doc["api_key"], len(doc["api_key_fingerprint"])) == ("backup", "***", 8)
    assert (doc["origin"], doc["revision"], doc["created_at"]) == ("api", 1, NOW)
    assert (doc["weight"], doc["allow_private"], doc["models"]) == (1, False, {})
    headers = {"extra_headers": {"X-Team": "alpha"}}
    changed = await stored.call("PATCH", f"{ENDPOINTS}/backup", headers)
    assert changed.doc["extra_headers"] == {"X-Team": "***"}
    again = await stored.call("PUT", f"{ENDPOINTS}/backup", changed.doc)
    assert (again.status, again.doc["revision"]) == (200, 2)
    row = await stored.store.get("default", "endpoint", "backup")
    assert row is not None
    assert b"sk-verysecret-part" in row[1]
    listed = await stored.get(ENDPOINTS)
    assert b"verysecret" not in listed.body


async def test_what_is_made_is_in_force_when_it_is_answered(stored: World) -> None:
    await made(stored, ENDPOINTS, BACKUP)
    route = await made(stored, ROUTES, CHAT)
    assert route["timeouts"]["first_content_ms"] == 10_000
    rules = stored.config().workspaces["default"]
    assert [each.id for each in rules.endpoints] == ["anthropic-claude", "backup"]
    assert [each.id for each in rules.routes] == ["prod-chat", "chat"]
    assert rules.unusable == {}
    gone = await stored.call("DELETE", f"{ROUTES}/chat")
    assert gone.status == 204
    assert [each.id for each in stored.config().workspaces["default"].routes] == ["prod-chat"]


async def test_a_route_may_name_what_is_not_there_and_serves_nobody_until_it_is(
    stored: World,
) -> None:
    route = await made(stored, ROUTES, {**CHAT, "policy_packs": ["mine@1.0.0", "secrets-core"]})
    assert [(each["pointer"], each["code"]) for each in route["warnings"]] == [
        ("#/endpoint", "unknown_reference"),
        ("#/policy_packs/0", "unknown_reference"),
    ]
    why = stored.config().workspaces["default"].unusable
    assert why == {"chat": "endpoint backup is not there"}
    await made(stored, ENDPOINTS, BACKUP)
    why = stored.config().workspaces["default"].unusable
    assert why == {"chat": "policy pack mine@1.0.0 is not there"}
    strict = {**ADMIN, "Prefer": "handling=strict"}
    refused = await stored.post(ROUTES, {**CHAT, "id": "b", "endpoint": "nowhere"}, strict)
    assert (refused.status, refused.slug) == (422, "unknown-reference")
    whole = await stored.call("PUT", f"{ROUTES}/chat", {"policy_packs": ["secrets-core"]})
    assert (whole.status, "warnings" in whole.doc) == (200, False)
    assert stored.config().workspaces["default"].unusable == {}


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"provider": "nobody"}, "provider", "unknown_value"),
        ({"provider": "vertex", "location": "eu"}, "project", "invalid_value"),
        ({"provider": "bedrock"}, "region", "invalid_value"),
        ({"base_url": "ftp://x"}, "base_url", "invalid_value"),
        ({"base_url": "http://127.0.0.1:1"}, "base_url", "invalid_value"),
        ({"base_url": "http://169.254.169.254/", "allow_private": True}, "base_url",
         "invalid_value"),
        ({"base_url": "http://[::ffff:169.254.169.254]", "allow_private": True}, "base_url",
         "invalid_value"),
        ({"base_url": "http://2852039166", "allow_private": True}, "base_url", "invalid_value"),
        ({"base_url": "http://2130706433"}, "base_url", "invalid_value"),
        ({"base_url": "http://0x7f.1"}, "base_url", "invalid_value"),
        ({"base_url": "http://127.0.0.1."}, "base_url", "invalid_value"),
        ({"base_url": "http://[64:ff9b::a9fe:a9fe]"}, "base_url", "invalid_value"),
        ({"provider": "vertex", "project": "p", "location": "evil.com/"}, "location", "pattern"),
        ({"provider": "vertex", "project": "p/../q", "location": "eu"}, "project", "pattern"),
        ({"api_key": {"$env": "PATH"}}, "api_key", "forbidden_reference"),
        ({"api_key": {"$file": "/etc/passwd"}}, "api_key", "forbidden_reference"),
        ({"ca_file": "/etc/passwd"}, "ca_file", "forbidden_reference"),
        ({"ca_file": "../server.key"}, "ca_file", "forbidden_reference"),
        ({"secret_access_key": "s"}, "access_key_id", "invalid_value"),
        ({"extra_headers": {"a b": "c"}}, "extra_headers.a b", "pattern"),
        ({"id": "A B"}, "id", "pattern"),
        ({"nonsense": 1}, "nonsense", "extra_forbidden"),
        ({"api_key": "sk-é-abcdef"}, "api_key", "invalid_value"),
        ({"api_key": "sk-a\nbcdef"}, "api_key", "invalid_value"),
    ],
)  # fmt: skip
async def test_what_an_endpoint_may_not_say(
    world: World, change: dict[str, Any], field: str, code: str
) -> None:
    answer = await world.post(ENDPOINTS, {**BACKUP, **change})
    assert answer.status == 422
    assert (field, code) in answer.codes()


async def test_only_an_administrator_opens_the_private_network(world: World) -> None:
    inside = {**BACKUP, "base_url": "http://10.0.0.1", "allow_private": True}
    writer = bearer("writer000000")
    refused = await world.post(ENDPOINTS, inside, writer)
    assert (refused.status, refused.doc["reason"]) == (403, "role_restriction")
    assert (await world.post(ENDPOINTS, inside)).status == 201
    kept = await world.call("PATCH", f"{ENDPOINTS}/backup", {"weight": 2}, writer)
    assert kept.status == 200
    aimed = {"base_url": "http://10.0.0.2", "api_key": "another-key"}
    moved = await world.call("PATCH", f"{ENDPOINTS}/backup", aimed, writer)
    assert (moved.status, moved.doc["reason"]) == (403, "role_restriction")


async def test_a_route_without_id_gets_it_from_its_name(world: World) -> None:
    doc = await made(world, ROUTES, {"name": "Prod Summary", "endpoint": "anthropic-claude"})
    assert doc["id"] == "prod-summary"
    answer = await world.post(ROUTES, {"endpoint": "anthropic-claude"})
    assert (answer.status, answer.codes()) == (422, [("id", "missing")])


async def test_the_exposure_of_a_route_has_the_words_of_the_contract(world: World) -> None:
    exposure = {"daily_requests": 15_000, "affected_users": 5000, "revenue_impact": "$1200/day"}
    route = {"id": "sold", "endpoint": "anthropic-claude", "exposure": exposure}
    await made(world, ROUTES, route)
    answer = await world.get(f"{ROUTES}/sold/exposure")
    assert answer.doc == {
        "route_id": "sold", "provider": "anthropic", **exposure, "measured": False,
        "basis": "declared",
    }  # fmt: skip
    assert (await world.get(f"{ROUTES}/nobody/exposure")).status == 404


async def test_the_health_of_an_endpoint_no_policy_names(world: World) -> None:
    await made(world, ENDPOINTS, BACKUP)
    answer = await world.get(f"{ENDPOINTS}/backup/health")
    assert answer.doc == {"endpoint_id": "backup", "policies": []}


async def test_lists_are_filtered_and_sorted(world: World) -> None:
    for name, provider in (("b", "openai"), ("a", "gemini"), ("c", "openai")):
        await made(world, ENDPOINTS, {"id": name, "provider": provider})
    listed = await world.get(f"{ENDPOINTS}?provider=openai&sort=id:desc")
    assert [each["id"] for each in listed.doc["data"]] == ["c", "b"]
    await made(world, ROUTES, CHAT)
    listed = await world.get(f"{ROUTES}?endpoint=backup")
    assert [each["id"] for each in listed.doc["data"]] == ["chat"]


async def test_a_kept_credential_does_not_follow_its_endpoint_to_another_host(
    world: World,
) -> None:
    """SECURITY: else whoever may write endpoints could have the key sent to himself."""
    await made(world, ENDPOINTS, {**BACKUP, "base_url": "https://one.example.com/v1"})
    path = f"{ENDPOINTS}/backup"
    doc = (await world.get(path)).doc
    for change in ({"base_url": "https://two.example.com/v1"}, {"provider": "gemini"}):
        for body in (change, {**doc, **change}):
            answer = await world.call("PUT", path, body)
            assert (answer.status, answer.codes()) == (422, [("api_key", "masked_secret")])
    same = await world.call("PATCH", path, {"base_url": "https://one.example.com/v2"})
    assert same.status == 200
    again = {"base_url": "https://two.example.com/v1", "api_key": "sk-verysecret-part"}
    assert (await world.call("PATCH", path, again)).status == 200


async def test_the_location_of_an_endpoint_is_the_providers(world: World) -> None:
    vertex = {"id": "v", "provider": "vertex", "project": "p", "location": "europe-west1"}
    assert (await made(world, ENDPOINTS, vertex))["location"] == "europe-west1"
    of_file = (await world.get(f"{ENDPOINTS}/anthropic-claude")).doc
    assert (of_file["origin"], of_file["location"]) == ("file", None)
