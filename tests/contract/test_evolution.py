"""T-API-04..06: schemas and what becomes of them, members on their way out, the changelog."""

import json
import re
from dataclasses import replace
from datetime import date, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from proxy.control.contract import Contract, changelog
from proxy.control.deprecations import DEPRECATED, NOTICE_DAYS, Deprecated
from proxy.control.objects import SCHEMAS, SUCCESSION_DAYS, Published
from proxy.control.openapi import describe
from proxy.control.routes import OPERATIONS
from tests.control.world import ADMIN, World, bearer, running

SEEDS = Path(__file__).parents[1] / "golden" / "seeds"
RULES = "/v1/workspaces/default/alert-rules"
TEMPLATE = re.compile(r"DEPRECATED: Use \S+ instead\. Will be removed in v\d+\.\d+\.\d+")
SINCE, SUNSET = date(2026, 1, 15), date(2026, 4, 15)
# the names of the contract, and the literal of the seeds for each
LITERALS = {
    "runtime-event": "runtime_event",
    "change-event": "change_event",
    "policy-result": "policy_result",
    "permission-decision": "permission_decision",
    "failover-decision": "failover_decision",
    "route-exposure": "route_exposure",
    "incident-blast-radius": "incident_blast_radius",
    "webhook-alert": "webhook_alert",
    "email-digest": "email_digest",
    "watcher-diff": "watcher_diff",
    "correlation-event": "correlation_event",
    "policy-pack": "policy_pack",
}


def literal(name: str) -> dict[str, Any]:
    found = json.loads((SEEDS / f"{name}.json").read_text())
    assert isinstance(found, dict)
    return found


def judge(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FormatChecker())


# --- schemas


async def test_the_schemas_of_the_contract_are_served_to_everybody(world: World) -> None:
    listed = await world.get("/v1/schemas", headers={})
    assert listed.status == 200
    assert [each["name"] for each in listed.doc["data"]] == [*LITERALS]
    for each in listed.doc["data"]:
        assert each == {
            "name": each["name"], "version": "1.0", "status": "current", "sunset_at": None
        }  # fmt: skip


@pytest.mark.parametrize(("name", "seed"), LITERALS.items())
async def test_the_literals_of_the_seeds_are_what_the_schemas_say(
    world: World, name: str, seed: str
) -> None:
    schema = await world.get(f"/v1/schemas/{name}", headers={})
    assert schema.status == 200
    assert schema.doc["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (schema.doc["status"], schema.doc["sunset_at"]) == ("current", None)
    judge(schema.doc).validate(literal(seed))
    known = {"If-None-Match": schema.headers["ETag"]}
    assert (await world.get(f"/v1/schemas/{name}", headers=known)).status == 304


@pytest.mark.parametrize(("name", "seed"), LITERALS.items())
def test_every_member_of_a_literal_is_known_to_its_schema(name: str, seed: str) -> None:
    (published,) = (each for each in SCHEMAS if each.name == name)
    schema = published.schema()
    assert set(literal(seed)) <= set(schema["properties"])
    without = {key: value for key, value in schema.items() if key != "properties"}
    assert set(without.get("required", ())) <= set(literal(seed))


BAD = [
    ("runtime-event", {"event_id": "!"}),
    ("policy-result", {"verdict": "maybe"}),
    ("policy-result", {"confidence": 2}),
    ("policy-result", {"timestamp": "yesterday"}),
    ("permission-decision", {"decision": "perhaps"}),
    ("route-exposure", {"revenue_impact": "much"}),
    ("incident-blast-radius", {"failed_requests": -1}),
    ("email-digest", {"period": "hourly"}),
    ("webhook-alert", {"severity": "loud"}),
    ("policy-pack", {"colour": "red"}),
]


@pytest.mark.parametrize(("name", "change"), BAD)
def test_a_schema_refuses_what_is_wrong(name: str, change: dict[str, Any]) -> None:
    (published,) = (each for each in SCHEMAS if each.name == name)
    assert not judge(published.schema()).is_valid({**literal(LITERALS[name]), **change})


async def test_a_schema_that_is_not_there(world: World) -> None:
    answer = await world.get("/v1/schemas/nothing", headers={})
    assert (answer.status, answer.slug) == (404, "not-found")
    assert "runtime-event" in answer.doc["known"]


async def test_t_api_04_a_schema_with_a_successor_says_when_it_goes() -> None:
    sunset = SINCE + timedelta(days=SUCCESSION_DAYS)
    leaving = replace(SCHEMAS[0], succeeded_on=SINCE, sunset=sunset)
    async with running(contract=Contract(schemas=(leaving, *SCHEMAS[1:]))) as world:
        answer = await world.get("/v1/schemas/runtime-event", headers={})
        listed = (await world.get("/v1/schemas", headers={})).doc["data"]
        other = await world.get("/v1/schemas/change-event", headers={})
    assert answer.headers["Deprecation"] == "@1768435200"
    gone = parsedate_to_datetime(answer.headers["Sunset"])
    assert (gone.date() - SINCE).days >= SUCCESSION_DAYS
    assert answer.headers["Link"] == '</v1/changelog>; rel="deprecation"'
    assert (answer.doc["status"], answer.doc["deprecated"]) == ("deprecated", True)
    assert listed[0]["status"] == "deprecated"
    assert listed[0]["sunset_at"] == "2026-07-14T00:00:00Z"
    assert "Deprecation" not in other.headers


def test_t_api_04_a_schema_cannot_go_before_its_time() -> None:
    with pytest.raises(ValueError, match="180 days"):
        Published("x", int, succeeded_on=SINCE, sunset=SINCE + timedelta(days=SUCCESSION_DAYS - 1))
    with pytest.raises(ValueError, match="come together"):
        Published("x", int, sunset=SUNSET)


# --- deprecated members


def leaves(pointer: str, *, place: Any = "body", operation: str = "createAlertRule") -> Deprecated:
    return Deprecated(operation, place, pointer, "new_field", SINCE, "2.1.0", SUNSET)


TABLE = (
    leaves("/condition/operator"),
    leaves("/condition/group_by/*", operation="createAlertRule"),
    leaves("severity", place="query", operation="listAlertRules"),
)
RULE = {"name": "x", "condition": {"metric": "cost", "threshold": 3, "operator": "gt"}}
TEXT = "DEPRECATED: Use new_field instead. Will be removed in v2.1.0"


async def test_who_uses_a_deprecated_member_is_told() -> None:
    async with running(contract=Contract(deprecated=TABLE[:1])) as world:
        headers = {**ADMIN, "Idempotency-Key": "k"}
        answers = [await world.post(RULES, RULE, headers) for _ in "12"]
        plain = await world.post(RULES, {**RULE, "name": "y", "condition": {"metric": "change"}})
        refused = await world.post(RULES, {**RULE, "severity": "loud"})
        stored = await world.get(answers[0].headers["Location"])
    for answer in answers:  # a replay, too
        assert answer.status == 201
        assert answer.headers["Deprecation"] == "@1768435200"
        assert answer.headers["Sunset"] == "Wed, 15 Apr 2026 00:00:00 GMT"
        assert answer.headers["Link"] == '</v1/changelog>; rel="deprecation"'
        assert answer.doc["warnings"] == [
            {"pointer": "#/condition/operator", "code": "deprecated", "detail": TEXT}
        ]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert refused.status == 422
    assert refused.headers["Deprecation"] == "@1768435200"
    for other in (plain, stored):
        assert "Deprecation" not in other.headers
        assert "warnings" not in other.doc


async def test_who_uses_a_deprecated_parameter_is_told_beside_the_pages() -> None:
    async with running(contract=Contract(deprecated=TABLE)) as world:
        answer = await world.get(RULES + "?severity=high")
        plain = await world.get(RULES)
    assert answer.headers["Link"].endswith(', </v1/changelog>; rel="deprecation"')
    assert 'rel="first"' in answer.headers["Link"]
    assert answer.doc["warnings"] == [
        {"parameter": "severity", "code": "deprecated", "detail": TEXT}
    ]
    assert "changelog" not in plain.headers["Link"]


async def test_what_is_in_a_list_counts() -> None:
    async with running(contract=Contract(deprecated=TABLE)) as world:
        condition = {**RULE["condition"], "group_by": ["model"]}  # type: ignore[dict-item]
        answer = await world.post(RULES, {**RULE, "condition": condition})
        empty = await world.post(RULES, {"name": "z", "condition": {"metric": "change"}})
    assert len(answer.doc["warnings"]) == 2
    assert "Deprecation" not in empty.headers


async def test_a_body_that_is_no_json_is_not_looked_at() -> None:
    table = (leaves("/provider", operation="ingestRuntime"),)
    async with running(contract=Contract(deprecated=table)) as world:
        lines = b'{"event_id":"a"}\n{"event_id":"b"}'
        headers = {**bearer("ingest000000"), "Content-Type": "application/x-ndjson"}
        answer = await world.call("POST", "/v1/ingest/runtime", headers=headers, data=lines)
    assert answer.status == 422
    assert "Deprecation" not in answer.headers


def marked(value: Any) -> list[dict[str, Any]]:
    """Everything in a description that is said to be deprecated."""
    if isinstance(value, list):
        return [found for each in value for found in marked(each)]
    if not isinstance(value, dict):
        return []
    own = [value] if value.get("deprecated") is True else []
    return own + [found for each in value.values() for found in marked(each)]


def test_t_api_06_the_description_says_it_by_the_template() -> None:
    found = marked(describe(OPERATIONS, TABLE))
    assert len(found) >= len(TABLE)
    for each in found:
        assert TEMPLATE.fullmatch(each["description"].partition("\n")[0])
        assert each["x-deprecated-since"] == "2026-01-15"
        assert each["x-removed-in"] == "2.1.0"


@pytest.mark.thorough
def test_a_row_that_names_nothing_is_an_error() -> None:
    for row in (leaves("/nothing"), leaves("x", place="query"), leaves("/x", operation="none")):
        with pytest.raises(ValueError, match="has no"):
            describe(OPERATIONS, (row,))


def test_t_api_05_nothing_goes_without_notice() -> None:
    with pytest.raises(ValueError, match="90 days"):
        replace(TABLE[0], sunset=SINCE + timedelta(days=NOTICE_DAYS - 1))


def test_t_api_05_every_deprecated_member_stands_in_the_changelog() -> None:
    going = [each for each in changelog() if each["kind"] == "deprecated"]
    for row in DEPRECATED:
        name = row.pointer.rpartition("/")[2]
        assert any(each.get("member") == name and row.text in each["text"] for each in going), row
    for each in going:
        assert TEMPLATE.search(each["text"])


def test_t_api_06_what_is_deprecated_now() -> None:
    for each in marked(describe(OPERATIONS, DEPRECATED)):
        assert TEMPLATE.fullmatch(each["description"].partition("\n")[0])


# --- the changelog


async def test_the_changelog_in_both_forms(world: World) -> None:
    told = await world.get("/v1/changelog", headers={})
    assert told.status == 200
    assert told.headers["Content-Type"] == "application/json"
    entries = told.doc["data"]
    assert entries == [*reversed(changelog())]
    assert {each["kind"] for each in entries} <= {"added", "changed", "deprecated", "removed"}
    for each in entries:
        date.fromisoformat(each["date"])
        assert re.fullmatch(r"\d+\.\d+\.\d+", each["version"])
    text = await world.get("/v1/changelog", headers={"Accept": "text/plain"})
    assert text.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert len(text.body.decode().splitlines()) == len(entries)
    assert entries[0]["text"] in text.body.decode()
    assert (await world.get("/v1/changelog", headers={"Accept": "image/png"})).status == 406
