"""Rules that look at no text: who may use which tool and model, and how much may be asked for."""

import pytest

from proxy.guardrails.checks.arguments import Constraint, steps_of
from proxy.guardrails.compile import check_pack, compile_rules
from proxy.guardrails.gates import AccessRule, Amounts, Denial, LimitsRule, Names, ToolRule
from proxy.guardrails.linear import Regex
from proxy.model.exchange import Json
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from proxy.model.tools import Call
from proxy.settings.packs import builtin_packs


def pack(kind: str, config: object, action: str = "block", **rule: object) -> PolicyPack:
    said = {"rule_id": "r", "kind": kind, "action": action, "config": config, **rule}
    return PolicyPack.model_validate({"policy_pack_id": "p", "rules": [said]})


def rule_of(kind: str, config: object, action: str = "block") -> object:
    (rule,) = compile_rules([pack(kind, config, action)], GuardSettings())
    return rule


# --- names

# fmt: off
GLOBS = [
    # glob              name                  fits
    ("export-*",        "export-tool",        True),
    ("export-*",        "export-",            True),
    ("export-*",        "my-export-tool",     False),
    ("export-*",        "Export-tool",        False),
    ("export-*",        "export-a\nb",        True),
    ("t?ol",            "tool",               True),
    ("t?ol",            "tol",                False),
    ("a.b",             "axb",                False),
    ("a[bc]",           "ab",                 False),
    ("a[bc]",           "a[bc]",              True),
    ("mcp:github/*",    "mcp:github/delete",  True),
    ("mcp:github/*",    "mcp:gitlab/delete",  False),
    ("*",               "",                   True),
    ("x|y",             "x",                  False),
    ("日本*",           "日本語",             True),
]
# fmt: on


@pytest.mark.parametrize(("glob", "name", "fits"), GLOBS)
def test_globs(glob: str, name: str, fits: bool) -> None:
    assert Names([glob]).has(name) is fits
    assert Names(["nothing", glob]).has(name) is fits


def test_no_globs_fit_nothing() -> None:
    assert not Names([])
    assert not Names([]).has("")


# --- arguments

# fmt: off
ARGS: list[tuple[dict[str, object], Json, bool]] = [
    # constraint                                   arguments                            accepted
    ({"path": "$.limit", "max": 100},              {"limit": 100},                      True),
    ({"path": "$.limit", "max": 100},              {"limit": 100.5},                    False),
    ({"path": "$.limit", "max": 100},              {"limit": "5"},                      False),
    ({"path": "$.limit", "max": 100},              {"limit": True},                     False),
    ({"path": "$.limit", "max": 100},              {"limit": [5]},                      False),
    ({"path": "$.limit", "max": 100},              {},                                  True),
    ({"path": "$.limit", "max": 100},              {"limit": None},                     True),
    ({"path": "$.limit", "max": 100},              [{"limit": 5}],                      False),
    ({"path": "$.limit", "max": 100},              "5",                                 False),
    ({"path": "$.limit", "min": 1, "max": 9},      {"limit": 0},                        False),
    ({"path": "$.a.b", "max": 1},                  {"a": {"b": 2}},                     False),
    ({"path": "$.a.b", "max": 1},                  {"a": 7},                            False),
    ({"path": "$.a.b", "max": 1},                  {"a": {"c": 2}},                     True),
    ({"path": "$.u", "regex": "[a-z]+"},           {"u": "abc"},                        True),
    ({"path": "$.u", "regex": "[a-z]+"},           {"u": "abc1"},                       False),
    ({"path": "$.u", "regex": "[a-z]+"},           {"u": "abc\n"},                      False),
    ({"path": "$.u", "regex": "[a-z]+"},           {"u": ["abc"]},                      False),
    ({"path": "$.u", "regex": "[0-9]+"},           {"u": 12},                           True),
    ({"path": "$.u", "regex": "True"},             {"u": True},                         False),
    ({"path": "$.u", "enum": ["a", 1]},            {"u": 1.0},                          True),
    ({"path": "$.u", "enum": ["a", 1]},            {"u": True},                         False),
    ({"path": "$.u", "enum": [[1]]},               {"u": [True]},                       False),
    ({"path": "$.u", "enum": [{"a": 1}]},          {"u": {"a": 1}},                     True),
    ({"path": "$.u", "max_chars": 3},              {"u": "abc"},                        True),
    ({"path": "$.u", "max_chars": 3},              {"u": "abcd"},                       False),
    ({"path": "$.u", "max_chars": 3},              {"u": {"a": 1}},                     False),
    ({"path": "$.u", "required": True},            {"u": ""},                           True),
    ({"path": "$.u", "required": True},            {"u": None},                         False),
    ({"path": "$.u", "required": True},            {},                                  False),
    ({"path": "$.u", "forbidden": True},           {"u": 0},                            False),
    ({"path": "$.u", "forbidden": True},           {"v": 0},                            True),
    ({"path": "$.l[*].u", "regex": "a"},           {"l": [{"u": "a"}, {"u": "b"}]},     False),
    ({"path": "$.l[*].u", "regex": "a"},           {"l": [{"u": "a"}, {}]},             True),
    ({"path": "$.l[*].u", "regex": "a"},           {"l": {"u": "a"}},                   False),
    ({"path": "$.l[*].u", "regex": "a"},           {"l": [["a"]]},                      False),
    ({"path": "$.l[*].u", "required": True},       {"l": [{"u": "a"}, {}]},             False),
    ({"path": "$.l[*]", "required": True},         {"l": []},                           False),
    ({"path": "$[*]", "max": 1},                   [1, 2],                              False),
    ({"path": "$", "max_chars": 5},                "plain",                             True),
    ({"path": "$", "max_chars": 5},                "longer",                            False),
]
# fmt: on


@pytest.mark.parametrize(("said", "args", "accepted"), ARGS)
def test_arguments(said: dict[str, object], args: Json, accepted: bool) -> None:
    rule = rule_of("tool_permission", {"tools": [{"resource": "t", "args": [said]}]})
    assert isinstance(rule, ToolRule)
    denial = rule.may_call(Call(("t",), args), "app")
    assert denial == (None if accepted else Denial("argument_rejected"))


def test_arguments_that_cannot_be_read_are_rejected_where_any_are_named() -> None:
    unreadable = Call(("t",), None, readable=False)
    named = rule_of(
        "tool_permission",
        {"tools": [{"resource": "t", "args": [{"path": "$.a", "max": 1}]}]},
    )
    plain = rule_of("tool_permission", {"tools": [{"resource": "t"}]})
    assert isinstance(named, ToolRule)
    assert isinstance(plain, ToolRule)
    assert named.may_call(unreadable, "app") == Denial("argument_rejected")
    assert plain.may_call(unreadable, "app") is None


def test_steps_of_a_path() -> None:
    assert steps_of("$") == ()
    assert steps_of("$.a[*][*].b-c") == ("a", None, None, "b-c")


def test_a_hostile_argument_is_judged_in_time_in_proportion_to_it() -> None:
    constraint = Constraint(steps=("u",), regex=Regex(r"\A(?:(a+)+b)\z"))
    assert not constraint.accepts({"u": "a" * 100_000})


# --- tools

TOOLS = {
    "default": "deny",
    "tools": [
        {"resource": "export-*", "roles_any": ["admin"]},
        {"resource": "search", "args": [{"path": "$.limit", "max": 100}]},
        {"resource": "mcp:github/*", "decision": "deny"},
        {"resource": "mcp:*"},
        {"resource": "web_search"},
        {"resource": "*_20250305", "decision": "deny"},
        {"resource": "search", "decision": "deny"},
    ],
}
ADMIN_ONLY = Denial("role_restriction", "admin")
NOT_ALLOWED = Denial("tool_not_allowed")
# fmt: off
DECISIONS = [
    # names                                  role         denial
    (("export-tool",),                       "app",       ADMIN_ONLY),
    (("export-tool",),                       "anonymous", ADMIN_ONLY),
    (("export-tool",),                       "admin",     None),
    (("search",),                            "app",       None),
    (("mcp:github/delete",),                 "admin",     NOT_ALLOWED),
    (("mcp:github/*",),                      "admin",     NOT_ALLOWED),
    (("mcp:jira/read",),                     "app",       None),
    (("other",),                             "admin",     NOT_ALLOWED),
    (("",),                                  "admin",     NOT_ALLOWED),
    (("web_search",),                        "app",       None),
    (("web_search", "web_search_20250305"),  "app",       NOT_ALLOWED),
    (("web_search", "unknown"),              "app",       None),
]
# fmt: on


@pytest.mark.parametrize(("names", "role", "denial"), DECISIONS)
def test_the_first_entry_that_fits_decides(
    names: tuple[str, ...], role: str, denial: Denial | None
) -> None:
    rule = rule_of("tool_permission", TOOLS)
    assert isinstance(rule, ToolRule)
    assert rule.may(names, role) == denial
    assert rule.may_call(Call(names, {}), role) == denial


def test_several_roles_are_told() -> None:
    rule = rule_of(
        "tool_permission", {"tools": [{"resource": "x", "roles_any": ["operator", "admin"]}]}
    )
    assert isinstance(rule, ToolRule)
    assert rule.may(("x",), "app") == Denial("role_restriction", "admin or operator")
    assert rule.may(("y",), "app") is None  # `default` is allow


# --- models

ACCESS = [
    ({"allow": ["gpt-*"]}, "gpt-4o", "openai", "app", None),
    ({"allow": ["gpt-*"]}, "claude", "openai", "app", NOT_ALLOWED),
    ({"allow": ["gpt-*"]}, "", "openai", "app", NOT_ALLOWED),
    ({"deny": ["gpt-4*"]}, "gpt-4o", "openai", "admin", NOT_ALLOWED),
    ({"deny": ["gpt-4*"]}, "claude", "openai", "app", None),
    ({"deny": ["gpt-4*"], "roles_any": ["admin"]}, "gpt-4o", "openai", "app", ADMIN_ONLY),
    ({"deny": ["gpt-4*"], "roles_any": ["admin"]}, "gpt-4o", "openai", "admin", None),
    ({"deny": ["gpt-4*"], "roles_any": ["admin"]}, "claude", "openai", "app", None),
    ({"roles_any": ["admin"]}, "claude", "openai", "app", ADMIN_ONLY),
    ({"roles_any": ["admin"]}, "claude", "openai", "admin", None),
    ({"allow": ["gpt-*"], "roles_any": ["admin"]}, "gpt-4o", "openai", "app", ADMIN_ONLY),
    ({"allow": ["gpt-*"], "roles_any": ["admin"]}, "claude", "openai", "admin", NOT_ALLOWED),
    ({"allow": ["gpt-*"], "deny": ["gpt-4*"]}, "gpt-4o", "openai", "app", NOT_ALLOWED),
    (
        {"allow": ["gpt-*"], "deny": ["gpt-4*"], "roles_any": ["admin"]},
        "gpt-4o",
        "openai",
        "admin",
        NOT_ALLOWED,
    ),
    ({"providers": ["anthropic", "bedrock"]}, "claude", "openai", "app", NOT_ALLOWED),
    ({"providers": ["anthropic", "bedrock"]}, "claude", "bedrock", "app", None),
]


@pytest.mark.parametrize(("config", "model", "provider", "role", "denial"), ACCESS)
def test_access(
    config: dict[str, object], model: str, provider: str, role: str, denial: Denial | None
) -> None:
    rule = rule_of("model_access", config)
    assert isinstance(rule, AccessRule)
    assert rule.may_send(model, provider, role) == denial
    if "providers" not in config:
        assert rule.may_ask(model, role) == denial


# --- limits

EXCEEDED = [
    ({"max_messages": 2}, Amounts(counts={"max_messages": 2}), []),
    ({"max_messages": 2}, Amounts(counts={"max_messages": 3}), ["max_messages"]),
    ({"max_tools": 0}, Amounts(counts={"max_tools": 1}), ["max_tools"]),
    ({"max_images": 1}, Amounts(), []),
    ({"n_max": 4}, Amounts(choices={"n": 4}), []),
    ({"n_max": 4}, Amounts(choices={"n": 5}), ["n_max"]),
    ({"n_max": 4}, Amounts(choices={"n": "5"}), ["n_max"]),
    ({"n_max": 4}, Amounts(choices={"n": None}), []),
    ({"n_max": 4}, Amounts(choices={"n": 1, "best_of": 9}), ["n_max"]),
    ({"max_output_tokens": 9}, Amounts(outputs={"max_tokens": 9}), []),
    ({"max_output_tokens": 9}, Amounts(outputs={"max_tokens": 9.5}), ["max_output_tokens"]),
    ({"max_output_tokens": 9}, Amounts(outputs={"a": 1, "b": 10}), ["max_output_tokens"]),
    ({"max_output_tokens": 9}, Amounts(output_member="max_tokens"), []),
]
CLAMPED = [
    (Amounts(outputs={"max_tokens": 9}, output_member="max_tokens"), {}),
    (Amounts(outputs={"max_tokens": 10}, output_member="max_tokens"), {"max_tokens": 9}),
    (Amounts(outputs={"max_tokens": True}, output_member="max_tokens"), {"max_tokens": 9}),
    (Amounts(outputs={"max_tokens": None}, output_member="max_tokens"), {"max_tokens": 9}),
    (Amounts(output_member="max_completion_tokens"), {"max_completion_tokens": 9}),
    (Amounts(outputs={"a": 5, "b": 10}, output_member="a"), {"b": 9}),
    (Amounts(), {}),
]


@pytest.mark.parametrize(("config", "amounts", "exceeded"), EXCEEDED)
def test_limits(config: dict[str, int], amounts: Amounts, exceeded: list[str]) -> None:
    rule = rule_of("limits", config)
    assert isinstance(rule, LimitsRule)
    assert rule.exceeded(amounts) == exceeded


@pytest.mark.parametrize(("amounts", "clamped"), CLAMPED)
def test_an_answers_length_is_clamped(amounts: Amounts, clamped: dict[str, int]) -> None:
    rule = rule_of("limits", {"max_output_tokens": 9}, "replace")
    assert isinstance(rule, LimitsRule)
    assert rule.clamped(amounts) == clamped
    assert rule.exceeded(amounts) == (["max_output_tokens"] if clamped else [])


# --- validation


def tool(**arg: object) -> dict[str, object]:
    return {"tools": [{"resource": "t", "args": [{"path": "$.a", **arg}]}]}


FAULTS: list[tuple[str, object, dict[str, object], str, str]] = [
    ("tool_permission", {"defaults": "deny"}, {}, "config.defaults", "extra_forbidden"),
    ("tool_permission", {"default": "maybe"}, {}, "config.default", "unknown_value"),
    ("tool_permission", {"tools": [{"x": 1}]}, {}, "config.tools[0].resource", "missing"),
    (
        "tool_permission",
        {"tools": [{"resource": ""}]},
        {},
        "config.tools[0].resource",
        "string_too_short",
    ),
    ("tool_permission", tool(), {}, "config.tools[0].args[0]", "missing"),
    (
        "tool_permission",
        tool(regex="a(?=b)"),
        {},
        "config.tools[0].args[0].regex",
        "unsupported_regex",
    ),
    ("tool_permission", tool(regex="a("), {}, "config.tools[0].args[0].regex", "regex_syntax"),
    ("tool_permission", tool(min=2, max=1), {}, "config.tools[0].args[0].max", "out_of_range"),
    (
        "tool_permission",
        tool(required=True, forbidden=True),
        {},
        "config.tools[0].args[0].forbidden",
        "out_of_range",
    ),
    ("tool_permission", tool(path="limit"), {}, "config.tools[0].args[0].path", "pattern"),
    ("tool_permission", tool(path="$.a[0]"), {}, "config.tools[0].args[0].path", "pattern"),
    (
        "tool_permission",
        {"default": "deny"},
        {"action": "replace"},
        "action",
        "action_not_possible",
    ),
    ("tool_permission", {"default": "deny"}, {"action": "allow"}, "action", "action_not_possible"),
    ("tool_permission", {"default": "deny"}, {"pattern": "x"}, "pattern", "extra_forbidden"),
    (
        "tool_permission",
        {"default": "deny"},
        {"scope": {"parts": ["text"]}},
        "scope.parts",
        "extra_forbidden",
    ),
    (
        "tool_permission",
        {"default": "deny"},
        {"tests": {"match": ["x"]}},
        "tests",
        "extra_forbidden",
    ),
    ("model_access", {"allow": ["*"]}, {"action": "redact"}, "action", "action_not_possible"),
    (
        "model_access",
        {"allow": ["*"]},
        {"scope": {"direction": "response"}},
        "scope.direction",
        "kind_not_possible",
    ),
    (
        "model_access",
        {"allow": ["*"]},
        {"scope": {"direction": "out"}},
        "scope.direction",
        "kind_not_possible",
    ),
    ("model_access", {"roles_any": ["Admin!"]}, {}, "config.roles_any[0]", "pattern"),
    (
        "limits",
        {"n_max": 4},
        {"scope": {"direction": "response"}},
        "scope.direction",
        "kind_not_possible",
    ),
    ("limits", {"n_max": 4}, {"action": "replace"}, "action", "action_not_possible"),
    ("limits", {"n_max": 4}, {"action": "redact"}, "action", "action_not_possible"),
    ("limits", {"n_max": 0}, {}, "config.n_max", "greater_than_equal"),
    ("limits", {"n_most": 4}, {}, "config.n_most", "extra_forbidden"),
    (
        "limits",
        {"n_max": 4},
        {"sample_pct": 5, "mode": "shadow"},
        "sample_pct",
        "extra_forbidden",
    ),
]


@pytest.mark.parametrize(("kind", "config", "rule", "field", "code"), FAULTS)
def test_faults(kind: str, config: object, rule: dict[str, object], field: str, code: str) -> None:
    faults, _ = check_pack(pack(kind, config, **{"action": "block", **rule}))  # type: ignore[arg-type]
    assert (f"rules[0].{field}", code) in [(fault.field, fault.code) for fault in faults]


def test_a_default_action_that_is_not_possible_is_named_where_it_stands() -> None:
    said = {"rule_id": "r", "kind": "limits", "config": {"n_max": 4}}
    found = PolicyPack.model_validate(
        {"policy_pack_id": "p", "rules": [said], "default_action": "redact"}
    )
    assert [fault.field for fault in check_pack(found)[0]] == ["default_action"]


def test_a_regex_that_looks_like_a_beginning_is_warned_of() -> None:
    config = tool(regex="^https://docs\\.example/")
    _, (warning,) = check_pack(pack("tool_permission", config))
    assert warning.code == "regex_is_whole"
    assert check_pack(pack("tool_permission", tool(regex="^https://docs\\.example/.*"))) == ([], [])


@pytest.mark.parametrize(
    ("kind", "config"),
    [("tool_permission", {}), ("model_access", {}), ("limits", {})],
)
def test_a_rule_that_says_nothing_is_inert(kind: str, config: object) -> None:
    assert compile_rules([pack(kind, config)], GuardSettings()) == []


def test_the_shipped_packs() -> None:
    shelf = builtin_packs()
    tools, limits = (shelf[name].pack for name in ("tool-permission", "model-limits"))
    for shipped in (tools, limits):
        assert check_pack(shipped) == ([], [])
        assert "Does not" in shipped.description
    assert compile_rules([tools], GuardSettings()) == []  # inert until it is extended
    found = compile_rules([limits], GuardSettings())
    assert {rule.rule_id: rule.most for rule in found if isinstance(rule, LimitsRule)} == {
        "choices": {"n_max": 4},
        "input": {"max_input_chars": 2_000_000},
    }
    assert all(not isinstance(rule, AccessRule) for rule in found)
