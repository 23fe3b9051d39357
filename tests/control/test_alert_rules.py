"""Alert rules over the API, and with them all documents (T-ALR-01 to 04, control-api.md §8)."""

import asyncio
from typing import Any

import pytest

from proxy.control.audit import AUDIT_LOG
from proxy.model.batch import LogFilter
from proxy.settings.schema import Control
from proxy.storage.chain import row_hash
from proxy.wire import jsonbody
from tests.control.world import ADMIN, World, bearer, running

RULES = "/v1/workspaces/default/alert-rules"
SEED: dict[str, Any] = {
    "name": "High Latency",
    "condition": {"metric": "latency", "threshold_ms": 3000, "window_seconds": 300},
    "delivery_targets": ["slack-devops", "email-oncall"],
    "severity": "high",
}


def rule(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "condition": {"metric": "violations"}, **more}


async def made(world: World, body: dict[str, Any]) -> dict[str, Any]:
    answer = await world.post(RULES, body)
    assert answer.status == 201, answer.body
    doc: dict[str, Any] = answer.doc
    return doc


async def test_t_alr_01_the_seeds_rule_is_made_and_comes_back(stored: World) -> None:
    answer = await stored.post(RULES, SEED)
    assert answer.status == 201
    rule_id = answer.doc["id"]
    assert answer.headers["Location"] == f"{RULES}/{rule_id}"
    assert answer.headers["ETag"] == '"r1"'
    assert {name: answer.doc[name] for name in ("name", "delivery_targets", "severity")} == {
        name: SEED[name] for name in ("name", "delivery_targets", "severity")
    }
    assert answer.doc["condition"].items() >= SEED["condition"].items()
    assert (answer.doc["status"], answer.doc["origin"], answer.doc["revision"]) == (
        "active", "api", 1
    )  # fmt: skip
    again = await stored.get(f"{RULES}/{rule_id}")
    assert (again.status, again.doc) == (200, answer.doc)


async def test_t_alr_02_targets_that_are_not_there_are_warned_of_or_refused(stored: World) -> None:
    warnings = (await made(stored, SEED))["warnings"]
    assert [(each["pointer"], each["code"]) for each in warnings] == [
        ("#/delivery_targets/0", "unknown_reference"),
        ("#/delivery_targets/1", "unknown_reference"),
    ]
    strict = await stored.post(
        RULES, {**SEED, "name": "other"}, {**ADMIN, "Prefer": "handling=strict"}
    )
    assert (strict.status, strict.slug) == (422, "unknown-reference")
    assert strict.headers["Preference-Applied"] == "handling=strict"
    assert len(strict.doc["errors"]) == 2


async def test_t_alr_03_a_list_shows_active_rules(stored: World) -> None:
    for name, more in (
        ("a", {"severity": "low"}), ("b", {"status": "paused"}), ("c", {"severity": "high"})
    ):  # fmt: skip
        await made(stored, rule(name, **more))
        stored.clock.advance(1)
    for query, names in (
        ("", ["c", "a"]),
        ("?status=paused", ["b"]),
        ("?status=all", ["c", "b", "a"]),
        ("?status=all&sort=name", ["a", "b", "c"]),
        ("?sort=severity:asc", ["a", "c"]),
        ("?severity=high,low", ["c", "a"]),
        ("?metric=latency", []),
        ("?limit=1&page=2", ["a"]),
    ):
        listed = await stored.get(RULES + query)
        assert [each["name"] for each in listed.doc["data"]] == names, query
    for query, code in (("?state=on", "unknown_parameter"), ("?status=off", "unknown_value")):
        assert (await stored.get(RULES + query)).codes()[0][1] == code


async def test_t_alr_04_put_replaces_only_what_is_sent(stored: World) -> None:
    path = f"{RULES}/{(await made(stored, SEED))['id']}"
    condition = {"metric": "ttft", "threshold_ms": 900}
    answer = await stored.call("PUT", path, {"condition": condition})
    assert (answer.status, answer.headers["ETag"]) == (200, '"r2"')
    assert answer.doc["condition"].items() >= condition.items()
    assert answer.doc["condition"]["window_seconds"] == 300
    assert (answer.doc["name"], answer.doc["severity"]) == ("High Latency", "high")
    half = await stored.call("PUT", path, {"condition": {"threshold_ms": 1}})
    assert (half.status, half.codes()) == (422, [("condition.metric", "missing")])
    default = await stored.call("PUT", path, {"severity": None})
    assert default.doc["severity"] == "medium"
    patched = await stored.call("PATCH", path, {"condition": {"threshold_ms": 5}})
    assert patched.doc["condition"].items() >= {"metric": "ttft", "threshold_ms": 5}.items()


async def test_a_get_edit_put_changes_nothing(stored: World) -> None:
    doc = await made(stored, SEED)
    answer = await stored.call("PUT", f"{RULES}/{doc['id']}", doc)
    assert answer.status == 200
    assert answer.doc == doc


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "name", "missing"),
        (rule("x", colour="red"), "colour", "extra_forbidden"),
        (rule("x", severity="loud"), "severity", "unknown_value"),
        (rule("x", id="Not A Slug"), "id", "pattern"),
        (rule(""), "name", "too_short"),
        (rule("x\x07"), "name", "control_character"),
        (rule("x", labels={"": "v"}), "labels", "too_short"),
        (rule("x", labels=[1]), "labels", "wrong_type"),
        (rule("x", delivery_targets="one"), "delivery_targets", "wrong_type"),
        ({"name": "x", "condition": {"metric": "latency"}}, "condition", "invalid_value"),
        ({"name": "x", "condition": []}, "condition", "wrong_type"),
        (rule("x", create_incident="yes"), "create_incident", "wrong_type"),
        (
            {"name": "x", "condition": {"metric": "cost", "threshold": "3"}},
            "condition.threshold",
            "wrong_type",
        ),
        ([], "", "wrong_type"),
    ],
)
async def test_what_a_rule_cannot_be(world: World, body: Any, field: str, code: str) -> None:
    answer = await world.post(RULES, body)
    assert answer.status == 422
    assert any(name.startswith(field) and what == code for name, what in answer.codes())


async def test_all_errors_at_once(world: World) -> None:
    answer = await world.post(RULES, {"severity": "loud", "status": "x", "labels": {"a": 1}})
    assert {field for field, _ in answer.codes()} == {
        "name", "severity", "status", "condition", "labels.a"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "media", "status", "slug"),
    [
        (b"{", "application/json", 400, "malformed-json"),
        (b"", "application/json", 400, "malformed-json"),
        (b'{"name":"a","name":"b","condition":{"metric":"cost","threshold":1}}',
         "application/json", 422, "validation-error"),
        (b"{}", "text/plain", 415, "unsupported-media-type"),
        (b"x" * 300_000, "application/json", 413, "content-too-large"),
        (b"[" * 5000, "application/json", 422, "validation-error"),
    ],
)  # fmt: skip
async def test_bodies_that_are_none(
    world: World, data: bytes, media: str, status: int, slug: str
) -> None:
    answer = await world.call("POST", RULES, headers={**ADMIN, "Content-Type": media}, data=data)
    assert (answer.status, answer.slug) == (status, slug)


async def test_ids_and_names_are_taken_once(stored: World) -> None:
    await made(stored, rule("one", id="first"))
    for body, existing in ((rule("two", id="first"), "first"), (rule("one"), "one")):
        answer = await stored.post(RULES, body)
        assert (answer.status, answer.slug) == (409, "already-exists")
        assert answer.doc["existing"] == existing
    absent = await stored.post(RULES, rule("x", id="first"), {**ADMIN, "If-None-Match": "*"})
    assert absent.status == 412
    other = await made(stored, rule("other"))
    renamed = await stored.call("PUT", f"{RULES}/{other['id']}", {"name": "one"})
    assert (renamed.status, renamed.slug) == (409, "already-exists")


async def test_delete_and_make_again(stored: World) -> None:
    await made(stored, rule("one", id="first"))
    path = f"{RULES}/first"
    assert (await stored.call("DELETE", path)).status == 204
    assert (await stored.call("DELETE", path)).status == 404
    assert (await stored.get(path)).status == 404
    assert (await stored.call("PUT", path, {"severity": "low"})).status == 404
    assert (await stored.call("PUT", path, {"severity": "loud"})).status == 422
    again = await stored.post(RULES, rule("one", id="first"))
    assert (again.status, again.headers["ETag"]) == (201, '"r3"')
    assert (await stored.get(path)).headers["ETag"] == '"r3"'


async def test_conditions(stored: World) -> None:
    path = f"{RULES}/{(await made(stored, SEED))['id']}"

    async def put(match: str, severity: str) -> tuple[int, Any]:
        answer = await stored.call(
            "PUT", path, {"severity": severity}, {**ADMIN, "If-Match": match}
        )
        return answer.status, answer.doc

    assert (await put('"r9"', "low"))[0] == 412
    assert (await put('"r9"', "low"))[1]["current_etag"] == '"r1"'
    assert (await put("r1", "low"))[0] == 400
    assert (await put('"r0", "r1"', "low"))[0] == 200
    assert (await put("*", "info"))[0] == 200
    read = await stored.get(path, {**ADMIN, "If-None-Match": '"r3"'})
    assert (read.status, read.body, read.headers["ETag"]) == (304, b"", '"r3"')
    stale = await stored.call("DELETE", path, headers={**ADMIN, "If-Match": '"r1"'})
    assert stale.status == 412


async def test_if_match_can_be_required() -> None:
    async with running(control=Control(require_if_match=True)) as world:
        path = f"{RULES}/{(await made(world, SEED))['id']}"
        assert (await world.call("PUT", path, {"severity": "low"})).slug == "precondition-required"


async def test_one_of_two_that_change_the_same_revision(stored: World) -> None:
    path = f"{RULES}/{(await made(stored, SEED))['id']}"
    answers = await asyncio.gather(
        *(
            stored.call("PUT", path, {"severity": severity}, {**ADMIN, "If-Match": '"r1"'})
            for severity in ("low", "info", "critical")
        )
    )
    assert sorted(answer.status for answer in answers) == [200, 412, 412]
    unconditional = await asyncio.gather(
        *(stored.call("PATCH", path, {"labels": {str(n): "x"}}) for n in range(3))
    )
    assert [answer.status for answer in unconditional] == [200] * 3
    assert (await stored.get(path)).doc["labels"] == {"0": "x", "1": "x", "2": "x"}


async def test_t_idm_01_a_retry_makes_one_rule(stored: World) -> None:
    key = {**ADMIN, "Idempotency-Key": "k-1"}
    first, second = [await stored.post(RULES, SEED, key) for _ in range(2)]
    assert (first.status, second.status) == (201, 201)
    assert second.body == first.body
    assert second.headers["ETag"] == first.headers["ETag"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (await stored.get(RULES)).doc["total"] == 1


async def test_a_refusal_is_told_again_to_its_retry(stored: World) -> None:
    await made(stored, rule("one", id="first"))
    key = {**ADMIN, "Idempotency-Key": "k-2"}
    refused = await stored.post(RULES, rule("one"), key)
    assert (refused.status, refused.slug) == (409, "already-exists")
    await stored.call("DELETE", f"{RULES}/first")
    again = await stored.post(RULES, rule("one"), key)
    assert (again.status, again.body) == (409, refused.body)
    assert again.headers["Content-Type"] == "application/problem+json"
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (await stored.post(RULES, rule("one"), {**key, "Idempotency-Key": "k-3"})).status == 201
    wrong = await stored.post(RULES, {"name": "x"}, {**key, "Idempotency-Key": "k-4"})
    right = await stored.post(RULES, rule("x"), {**key, "Idempotency-Key": "k-4"})
    assert (wrong.status, right.status) == (422, 201)  # what was malformed was not begun


async def test_t_sec_who_may(world: World) -> None:
    path = f"{RULES}/{(await made(world, SEED))['id']}"
    for caller, get, put in (("viewer000000", 200, 403), ("operator0000", 200, 200),
                             ("app000000000", 403, 403), ("foreign00000", 403, 403)):  # fmt: skip
        assert (await world.get(path, bearer(caller))).status == get
        assert (await world.call("PUT", path, {"severity": "low"}, bearer(caller))).status == put
    audit = "/v1/workspaces/default/audit"
    assert (await world.get(audit, bearer("operator0000"))).status == 403


async def test_a_test_alert_is_not_there_yet(world: World) -> None:
    path = f"{RULES}/{(await made(world, SEED))['id']}"
    assert (await world.call("POST", path + "/test")).slug == "not-implemented"
    assert (await world.call("POST", RULES + "/none/test")).status == 404


async def test_t_aud_01_each_change_is_a_row_of_a_chain(stored: World) -> None:
    path = f"{RULES}/{(await made(stored, rule('one', id='first')))['id']}"
    await stored.call("PUT", path, {"severity": "low"}, bearer("operator0000"))
    await stored.call("PUT", path, {"severity": "low"})  # changes nothing, tells nothing
    await stored.call("DELETE", path)
    listed = (await stored.get("/v1/workspaces/default/audit?sort=created_at:asc")).doc
    assert listed["total"] == 3
    assert [row["action"] for row in listed["data"]] == [
        "alert_rule.create", "alert_rule.update", "alert_rule.delete"
    ]  # fmt: skip
    update = listed["data"][1]
    assert update["actor"]["key_id"] == "operator0000"
    assert update["resource"] == {"type": "alert_rule", "id": "first"}
    assert update["changes"] == [{"path": "/severity", "old": None, "new": "low"}]
    assert all(row["hash"] == row_hash(row) for row in listed["data"])
    verified = (await stored.get("/v1/workspaces/default/audit/verify")).doc
    assert verified == {"ok": True, "checked": 3, "head": listed["data"][-1]["hash"]}


async def test_a_row_that_was_changed_breaks_the_chain(world: World) -> None:
    for name in "abc":
        await made(world, rule(name))
    rows = world.store._rooms["default"].logs[AUDIT_LOG]  # type: ignore[attr-defined]
    row = jsonbody.loads(rows[1].body)
    rows[1].body = jsonbody.dumps({**row, "action": "alert_rule.delete"})
    verified = (await world.get("/v1/workspaces/default/audit/verify")).doc
    assert verified == {"ok": False, "checked": 1, "broken_at": 2}


async def test_what_was_refused_leaves_no_row(stored: World) -> None:
    await made(stored, rule("one", id="first"))
    await stored.post(RULES, rule("one"))
    await made(stored, rule("two"))
    page = await stored.store.range("default", AUDIT_LOG, LogFilter())
    assert page.total == 2
    assert (await stored.get("/v1/workspaces/default/audit/verify")).doc["ok"] is True


async def test_a_refusal_is_a_row_once_a_minute(stored: World) -> None:
    for _ in range(3):
        assert (await stored.post(RULES, SEED, bearer("viewer000000"))).status == 403
    stored.clock.advance(60)
    assert (await stored.get(RULES, bearer("foreign00000"))).status == 403
    await asyncio.sleep(0.1)
    rows = (await stored.get("/v1/workspaces/default/audit?sort=created_at:asc")).doc["data"]
    assert [(row["action"], row["outcome"], row["count"]) for row in rows] == [
        ("access.denied", "denied", 1), ("access.denied", "denied", 2)
    ]  # fmt: skip
    assert rows[0]["resource"] == {"type": "operation", "id": "createAlertRule"}
    assert (await stored.get("/v1/workspaces/default/audit/verify")).doc["ok"] is True
    foreign = (await stored.get("/v1/audit")).doc["data"]
    assert [row["actor"]["key_id"] for row in foreign] == ["foreign00000"]
    assert (await stored.get("/v1/audit/verify")).doc["checked"] == 1
    assert (await stored.get("/v1/audit", bearer("admin0000000"))).status == 403


FILE_RULE = ("parapet.yaml#/workspaces/0/alert_rules/0", {"id": "filed", **rule("from the file")})


async def test_t_org_01_rules_of_the_file_are_read_only() -> None:
    async with running(declared={("default", "alert_rule"): [FILE_RULE]}) as world:
        path = f"{RULES}/filed"
        read = await world.get(path)
        assert (read.doc["origin"], read.doc["revision"]) == ("file", None)
        assert read.headers["ETag"].startswith('"f')
        for method, body in (("PUT", {"severity": "low"}), ("PATCH", {}), ("DELETE", None)):
            answer = await world.call(method, path, body)
            assert (answer.status, answer.slug) == (409, "managed-by-file")
            assert answer.doc["location"] == FILE_RULE[0]
        taken = await world.post(RULES, rule("x", id="filed"))
        assert (taken.status, taken.slug) == (409, "already-exists")
        await made(world, rule("mine", id="mine"))
        assert {each["id"] for each in (await world.get(RULES)).doc["data"]} == {"filed", "mine"}


async def test_a_name_of_the_file_is_taken() -> None:
    async with running(declared={("default", "alert_rule"): [FILE_RULE]}) as world:
        taken = await world.post(RULES, rule("from the file"))
        assert (taken.status, taken.slug) == (409, "already-exists")
        assert taken.doc["existing"] == "from the file"
        assert (await world.post(RULES, rule("x", id="mine"))).status == 201
        renamed = await world.call("PATCH", f"{RULES}/mine", {"name": "from the file"})
        assert (renamed.status, renamed.slug) == (409, "already-exists")
        assert (await world.call("PATCH", f"{RULES}/mine", {"severity": "low"})).status == 200
