"""Delivery targets over the API (T-DEL-01 to 05, control-api.md §9, alerts.md §7)."""

from typing import Any

import pytest

from proxy.control.audit import AUDIT_LOG
from proxy.model.batch import LogFilter
from tests.control.world import ADMIN, World, bearer, running

TARGETS = "/v1/workspaces/default/deliveries"
URL = "https://hooks.slack.com/services/T000/B000/verysecretpart"
SLACK: dict[str, Any] = {
    "name": "Slack DevOps",
    "type": "slack",
    "config": {"webhook_url": URL, "channel": "#devops-alerts"},
    "default_severity": "high",
}
HOOK: dict[str, Any] = {
    "name": "hook",
    "type": "webhook",
    "config": {"url": "https://example.com/in?token=abc", "headers": {"X-Auth": "hush"}},
}


OWN_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def hook(**config: Any) -> dict[str, Any]:
    return {"config": {"url": "https://example.com/in", **config}}


def mail(**smtp: Any) -> dict[str, Any]:
    return {"type": "email", "config": {"to": ["a@example.com"], "smtp": smtp}}


async def made(world: World, body: dict[str, Any]) -> dict[str, Any]:
    answer = await world.post(TARGETS, body)
    assert answer.status == 201, answer.body
    doc: dict[str, Any] = answer.doc
    return doc


async def said(world: World, doc_id: str) -> Any:
    """What the store holds."""
    row = await world.store.get("default", "delivery", doc_id)
    assert row is not None
    return row[1].decode()


async def test_t_del_01_the_seeds_target_gets_its_id_from_its_name(stored: World) -> None:
    seed = {**SLACK, "config": {"webhook_url": "https://hooks.slack.com/...", "channel": "#d"}}
    doc = await made(stored, seed)
    assert (doc["id"], doc["status"], doc["default_severity"]) == (
        "slack-devops", "unverified", "high"
    )  # fmt: skip
    again = await stored.post(TARGETS, seed)
    assert (again.status, again.slug, again.doc["existing"]) == (
        409, "already-exists", "slack-devops"
    )  # fmt: skip


async def test_t_del_02_put_changes_only_what_is_sent(stored: World) -> None:
    await made(stored, SLACK)
    answer = await stored.call("PUT", f"{TARGETS}/slack-devops", {"min_severity": "high"})
    assert (answer.status, answer.doc["min_severity"]) == (200, "high")
    assert answer.doc["config"]["channel"] == "#devops-alerts"
    assert URL in await said(stored, "slack-devops")


async def test_t_del_03_secrets_are_written_and_never_read(stored: World) -> None:
    doc = await made(stored, SLACK)
    assert doc["config"]["webhook_url"] == "https://hooks.slack.com/***"
    assert len(doc["config"]["webhook_url_fingerprint"]) == 8
    path = f"{TARGETS}/slack-devops"
    for answer in (await stored.get(path), await stored.get(TARGETS)):
        assert b"verysecret" not in answer.body
    doc = (await stored.get(path)).doc
    kept = await stored.call("PUT", path, {**doc, "name": "Renamed"})
    assert (kept.status, kept.doc["name"]) == (200, "Renamed")
    assert URL in await said(stored, "slack-devops")
    same = await stored.call(
        "PATCH", path, {"config": {"webhook_url": doc["config"]["webhook_url"]}}
    )
    assert (same.status, same.doc["revision"]) == (200, kept.doc["revision"])
    new = await stored.call("PATCH", path, {"config": {"webhook_url": "https://hooks.slack.com/x"}})
    assert new.doc["config"]["webhook_url_fingerprint"] != doc["config"]["webhook_url_fingerprint"]
    page = await stored.store.range("default", AUDIT_LOG, LogFilter())
    assert page.total == 3
    assert all(b"verysecret" not in entry.body for entry in page.entries)
    changes = (await stored.get("/v1/workspaces/default/audit?limit=1")).doc["data"][0]["changes"]
    assert {each["path"] for each in changes} == {"/config/webhook_url_fingerprint"}


async def test_a_generated_secret_is_shown_once(stored: World) -> None:
    key = {**ADMIN, "Idempotency-Key": "k"}
    first, second = [await stored.post(TARGETS, HOOK, key) for _ in range(2)]
    secret = first.doc["config"]["secret"]
    assert secret.startswith("whsec_")
    assert secret in await said(stored, "hook")
    assert second.doc["config"]["secret"] == "***"
    assert second.doc["warnings"][-1]["code"] == "secret_shown_once"
    assert secret not in second.body.decode()
    assert (await stored.get(f"{TARGETS}/hook")).doc["config"]["secret"] == "***"
    own = await made(
        stored, {**HOOK, "name": "own", "config": {**HOOK["config"], "secret": OWN_SECRET}}
    )
    assert own["config"]["secret"] == "***"
    assert own["config"]["headers"]["X-Auth"] == "***"


async def test_no_header_is_shown_whatever_its_name(stored: World) -> None:
    headers = {"X-Auth": "hush", "X-Auth_fingerprint": "hush too"}
    doc = await made(stored, {**HOOK, "config": {**HOOK["config"], "headers": headers}})
    assert doc["config"]["headers"] == {"X-Auth": "***", "X-Auth_fingerprint": "***"}
    doc = (await stored.get(f"{TARGETS}/hook")).doc
    same = await stored.call("PUT", f"{TARGETS}/hook", doc)
    assert (same.status, same.doc["revision"]) == (200, 1)
    assert "hush too" in await said(stored, "hook")


async def test_references_are_shown_and_fenced(stored: World) -> None:
    env = {"$env": "PARAPET_SECRET_SLACK"}
    doc = await made(stored, {**SLACK, "config": {"webhook_url": env}})
    assert doc["config"]["webhook_url"] == env
    await made(stored, {**SLACK, "name": "f", "config": {"webhook_url": {"$file": "slack"}}})
    for reference in (
        {"$env": "AWS_SECRET_ACCESS_KEY"}, {"$env": "PATH"}, {"$file": "/etc/passwd"},
        {"$file": "../admin.key"}, {"$file": "a/../../b"},
    ):  # fmt: skip
        answer = await stored.post(TARGETS, {**SLACK, "config": {"webhook_url": reference}})
        assert answer.status == 422
        assert answer.codes() == [("config.webhook_url", "forbidden_reference")], reference
        headers = {**HOOK["config"], "headers": {"X": reference}}
        answer = await stored.post(TARGETS, {**HOOK, "config": headers})
        assert answer.codes() == [("config.headers.X", "forbidden_reference")], reference


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://example.com/", "invalid_value"),
        ("ftp://example.com/", "invalid_value"),
        ("example.com", "invalid_value"),
        ("https://", "invalid_value"),
        ("https://[::1", "invalid_value"),
        ("https://127.0.0.1/", "blocked_address"),
        ("https://127.1/", "blocked_address"),
        ("https://2130706433/", "blocked_address"),
        ("https://0x7f000001/", "blocked_address"),
        ("https://169.254.169.254/latest", "blocked_address"),
        ("https://[::ffff:10.0.0.1]/", "blocked_address"),
        ("https://user@example.com/", "blocked_address"),
        ("https://127.0.0.1./", "blocked_address"),
        ("https://example.com:99999/", "invalid_value"),
        ("https://exam\nple.com/", "invalid_value"),
        ("https://hooks.slack.com/***", "masked_secret"),
    ],
)
async def test_addresses_that_nothing_is_sent_to(world: World, url: str, code: str) -> None:
    answer = await world.post(TARGETS, {**HOOK, "config": {"url": url}})
    assert answer.status == 422
    assert ("config.url", code) in answer.codes()


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"type": "carrier-pigeon"}, "", "unknown_value"),
        ({"type": None}, "", "missing"),
        ({"name": "***"}, "name", "pattern"),
        ({"config": {"url": "https://e.com", "headers": {"Host": "x"}}},
         "config.headers.Host", "forbidden_header"),
        ({"config": {"url": "https://e.com", "headers": {"Webhook-Id": "x"}}},
         "config.headers.Webhook-Id", "forbidden_header"),
        ({"config": {"url": "https://e.com", "timeout_seconds": 99}},
         "config.timeout_seconds", "less_than_equal"),
        ({"config": {}}, "config.url", "missing"),
        (hook(headers={"X-A": "a\nX-B: c"}), "config.headers.X-A", "pattern"),
        (hook(headers={"X-A": ""}), "config.headers.X-A", "too_short"),
        (hook(headers={"X-A\nB: c": "a"}), "config.headers.X-A\nB: c", "pattern"),
        (hook(headers={"": "x"}), "config.headers.", "pattern"),
        (hook(secret="x"), "config.secret", "invalid_value"),
        (hook(secret="whsec_!!!"), "config.secret", "invalid_value"),
        (hook(secret="whsec_" + "A" * 28), "config.secret", "invalid_value"),
        (hook(secret="whsec_" + "A" * 88), "config.secret", "invalid_value"),
        (mail(host="a.example", **{"from": "x\nBcc: a@b"}), "config.smtp.from", "pattern"),
        (mail(host="127.0.0.1"), "config.smtp.host", "blocked_address"),
        (mail(host="169.254.169.254"), "config.smtp.host", "blocked_address"),
        (mail(host="a.example X"), "config.smtp.host", "pattern"),
    ],
)  # fmt: skip
async def test_what_a_target_cannot_be(
    world: World, change: dict[str, Any], field: str, code: str
) -> None:
    body = {name: value for name, value in {**HOOK, **change}.items() if value is not None}
    answer = await world.post(TARGETS, body)
    assert answer.status == 422
    assert (field, code) in answer.codes()


async def test_the_type_stays(world: World) -> None:
    await made(world, SLACK)
    email = {"type": "email", "config": {"to": ["a@example.com"]}}
    answer = await world.call("PUT", f"{TARGETS}/slack-devops", email)
    assert (answer.status, answer.codes()) == (422, [("type", "immutable")])


async def test_lists_are_narrowed_and_ordered(stored: World) -> None:
    await made(stored, SLACK)
    await made(stored, HOOK)
    for query, ids in (
        ("?sort=name", ["slack-devops", "hook"]), ("?type=webhook", ["hook"]),
        ("?status=verified", []), ("?sort=type:desc&status=unverified", ["hook", "slack-devops"]),
    ):  # fmt: skip
        assert [each["id"] for each in (await stored.get(TARGETS + query)).doc["data"]] == ids


async def test_t_del_05_delete_and_a_rule_that_named_it(stored: World) -> None:
    await made(stored, SLACK)
    rules = "/v1/workspaces/default/alert-rules"
    rule = {
        "name": "r",
        "condition": {"metric": "violations"},
        "delivery_targets": ["slack-devops"],
    }
    made_rule = await stored.post(rules, rule)
    assert "warnings" not in made_rule.doc
    assert (await stored.call("DELETE", f"{TARGETS}/slack-devops")).status == 204
    assert (await stored.call("DELETE", f"{TARGETS}/slack-devops")).status == 404
    warned = (await stored.get(f"{rules}/{made_rule.doc['id']}")).doc["warnings"]
    assert warned[0]["detail"] == "no delivery target 'slack-devops'"


async def test_who_may_and_what_is_not_there_yet(world: World) -> None:
    await made(world, SLACK)
    path = f"{TARGETS}/slack-devops"
    assert (await world.get(path, bearer("viewer000000"))).status == 200
    assert (await world.call("DELETE", path, headers=bearer("viewer000000"))).status == 403
    assert (await world.get(path, bearer("foreign00000"))).status == 403
    assert (await world.call("POST", path + "/verify")).slug == "not-implemented"


async def test_targets_of_the_file_are_shown_masked_and_are_read_only() -> None:
    filed = ("parapet.yaml#/workspaces/0/deliveries/0", {**SLACK, "id": "slack-devops"})
    async with running(declared={("default", "delivery"): [filed]}) as world:
        read = await world.get(f"{TARGETS}/slack-devops")
        assert (read.status, read.doc["origin"]) == (200, "file")
        assert b"verysecret" not in read.body
        changed = await world.call("PUT", f"{TARGETS}/slack-devops", {"min_severity": "low"})
        assert (changed.status, changed.doc["location"]) == (409, filed[0])
