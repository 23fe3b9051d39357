"""T-API-01: the description is OpenAPI 3.1, says all of every row of the table, and is true."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from proxy.control.contract import examples
from proxy.control.frame import METRICS, PUBLIC, Operation
from proxy.control.openapi import answer_schema, describe, kind_of, shapes_of, summary_of
from proxy.control.openapi_answers import RATE_HEADERS
from proxy.control.problems import KINDS
from proxy.control.routes import OPERATIONS
from proxy.control.shapes import Shapes
from tests.control.world import World, running

SEEDS = Path(__file__).parents[1] / "golden" / "seeds"
DOC = describe(OPERATIONS, examples=examples())
SCOPE = re.compile(r"none|any-key|server-admin|[a-z]+:(read|write|invoke)")
BY_ID = {
    one["operationId"]: (method, path, one)
    for path, methods in DOC["paths"].items()
    for method, one in methods.items()
}
STREAMS = ("text/event-stream", "text/plain", "text/html", "text/css", "text/javascript")


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        found: Any = DOC
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = found
    return schema


@pytest.mark.thorough
def test_it_is_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(DOC).validate()
    assert DOC["openapi"] == "3.1.0"


def test_every_row_is_described_once() -> None:
    assert set(BY_ID) == {row.operation_id for row in OPERATIONS}
    assert len(BY_ID) == len(OPERATIONS)


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.operation_id)
def test_a_row_says_all_that_is_needed(row: Operation) -> None:
    _, _, one = BY_ID[row.operation_id]
    assert SCOPE.fullmatch(one["x-scope"])
    assert one["x-rate-class"]
    assert one["tags"]
    summary = summary_of(row)
    assert summary[:1].isupper(), "the first line of the handler's docstring"
    assert len(summary) <= 100
    told = row.tells is not None or kind_of(row) is not None
    mute = row.success == 204 or row.gives[0] in STREAMS or not row.built
    assert told or mute, "`tells`: the model of the answer"
    if row.tells is not None and row.gives[0] not in STREAMS:
        assert answer_schema(row, Shapes(*shapes_of([row])))
    if row.takes:
        assert row.sends is not None or kind_of(row) is not None, "`sends`: the model of the body"
    if not row.built:
        assert one["x-not-implemented"] is True
        assert "501" in one["responses"]


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.operation_id)
def test_what_every_answer_carries(row: Operation) -> None:
    _, _, one = BY_ID[row.operation_id]
    success = one["responses"][str(row.success)]
    limited = row.scope not in (PUBLIC, METRICS)
    for name in RATE_HEADERS:
        assert (name in success["headers"]) == limited
    assert bool(one["security"]) == (row.scope != PUBLIC)
    for status, answer in one["responses"].items():
        if status >= "400" and int(status) not in row.also:
            media = resolved(answer)["content"]
            assert [*media] == ["application/problem+json"]


def test_every_status_of_a_problem_is_somewhere() -> None:
    told = {int(status) for _, _, one in BY_ID.values() for status in one["responses"]}
    statuses = {kind.status for kind in KINDS.values()}
    assert statuses - told == set() if any(not row.built for row in OPERATIONS) else {501}


def test_the_life_of_a_document() -> None:
    post = BY_ID["createAlertRule"][2]
    made = post["responses"]["201"]
    assert {"ETag", "Location", "Idempotent-Replayed", "Preference-Applied"} <= set(made["headers"])
    assert made["links"]["getAlertRule"]["parameters"] == {
        "workspace": "$request.path.workspace",
        "ruleId": "$response.body#/id",
    }
    assert set(made["links"]) == {
        "getAlertRule", "putAlertRule", "patchAlertRule", "deleteAlertRule"
    }  # fmt: skip
    names = {each["name"] for each in post["parameters"]}
    assert {"Idempotency-Key", "If-None-Match", "Prefer", "workspace"} == names
    assert "304" in BY_ID["getAlertRule"][2]["responses"]
    assert "304" not in BY_ID["getDelivery"][2]["responses"]
    assert {"409", "412", "428"} <= set(BY_ID["putAlertRule"][2]["responses"])


def test_a_put_needs_no_member_and_a_patch_reaches_inside() -> None:
    put = resolved(DOC["components"]["schemas"]["AlertRulePut"])
    assert "required" not in put
    assert put["additionalProperties"] is False
    assert {"type": "null"} in put["properties"]["name"]["anyOf"]
    condition = DOC["components"]["schemas"]["AlertConditionPatch"]
    assert "required" not in condition
    assert DOC["components"]["schemas"]["AlertCondition"]["required"] == ["metric"]


def test_an_id_that_the_name_gives_need_not_be_sent() -> None:
    schemas = DOC["components"]["schemas"]
    assert schemas["WorkspaceNew"]["required"] == ["name"]
    assert schemas["RouteNew"]["required"] == ["endpoint"]
    assert schemas["RouteNew"]["anyOf"] == [{"required": ["id"]}, {"required": ["name"]}]
    assert "id" in schemas["EndpointNew"]["required"]


def test_an_answer_is_open_and_has_what_the_server_adds() -> None:
    document = DOC["components"]["schemas"]["AlertRuleDocument"]
    assert "additionalProperties" not in document
    ours = {"created_at", "updated_at", "revision", "origin", "labels", "id", "name"}
    assert ours <= set(document["required"])
    assert "warnings" in document["properties"]
    targets = DOC["components"]["schemas"]["DeliveryDocument"]["anyOf"]
    assert all("verified_at" in each["properties"] for each in targets)


def test_open_enumerations_say_so() -> None:
    text = json.dumps(DOC)
    assert text.count("x-extensible-enum") >= 3


EXAMPLES = [
    ("createAlertRule", "latency", "alert_rule"),
    ("createDelivery", "slack", "delivery_target"),
    ("createFailoverPolicy", "latency", "failover_policy"),
    ("createPolicy", "safety", "policy_pack"),
    ("ingestRuntime", "completed", "runtime_event"),
    ("ingestChange", "release_note", "change_event"),
]


@pytest.mark.parametrize(("operation", "example", "literal"), EXAMPLES)
def test_the_literals_of_the_contract_are_the_examples(
    operation: str, example: str, literal: str
) -> None:
    shown = examples()[operation][example]["value"]
    assert shown == json.loads((SEEDS / f"{literal}.json").read_text())
    if operation in BY_ID:
        (media, *_) = BY_ID[operation][2]["requestBody"]["content"].values()
        assert media["examples"][example]["value"] == shown


# --- served


async def test_it_is_served_to_everybody_with_an_entity_tag(world: World) -> None:
    answer = await world.get("/openapi.json", headers={})
    assert answer.status == 200
    assert answer.doc == json.loads(json.dumps(DOC))
    again = await world.get("/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == answer.headers["ETag"]


async def test_it_tells_how_long_an_idempotency_key_is_known() -> None:
    async with running() as world:
        world.control = world.control.model_copy(update={"idempotency_ttl_hours": 48})
        doc = (await world.get("/openapi.json")).doc
    assert doc["info"]["x-idempotency-ttl-hours"] == 48
    assert "within 48 hours" in doc["info"]["description"]


@pytest.mark.parametrize(
    ("path", "media"),
    [("/docs", "text/html"), ("/docs/app.js", "text/javascript"), ("/docs/style.css", "text/css")],
)
async def test_the_page_comes_from_here_alone(world: World, path: str, media: str) -> None:
    answer = await world.get(path, headers={})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == f"{media}; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == "default-src 'self'"
    assert not re.search(rb"(src|href)\s*=\s*['\"](https?:)?//", answer.body)
    assert b"@import" not in answer.body
    assert b"style=" not in answer.body
    known = await world.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert known.status == 304


async def test_the_page_shows_every_operation(world: World) -> None:
    text = (await world.get("/docs", headers={})).body.decode()
    for row in OPERATIONS:
        assert f"<details id='{row.operation_id}'" in text
    assert "<script>" not in text
    assert " onclick" not in text
