"""T-API-02: the gate refuses each kind of edit that breaks a promise, and passes additive ones."""

from collections.abc import Callable
from copy import deepcopy
from datetime import date
from typing import Any

import pytest

from tests.contract.compatibility import breaks
from tests.contract.snapshot import announced, described, kept, today

Doc = dict[str, Any]
TODAY = date(2026, 6, 1)
LONG_AGO, LATELY = "2026-02-01", "2026-05-01"


def parameter(name: str, **schema: Any) -> Doc:
    return {"name": name, "in": "query", "required": False, "schema": {"type": "string", **schema}}


def content(name: str) -> Doc:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


BASE: Doc = {
    "paths": {
        "/rules": {
            "get": {
                "operationId": "listRules", "security": [],
                "parameters": [parameter("sort"), parameter("limit", type="integer", maximum=100)],
                "responses": {"200": {**content("Rule"), "headers": {"Link": {}}}, "404": {}},
            },
            "post": {
                "operationId": "createRule", "security": [{"bearer": []}],
                "requestBody": {"required": True, **content("NewRule")},
                "responses": {"201": content("Rule")},
            },
        },
        "/old": {"get": {"operationId": "old", "responses": {"200": content("Rule")}}},
    },
    "components": {
        "schemas": {
            "NewRule": {
                "type": "object", "additionalProperties": False, "required": ["name"],
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 100},
                    "level": {"type": "string", "enum": ["low", "high"]},
                    "open": {"type": "string", "x-extensible-enum": ["a", "b"]},
                    "count": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
                    "labels": {"type": "object"},
                    "list": {"type": "array", "items": {"type": "string"}},
                    "rule": {"$ref": "#/components/schemas/NewRule"},
                },
            },
            "Rule": {
                "type": "object", "required": ["id"],
                "properties": {
                    "id": {"type": "string"},
                    "note": {"type": "string"},
                    "level": {"type": "string", "enum": ["low", "high"]},
                    "open": {"type": "string", "x-extensible-enum": ["a", "b"]},
                    "size": {"type": "integer"},
                    "form": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                },
            },
        }
    },
}  # fmt: skip
Edit = Callable[[Doc], Any]


def sent(doc: Doc) -> Doc:
    found: Doc = doc["components"]["schemas"]["NewRule"]
    return found


def told(doc: Doc) -> Doc:
    found: Doc = doc["components"]["schemas"]["Rule"]
    return found


def rules(doc: Doc, method: str = "get") -> Doc:
    found: Doc = doc["paths"]["/rules"][method]
    return found


def member(doc: Doc, name: str) -> Doc:
    found: Doc = sent(doc)["properties"][name]
    return found


def answered(doc: Doc, name: str) -> Doc:
    found: Doc = told(doc)["properties"][name]
    return found


BREAKING: list[tuple[str, Edit, str]] = [
    ("path", lambda d: d["paths"].pop("/old"), "the path is gone"),
    ("method", lambda d: d["paths"]["/rules"].pop("get"), "the method is gone"),
    ("response", lambda d: rules(d)["responses"].pop("404"), "the response is gone"),
    ("header", lambda d: rules(d)["responses"]["200"]["headers"].clear(), "header Link is gone"),
    (
        "media type",
        lambda d: rules(d)["responses"]["200"]["content"].clear(),
        "application/json is gone",
    ),
    ("key", lambda d: rules(d).update(security=[{"bearer": []}]), "a key is needed"),
    ("parameter", lambda d: rules(d)["parameters"].pop(), "the parameter is gone"),
    ("member sent", lambda d: sent(d)["properties"].pop("labels"), "the member is gone"),
    ("member told", lambda d: told(d)["properties"].pop("note"), "the member is gone"),
    ("value sent", lambda d: member(d, "level")["enum"].remove("low"), "'low' is gone"),
    ("value told", lambda d: answered(d, "level")["enum"].remove("low"), "'low' is gone"),
    ("open value", lambda d: answered(d, "open")["x-extensible-enum"].remove("a"), "'a' is gone"),
    (
        "enumeration shut",
        lambda d: answered(d, "open").update(
            {"enum": answered(d, "open").pop("x-extensible-enum")}
        ),
        "was open",
    ),
    ("new value told", lambda d: answered(d, "level")["enum"].append("new"), "'new' is new"),
    ("required member", lambda d: sent(d)["required"].append("level"), "required now"),
    (
        "new required member",
        lambda d: (sent(d)["properties"].update(x={}), sent(d)["required"].append("x")),
        "required now",
    ),
    (
        "required parameter",
        lambda d: rules(d)["parameters"][0].update(required=True),
        "required now",
    ),
    (
        "new required parameter",
        lambda d: rules(d)["parameters"].append({**parameter("x"), "required": True}),
        "new required",
    ),
    (
        "required body",
        lambda d: rules(d).update(requestBody={"required": True, **content("NewRule")}),
        "required now",
    ),
    ("no body", lambda d: rules(d, "post").pop("requestBody"), "the body is gone"),
    (
        "lower maximum",
        lambda d: rules(d)["parameters"][1]["schema"].update(maximum=50),
        "maximum is 50",
    ),
    ("higher minimum", lambda d: member(d, "count")["anyOf"][0].update(minimum=1), "minimum is 1"),
    ("shorter text", lambda d: member(d, "name").update(maxLength=99), "maxLength is 99"),
    ("new bound", lambda d: member(d, "list").update(maxItems=5), "maxItems is 5"),
    ("new pattern", lambda d: member(d, "name").update(pattern="^a"), "pattern is ^a"),
    (
        "closed object",
        lambda d: member(d, "labels").update(additionalProperties=False),
        "other members",
    ),
    ("any text", lambda d: member(d, "name").update(enum=["a"]), "any value was allowed"),
    ("type sent", lambda d: member(d, "name").update(type="integer"), "the type was string"),
    ("type told", lambda d: answered(d, "size").update(type="string"), "the type was integer"),
    (
        "integers to numbers",
        lambda d: answered(d, "size").update(type="number"),
        "the type was integer",
    ),
    ("null told", lambda d: answered(d, "size").update(type=["integer", "null"]), "the type was"),
    ("null not taken", lambda d: member(d, "count")["anyOf"].pop(), "the type was"),
    (
        "type of items",
        lambda d: member(d, "list")["items"].update(type="integer"),
        "the type was string",
    ),
    (
        "form told",
        lambda d: answered(d, "form")["anyOf"].append({"type": "object"}),
        "the type was",
    ),
    ("not always told", lambda d: told(d)["required"].remove("id"), "not always there"),
]

ADDITIVE: list[tuple[str, Edit]] = [
    ("nothing", lambda d: None),
    ("path", lambda d: d["paths"].update({"/new": d["paths"]["/old"]})),
    ("method", lambda d: d["paths"]["/old"].update(post=rules(d, "post"))),
    ("response", lambda d: rules(d)["responses"].update({"503": {}})),
    ("parameter", lambda d: rules(d)["parameters"].append(parameter("x"))),
    ("member sent", lambda d: sent(d)["properties"].update(x={"type": "string"})),
    (
        "member told",
        lambda d: (told(d)["properties"].update(x={}), told(d)["required"].append("x")),
    ),
    ("value sent", lambda d: member(d, "level")["enum"].append("new")),
    ("open value told", lambda d: answered(d, "open")["x-extensible-enum"].append("c")),
    ("looser bound", lambda d: rules(d)["parameters"][1]["schema"].update(maximum=200)),
    ("no bound", lambda d: member(d, "name").pop("maxLength")),
    ("not required", lambda d: sent(d)["required"].remove("name")),
    ("wider type", lambda d: member(d, "name").update(type=["string", "null"])),
    ("form sent", lambda d: member(d, "count")["anyOf"].append({"type": "string"})),
    ("deprecated", lambda d: answered(d, "note").update({"deprecated": True})),
]


@pytest.mark.parametrize(
    ("edit", "why"), [row[1:] for row in BREAKING], ids=[r[0] for r in BREAKING]
)
def test_what_breaks_a_promise_is_refused(edit: Edit, why: str) -> None:
    new = deepcopy(BASE)
    edit(new)
    found = breaks(BASE, new, today=TODAY)
    assert found
    assert any(why in line for line in found), found


@pytest.mark.parametrize("edit", [row[1] for row in ADDITIVE], ids=[row[0] for row in ADDITIVE])
def test_what_only_adds_is_passed(edit: Edit) -> None:
    new = deepcopy(BASE)
    edit(new)
    assert breaks(BASE, new, today=TODAY) == []


REMOVED: list[tuple[str, Edit]] = [
    ("note", lambda d: answered(d, "note")),
    ("level", lambda d: member(d, "level")),
    ("sort", lambda d: rules(d)["parameters"][0]),
    ("old", lambda d: d["paths"]["/old"]["get"]),
]


def without(doc: Doc, name: str) -> Doc:
    new = deepcopy(doc)
    told(new)["properties"].pop("note" if name == "note" else "", None)
    sent(new)["properties"].pop("level" if name == "level" else "", None)
    if name == "sort":
        rules(new)["parameters"].pop(0)
    if name == "old":
        new["paths"].pop("/old")
    return new


@pytest.mark.parametrize(("name", "place"), REMOVED)
def test_what_was_deprecated_and_announced_may_go(name: str, place: Edit) -> None:
    old = deepcopy(BASE)
    place(old).update({"deprecated": True, "x-deprecated-since": LONG_AGO})
    new = without(old, name)
    assert breaks(old, new, today=TODAY, announced={name}) == []
    assert breaks(old, new, today=TODAY), "the changelog does not name it"
    place(old).update({"x-deprecated-since": LATELY})
    assert breaks(old, new, today=TODAY, announced={name}), "90 days are not over"
    assert breaks(BASE, new, today=TODAY, announced={name}), "the snapshot did not say so"


def test_an_operation_that_was_not_built_promised_only_its_path() -> None:
    old, new = deepcopy(BASE), deepcopy(BASE)
    rules(old)["responses"]["501"] = {}
    rules(new)["requestBody"] = {"required": True, **content("NewRule")}
    assert len(breaks(old, new, today=TODAY)) == 2
    rules(old)["x-not-implemented"] = True
    assert breaks(old, new, today=TODAY) == []
    rules(new)["x-not-implemented"] = "a part of it"
    assert len(breaks(old, new, today=TODAY)) == 2


@pytest.mark.thorough
def test_the_description_keeps_what_was_promised() -> None:
    """The gate itself.  To promise what is new, too: `make openapi-snapshot`."""
    assert breaks(kept(), described(), today=today(), announced=announced()) == []
