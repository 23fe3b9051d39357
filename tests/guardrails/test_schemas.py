"""The part of JSON Schema that is checked here: vectors, and agreement with a known validator."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from proxy.guardrails.checks.jsontext import TooManySteps, without_fence
from proxy.guardrails.checks.schemas import Schema, SchemaFault
from proxy.guardrails.compile import check_pack, compile_guard
from proxy.model.tenancy import GuardSettings
from proxy.settings.packs import builtin_packs
from tests.guardrails.texts import pack

DEFS = {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}
# fmt: off
VECTORS: list[tuple[object, str, bool]] = [
    # schema,                                          text,                  fits
    (True,                                             "1",                   True),
    (False,                                            "1",                   False),
    ({},                                               "",                    False),
    ({},                                               "not json",            False),
    ({},                                               "1 2",                 False),
    ({},                                               "NaN",                 False),
    ({},                                               "Infinity",            False),
    ({},                                               '{"a":1,"a":2}',       False),
    ({},                                               "[" * 100_000,         False),
    ({},                                               "9" * 5000,            False),
    ({"type": "integer"},                              "1.0",                 True),
    ({"type": "integer"},                              "1.5",                 False),
    ({"type": "integer"},                              "true",                False),
    ({"type": "integer"},                              "1e400",               False),
    ({"type": ["null", "string"]},                     "null",                True),
    ({"const": 1},                                     "1.0",                 True),
    ({"const": 1},                                     "true",                False),
    ({"const": {"a": [1]}},                            '{"a":[1.0]}',         True),
    ({"enum": [0, "a", None]},                         "false",               False),
    ({"enum": []},                                     "1",                   False),
    ({"uniqueItems": True},                            "[1,true,1.0]",        False),
    ({"uniqueItems": True},                            '[1,true,"1",null]',   True),
    ({"uniqueItems": True},                            '[{"a":1},{"a":1}]',   False),
    ({"multipleOf": 0.1},                              "0.3",                 True),
    ({"multipleOf": 0.1},                              "0.35",                False),
    ({"multipleOf": 3},                                "1e300",               False),
    ({"multipleOf": 1e-300},                           "1e300",               True),
    ({"multipleOf": 3},                                "1e999",               False),
    ({"exclusiveMinimum": 1},                          "1",                   False),
    ({"minimum": 1, "maximum": 2},                     '"x"',                 True),
    ({"minLength": 2},                                 '"\U0001f600"',        False),
    ({"maxLength": 1},                                 '"\\ud83d\\ude00"',    True),
    ({"pattern": "b+$"},                               '"abb"',               True),
    ({"pattern": "^b"},                                '"ab"',                False),
    ({"pattern": "^.$"},                               '"\\ud83d"',           True),
    ({"properties": {"a": {"type": "null"}}},          '{"a":1}',             False),
    ({"properties": {"a": {}}, "additionalProperties": False}, '{"b":1}',     False),
    ({"additionalProperties": {"type": "null"}},       '{"b":1}',             False),
    ({"required": ["a"]},                              "{}",                  False),
    ({"required": ["a"]},                              "[]",                  True),
    ({"prefixItems": [{"const": 1}], "items": False},  "[1]",                 True),
    ({"prefixItems": [{"const": 1}], "items": False},  "[1,2]",               False),
    ({"minItems": 1},                                  "[]",                  False),
    ({"oneOf": [{"minimum": 1}, {"minimum": 2}]},      "3",                   False),
    ({"oneOf": [{"minimum": 1}, {"minimum": 2}]},      "1",                   True),
    ({"anyOf": [{"const": 1}, {"const": 2}]},          "2",                   True),
    ({"allOf": [{"const": 1}, {"type": "string"}]},    "1",                   False),
    ({"not": {"type": "string"}},                      '"a"',                 False),
    (DEFS,                                             "1",                   True),
    (DEFS,                                             '"a"',                 False),
    ({**DEFS, "minimum": 2},                           "1",                   False),
]

FAULTS: list[tuple[object, str, str]] = [
    # schema, where, code
    ([],                                               "",                    "invalid_schema"),
    ({"properties": {"a": {"oneof": []}}}, ".properties.a.oneof", "unsupported_schema_keyword"),
    ({"if": {}},                                       ".if", "unsupported_schema_keyword"),
    ({"$id": "x"},                                     ".$id", "unsupported_schema_keyword"),
    ({"$defs": {"a": {"dependentRequired": {}}}},
        ".$defs.a.dependentRequired", "unsupported_schema_keyword"),
    ({"type": "text"},                                 ".type",               "invalid_schema"),
    ({"type": [["string"]]},                           ".type",               "invalid_schema"),
    ({"type": []},                                     ".type",               "invalid_schema"),
    ({"required": "a"},                                ".required",           "invalid_schema"),
    ({"properties": []},                               ".properties",         "invalid_schema"),
    ({"items": [{}]},                                  ".items",              "invalid_schema"),
    ({"minLength": -1},                                ".minLength",          "invalid_schema"),
    ({"minLength": True},                              ".minLength",          "invalid_schema"),
    ({"minimum": "1"},                                 ".minimum",            "invalid_schema"),
    ({"multipleOf": 0},                                ".multipleOf",         "invalid_schema"),
    ({"multipleOf": float("inf")},                     ".multipleOf",         "invalid_schema"),
    ({"uniqueItems": 1},                               ".uniqueItems",        "invalid_schema"),
    ({"enum": {}},                                     ".enum",               "invalid_schema"),
    ({"anyOf": []},                                    ".anyOf",              "invalid_schema"),
    ({"pattern": "a(?=b)"},                            ".pattern",            "regex_syntax"),
    ({"$ref": "https://example.com/x"},                ".$ref",               "invalid_schema"),
    ({"$ref": "#"},                                    ".$ref",               "invalid_schema"),
    ({"$ref": "#/$defs/none"},                         ".$ref",               "invalid_schema"),
    ({"$ref": 7},                                      ".$ref",               "invalid_schema"),
    ({"$defs": {"a": {"$ref": "#/$defs/a"}}},          ".$defs.a.$ref",       "invalid_schema"),
]
# fmt: on


@pytest.mark.parametrize(("schema", "text", "fits"), VECTORS)
def test_vectors(schema: object, text: str, fits: bool) -> None:
    assert Schema(schema).fits(text, strip_fence=False) is fits


@pytest.mark.parametrize(("schema", "where", "code"), FAULTS)
def test_what_is_refused(schema: object, where: str, code: str) -> None:
    with pytest.raises(SchemaFault) as told:
        Schema(schema)
    assert (told.value.code, told.value.where[: len(where)]) == (code, where)


def test_a_ring_of_references_is_refused() -> None:
    ring = {"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"items": {"$ref": "#/$defs/a"}}}}
    with pytest.raises(SchemaFault, match="back to itself"):
        Schema(ring)


def test_a_schema_too_deep_is_refused() -> None:
    deep: dict[str, object] = {}
    for _ in range(100):
        deep = {"items": deep}
    with pytest.raises(SchemaFault, match="too deep"):
        Schema(deep)


@pytest.mark.thorough
def test_a_text_that_would_take_too_long_breaks_the_check() -> None:
    defs: dict[str, object] = {"d0": {"type": "integer"}}
    for at in range(1, 25):
        before = {"$ref": f"#/$defs/d{at - 1}"}
        defs[f"d{at}"] = {"allOf": [before, before]}
    with pytest.raises(TooManySteps):
        Schema({"$defs": defs, "$ref": "#/$defs/d24"}).fits("1", strip_fence=False)


# fmt: off
FENCES = [
    ('```json\n{"a": 1}\n```',           '{"a": 1}\n'),
    ('\n ```\n1```  ',                   "1"),
    ("```json\n1\n```\n```\n2\n```",     "1\n```\n```\n2\n"),
    ("Here:\n```\n1\n```",               None),
    ("```1```",                          None),
    ("```json\n1",                       None),
    ("1",                                None),
]
# fmt: on


@pytest.mark.parametrize(("text", "inside"), FENCES)
def test_one_fence(text: str, inside: str | None) -> None:
    assert without_fence(text) == (text if inside is None else inside)
    fits = Schema(True).fits(text, strip_fence=True)
    assert fits == (text == "1" or (inside is not None and "```" not in inside))


# --- agreement

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, 2.5]),
    st.text("abé", max_size=3),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below),
    max_leaves=6,
)
NAMES = st.sampled_from("abc")
NUMBERS = st.sampled_from([-1, 0, 0.5, 1, 2])
SIZES = st.integers(0, 3)


def schemas(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(below, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(
                ["object", "array", "string", "number", "integer", "null", ["boolean", "string"]]
            ),
            "properties": st.dictionaries(NAMES, below, max_size=2),
            "required": st.lists(NAMES, unique=True, max_size=2),
            "additionalProperties": below,
            "items": below,
            "prefixItems": several,
            "minItems": SIZES,
            "maxItems": SIZES,
            "uniqueItems": st.booleans(),
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "const": VALUES,
            "minimum": NUMBERS,
            "exclusiveMaximum": NUMBERS,
            "multipleOf": st.sampled_from([0.5, 1, 2]),
            "minLength": SIZES,
            "maxLength": SIZES,
            "pattern": st.sampled_from(["a", "^b", "é$", "a|b"]),
            "anyOf": several,
            "oneOf": several,
            "allOf": several,
            "not": below,
        },
    )


SCHEMAS = st.recursive(st.booleans() | schemas(st.booleans()), schemas, max_leaves=4)


@pytest.mark.thorough
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(SCHEMAS, VALUES)
def test_it_agrees_with_jsonschema(schema: Any, value: Any) -> None:
    known = Draft202012Validator(schema).is_valid(value)
    assert Schema(schema).fits(json.dumps(value), strip_fence=False) is known


# --- rules


RULE_FAULTS = [
    ({"action": "redact"}, "rules[0].action", "action_not_possible"),
    ({"action": "allow"}, "rules[0].action", "action_not_possible"),
    ({"scope": {"direction": "both"}}, "rules[0].scope.direction", "kind_not_possible"),
    ({"scope": {"direction": "request"}}, "rules[0].scope.direction", "kind_not_possible"),
    ({"pattern": "a"}, "rules[0].pattern", "extra_forbidden"),
    ({"config": {"schema": "x"}}, "rules[0].config.schema", "invalid_schema"),
    ({"config": {"shema": {}}}, "rules[0].config.shema", "extra_forbidden"),
    (
        {"config": {"schema": {"properties": {"a": {"if": {}}}}}},
        "rules[0].config.schema.properties.a.if",
        "unsupported_schema_keyword",
    ),
    ({"tests": {"match": ["1"]}}, "rules[0].tests.match[0]", "test_failed"),
    ({"tests": {"no_match": ["x"]}}, "rules[0].tests.no_match[0]", "test_failed"),
]


@pytest.mark.parametrize(("members", "field", "code"), RULE_FAULTS)
def test_a_rule_is_refused(members: dict[str, object], field: str, code: str) -> None:
    rule = {"kind": "json_schema", "action": "block", "config": {"schema": {"type": "number"}}}
    faults, _ = check_pack(pack(rule | members))
    assert (faults[0].field, faults[0].code) == (field, code)


def test_without_a_schema_a_rule_is_inert_and_formats_are_notes() -> None:
    (shipped,) = [p for p in builtin_packs().values() if p.pack.policy_pack_id == "json-output"]
    guard = compile_guard([shipped.effective], GuardSettings())
    assert (guard.covers("response"), guard.holds_answers) == (False, False)
    rule = {"kind": "json_schema", "action": "log", "config": {"schema": {"format": "date"}}}
    faults, warnings = check_pack(pack(rule))
    assert (faults, [each.code for each in warnings]) == ([], ["format_not_checked"])


@pytest.mark.thorough
def test_a_check_that_breaks_is_no_pass() -> None:
    defs: dict[str, object] = {"d0": {"type": "integer"}}
    for at in range(1, 25):
        before = {"$ref": f"#/$defs/d{at - 1}"}
        defs[f"d{at}"] = {"allOf": [before, before]}
    schema = {"$defs": defs, "$ref": "#/$defs/d24"}
    for on_error, verdict in (("block", "error"), ("allow", "bypassed")):
        rule = {"kind": "json_schema", "action": "block", "on_error": on_error,
                "config": {"schema": schema}}  # fmt: skip
        judged = compile_guard([pack(rule)], GuardSettings()).judge_whole(["1"])
        (result,) = judged.results
        assert (result.verdict, result.message) == (verdict, "TooManySteps")
        assert (judged.block is not None) == (verdict == "error")
