"""Secrets of delivery targets: rotated, never sent elsewhere, and targets that are in use."""

from typing import Any

import pytest

from proxy.control.audit import AUDIT_LOG
from proxy.model.batch import LogFilter
from proxy.settings.schema import Control
from proxy.wire import jsonbody
from tests.control.found import START_MS
from tests.control.world import ADMIN, World, bearer, running

MINE, NEW = (f"whsec_{letter * 44}" for letter in "AB")
TARGETS = "/v1/workspaces/default/deliveries"
RULES = "/v1/workspaces/default/alert-rules"
DAY_MS = 86_400_000
CONFIG: dict[str, Any] = {
    "url": "https://example.com/in?token=abc", "secret": MINE, "headers": {"X-Auth": "hush"},
}  # fmt: skip
MAIL: dict[str, Any] = {
    "to": ["a@example.com"], "smtp": {"host": "mail.example.com", "password": "pw"},
}  # fmt: skip


async def target(world: World, kind: str, config: dict[str, Any]) -> str:
    answer = await world.post(TARGETS, {"name": "t", "type": kind, "config": config})
    assert answer.status == 201, answer.body
    return f"{TARGETS}/t"


async def held(world: World) -> dict[str, Any]:
    row = await world.store.get("default", "delivery", "t")
    assert row is not None
    found = jsonbody.loads(row[1])
    assert isinstance(found, dict)
    return found


ELSEWHERE = "https://evil.example/in"
# fmt: off
REDIRECTS = [
    # method   config that is sent                                          refused
    ("PUT",   {"url": ELSEWHERE, "secret": "***", "headers": {"X-Auth": "***"}},
     [("config.secret", "#/config/secret"), ("config.headers.X-Auth", "#/config/headers/X-Auth")]),
    ("PUT",   {"url": ELSEWHERE, "secret": NEW, "headers": {"X-Auth": "***"}},
     [("config.headers.X-Auth", "#/config/headers/X-Auth")]),
    ("PATCH", {"url": ELSEWHERE},
     [("config.secret", "#/config/url"), ("config.headers.X-Auth", "#/config/url")]),
    ("PATCH", {"url": "https://example.com:8443/in"},
     [("config.secret", "#/config/url"), ("config.headers.X-Auth", "#/config/url")]),
    ("PATCH", {"url": {"$env": "PARAPET_SECRET_URL"}, "headers": None},
     [("config.secret", "#/config/url")]),
    ("PATCH", {"url": "https://example.com/other"},              []),
    ("PATCH", {"url": "https://EXAMPLE.com/other"},              []),
    ("PATCH", {"url": "https://example.com:443/other"},          []),
    ("PATCH", {"url": ELSEWHERE, "secret": MINE, "headers": {"X-Auth": "hush"}}, []),
    ("PATCH", {"url": ELSEWHERE, "secret": NEW, "headers": None}, []),
    ("PUT",   {"url": ELSEWHERE, "secret": NEW},               []),
    ("PUT",   {"url": ELSEWHERE, "secret": {"$env": "PARAPET_SECRET_X"}}, []),
]
# fmt: on


@pytest.mark.parametrize(("method", "config", "refused"), REDIRECTS)
async def test_a_kept_secret_does_not_go_to_another_host(
    stored: World, method: str, config: dict[str, Any], refused: list[tuple[str, str]]
) -> None:
    path = await target(stored, "webhook", CONFIG)
    before = await held(stored)
    answer = await stored.call(method, path, {"config": config})
    if not refused:
        assert answer.status == 200, answer.body
        return
    assert answer.status == 422
    told = [(error["field"], error["pointer"]) for error in answer.doc["errors"]]
    assert told == refused
    assert {error["code"] for error in answer.doc["errors"]} == {"masked_secret"}
    assert b"hush" not in answer.body
    assert await held(stored) == before


async def test_nor_does_a_password_to_another_mail_server(stored: World) -> None:
    path = await target(stored, "email", MAIL)
    smtp = {"host": "evil.example", "password": "***"}
    for method, config in (("PUT", {**MAIL, "smtp": smtp}),
                           ("PATCH", {"smtp": {"host": "evil.example"}})):  # fmt: skip
        answer = await stored.call(method, path, {"config": config})
        assert answer.codes() == [("config.smtp.password", "masked_secret")]
    same = await stored.call("PATCH", path, {"config": {"smtp": {"port": 465}}})
    assert same.status == 200
    sent = {"smtp": {"host": "other.example", "password": "new"}}
    assert (await stored.call("PATCH", path, {"config": sent})).status == 200


async def test_rotating_a_secret(stored: World) -> None:
    path = await target(stored, "webhook", CONFIG)
    key = {**ADMIN, "Idempotency-Key": "k"}
    first, second = [await stored.call("POST", path + "/rotate-secret", None, key) for _ in "12"]
    assert (first.status, first.headers["ETag"]) == (200, '"r2"')
    secret = first.doc["config"]["secret"]
    assert secret.startswith("whsec_")
    assert first.doc["previous_secret_expires_at"] == "2024-03-16T14:30:00Z"
    assert second.doc["config"]["secret"] == "***"
    assert second.doc["warnings"][-1]["code"] == "secret_shown_once"
    kept = await held(stored)
    assert kept["said"]["config"]["secret"] == secret
    assert kept["beside"] == {
        "previous_secret": MINE, "previous_secret_until": START_MS + DAY_MS,
    }  # fmt: skip
    read = await stored.get(path)
    for shown in (first.body, second.body, read.body):
        assert b'"mine"' not in shown
    assert secret.encode() not in second.body + read.body
    page = await stored.store.range("default", AUDIT_LOG, LogFilter())
    assert all(secret.encode() not in entry.body for entry in page.entries)
    assert b"delivery.rotate_secret" in page.entries[0].body
    renamed = await stored.call("PUT", path, {**read.doc, "name": "renamed"})
    assert renamed.status == 200, renamed.body
    assert (await held(stored))["beside"]["previous_secret"] == MINE
    again = await stored.call("POST", path + "/rotate-secret")
    assert again.doc["config"]["secret"] != secret
    assert (await held(stored))["beside"]["previous_secret"] == secret
    moved = {"config": {"url": ELSEWHERE, "secret": NEW, "headers": None}}
    assert (await stored.call("PATCH", path, moved)).status == 200
    assert "beside" not in await held(stored)


async def test_what_has_no_secret_to_rotate(stored: World) -> None:
    path = await target(stored, "email", MAIL)
    answer = await stored.call("POST", path + "/rotate-secret")
    assert (answer.status, answer.slug) == (409, "conflict")
    await stored.call("DELETE", path)
    path = await target(
        stored, "webhook", {"url": "https://e.com/", "secret": {"$env": "PARAPET_SECRET_X"}}
    )
    answer = await stored.call("POST", path + "/rotate-secret")
    assert (answer.status, answer.slug) == (409, "conflict")
    stale = {**ADMIN, "If-Match": '"r9"'}
    assert (await stored.call("POST", path + "/rotate-secret", None, stale)).status == 412
    viewer = bearer("viewer000000")
    assert (await stored.call("POST", path + "/rotate-secret", None, viewer)).status == 403
    assert (await stored.call("POST", f"{TARGETS}/none/rotate-secret")).status == 404


async def test_a_target_of_the_file_is_not_rotated() -> None:
    filed = ("parapet.yaml#/workspaces/0/deliveries/0",
             {"id": "t", "name": "t", "type": "webhook", "config": CONFIG})  # fmt: skip
    async with running(declared={("default", "delivery"): [filed]}) as world:
        answer = await world.call("POST", f"{TARGETS}/t/rotate-secret")
        assert (answer.status, answer.slug) == (409, "managed-by-file")
        assert (await world.get(f"{TARGETS}/t")).doc["previous_secret_expires_at"] is None


async def test_a_target_in_use_stays_when_references_are_strict(stored: World) -> None:
    path = await target(stored, "webhook", CONFIG)
    rule = {"name": "r", "condition": {"metric": "violations"}, "delivery_targets": ["x", "t"]}
    rule_id = (await stored.post(RULES, rule)).doc["id"]
    strict = {**ADMIN, "Prefer": "handling=strict"}
    answer = await stored.call("DELETE", path, headers=strict)
    assert (answer.status, answer.slug) == (409, "in-use")
    assert answer.doc["referenced_by"] == [
        {"type": "alert_rule", "id": rule_id, "pointer": "#/delivery_targets/1"}
    ]
    assert answer.headers["Preference-Applied"] == "handling=strict"
    assert (await stored.call("DELETE", f"{RULES}/{rule_id}")).status == 204
    assert (await stored.call("DELETE", path, headers=strict)).status == 204


async def test_a_rule_of_the_file_uses_it_too() -> None:
    rule = {"id": "r", "name": "r", "condition": {"metric": "violations"},
            "delivery_targets": ["t"]}  # fmt: skip
    filed = ("parapet.yaml#/workspaces/0/alert_rules/0", rule)
    strict = Control(references="strict")
    async with running(declared={("default", "alert_rule"): [filed]}, control=strict) as world:
        answer = await world.call("DELETE", await target(world, "webhook", CONFIG))
        assert (answer.status, answer.doc["referenced_by"][0]["id"]) == (409, "r")


async def test_names_that_look_alike_are_the_same(stored: World) -> None:
    rule = {"name": "caf\u00e9", "condition": {"metric": "violations"}}
    assert (await stored.post(RULES, rule)).status == 201
    answer = await stored.post(RULES, {**rule, "name": "cafe\u0301"})
    assert (answer.status, answer.slug) == (409, "already-exists")


async def test_a_kept_credential_does_not_follow_to_another_region(world: World) -> None:
    endpoints = "/v1/workspaces/default/endpoints"
    sent = {"id": "b", "provider": "bedrock", "region": "eu-west-1", "api_key": "bedrock-key"}
    assert (await world.post(endpoints, sent)).status == 201
    moved = await world.call("PATCH", f"{endpoints}/b", {"region": "us-east-1"})
    assert (moved.status, moved.codes()) == (422, [("api_key", "masked_secret")])
    told = {"region": "us-east-1", "api_key": "bedrock-key"}
    assert (await world.call("PATCH", f"{endpoints}/b", told)).status == 200


async def test_a_webhook_without_secret_gets_one(stored: World) -> None:
    path = await target(stored, "webhook", CONFIG)
    bare = await stored.call("PATCH", path, {"config": {"secret": None}})
    assert (bare.status, bare.doc["config"]["secret"]) == (200, None)
    answer = await stored.call("POST", path + "/rotate-secret")
    assert answer.status == 200
    assert answer.doc["config"]["secret"].startswith("whsec_")
    assert answer.doc["previous_secret_expires_at"] is None
    assert (await stored.get(path)).doc["config"]["secret"] == "***"
