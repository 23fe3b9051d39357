"""Validation of packs: every fault names its member, and nothing unbuilt is taken in silence."""

import time

import pytest

from proxy.guardrails.compile import PackError, check_pack, compile_guard, compile_rules
from proxy.guardrails.rules import LiveRule
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import pack

TO = "rules[0].config.reroute_to"
FAULTS = [
    # rule, field, code
    ({"pattern": r"a(?=b)"}, "rules[0].pattern", "unsupported_regex"),
    ({"pattern": ["ab", r"a++"]}, "rules[0].pattern[1]", "unsupported_regex"),
    ({"pattern": r"a("}, "rules[0].pattern", "regex_syntax"),
    ({"pattern": r"\p{Klingon}"}, "rules[0].pattern", "regex_syntax"),
    ({"pattern": r"\ba*"}, "rules[0].pattern", "empty_match"),
    ({"pattern": "(" * 60 + "a" + ")" * 60}, "rules[0].pattern", "regex_too_large"),
    ({"pattern": r"(?:[\pL\pN]{30}-){30}"}, "rules[0].pattern", "regex_too_large"),
    ({"pattern": r"(((a{0,4}){4}b{0,4}){4}c){4}" * 99}, "rules[0].pattern", "regex_too_large"),
    ({"kind": "injection"}, "rules[0].pattern", "missing"),
    (
        {"kind": "injection", "pattern": "ab", "config": {"family": "a b"}},
        "rules[0].config.family",
        "pattern",
    ),
    (
        {"kind": "injection", "pattern": "ab", "config": {"decode": ["rot13"]}},
        "rules[0].config.decode[0]",
        "unknown_value",
    ),
    (
        {
            "kind": "injection",
            "pattern": "ab",
            "config": {"decode": ["hex"]},
            "scope": {"direction": "response"},
        },
        "rules[0].config.decode",
        "kind_not_possible",
    ),
    ({"kind": "topic", "config": {"list": "no"}}, "rules[0].config.list", "unknown_list"),
    ({"kind": "topic"}, "rules[0].pattern", "out_of_range"),
    (
        {"kind": "topic", "pattern": "ab", "config": {"category": ""}},
        "rules[0].config.category",
        "pattern",
    ),
    ({"kind": "unicode"}, "rules[0].config.class", "missing"),
    (
        {"kind": "unicode", "config": {"class": "bidi"}, "pattern": "ab"},
        "rules[0].pattern",
        "extra_forbidden",
    ),
    ({"kind": "pii"}, "rules[0].pattern", "missing"),
    (
        {"kind": "pii", "pattern": "ab", "config": {"entity": "e-mail"}},
        "rules[0].config.entity",
        "pattern",
    ),
    ({"kind": "external"}, "rules[0].config.adapter", "missing"),
    ({"kind": "regex"}, "rules[0].pattern", "missing"),
    ({"pattern": "ab", "action": "reroute"}, "rules[0].config.reroute_to", "missing"),
    ({"pattern": "ab", "action": "reroute", "config": {"reroute_to": []}}, TO, "invalid_value"),
    ({"pattern": "ab", "action": "reroute", "config": {"reroute_to": 7}}, TO, "invalid_value"),
    ({"pattern": "ab", "action": "reroute", "config": {"reroute_to": "a b"}}, TO, "invalid_value"),
    ({"pattern": "ab", "action": "reroute", "config": {"reroute_to": {}}}, TO, "invalid_value"),
    (
        {"pattern": "ab", "action": "reroute", "config": {"reroute_to": ["a"] * 2}},
        TO,
        "invalid_value",
    ),
    (
        {"pattern": "ab", "action": "reroute", "config": {"reroute_to": ["a"] * 11}},
        TO,
        "invalid_value",
    ),
    ({"pattern": "ab", "action": "block", "config": {"reroute_to": "a"}}, TO, "extra_forbidden"),
    (
        {
            "pattern": "ab",
            "action": "reroute",
            "config": {"reroute_to": "a"},
            "scope": {"direction": "both"},
        },
        "rules[0].action",
        "action_not_possible",
    ),
    (
        {
            "kind": "terms",
            "pattern": "ab",
            "action": "reroute",
            "config": {"reroute_to": "a", "gaps": 9},
        },
        "rules[0].config.gaps",
        "less_than_equal",
    ),
    ({"pattern": "ab+", "action": "allow"}, "rules[0].action", "action_not_possible"),
    ({"pattern": "ab", "reversible": True}, "rules[0].reversible", "action_not_possible"),
    ({"pattern": "ab", "sample_pct": 5}, "rules[0].sample_pct", "sample_on_enforcing_rule"),
    ({"pattern": "ab", "timeout_ms": 5}, "rules[0].timeout_ms", "kind_not_possible"),
    ({"pattern": "ab", "validator": "nope"}, "rules[0].validator", "unknown_validator"),
    ({"pattern": "ab", "group": 1}, "rules[0].group", "out_of_range"),
    ({"pattern": "ab", "allow": ["a", "(?!b)"]}, "rules[0].allow[1]", "unsupported_regex"),
    ({"pattern": [r"x\pL{1,200}y"] * 200}, "rules[0].pattern[2]", "regex_too_large"),
    ({"pattern": "ab", "allow": [r"x\pL{1,200}y"] * 100}, "rules[0].allow[2]", "regex_too_large"),
    ({"pattern": "ab", "config": {"lists": 1}}, "rules[0].config.lists", "extra_forbidden"),
    ({"kind": "terms", "config": {"list": "no"}}, "rules[0].config.list", "unknown_list"),
    (
        {"kind": "terms", "pattern": "ab", "config": {"gaps": 9}},
        "rules[0].config.gaps",
        "less_than_equal",
    ),
    (
        {"kind": "terms", "pattern": "ab", "config": {"boundary": "x"}},
        "rules[0].config.boundary",
        "unknown_value",
    ),
    ({"kind": "terms", "pattern": "a"}, "rules[0].pattern", "out_of_range"),
    ({"kind": "terms"}, "rules[0].pattern", "out_of_range"),
    ({"pattern": "ab", "tests": {"match": ["ab", "b"]}}, "rules[0].tests.match[1]", "test_failed"),
    (
        {"pattern": "ab", "tests": {"no_match": ["cab"]}},
        "rules[0].tests.no_match[0]",
        "test_failed",
    ),
    (
        {"pattern": "ab|cd", "keywords": ["ab"], "tests": {"match": ["cd"]}},
        "rules[0].keywords",
        "keywords_not_implied",
    ),
]


@pytest.mark.parametrize(("rule", "field", "code"), FAULTS)
def test_a_fault_names_its_member(rule: dict[str, object], field: str, code: str) -> None:
    faults, _ = check_pack(pack(rule))
    assert [(fault.field, fault.code) for fault in faults] == [(field, code)]
    assert "secret text" not in faults[0].message


def test_faults_of_the_pack_itself() -> None:
    own = pack(
        {"rule_id": "a", "pattern": "ab"},
        {"rule_id": "a", "pattern": "cd"},
        extends="secrets-core",
    )
    faults, _ = check_pack(own)
    assert {(fault.field, fault.code) for fault in faults} == {
        ("rules[1].rule_id", "duplicate_rule_id"),
        ("extends", "kind_not_possible"),
    }


@pytest.mark.parametrize("action", ["redact", "replace", "allow"])
def test_what_is_counted_can_be_blocked_flagged_or_logged(action: str) -> None:
    rule: dict[str, object] = {"kind": "injection", "pattern": "ab", "action": action}
    rule["fold"] = "none"
    assert check_pack(pack(rule))[0] == []
    faults, _ = check_pack(pack(rule, scoring={"mode": "sum"}))
    assert [(f.field, f.code) for f in faults] == [("rules[0].action", "action_not_possible")]
    del rule["action"]
    faults, _ = check_pack(pack(rule, scoring={"mode": "sum"}, default_action=action))
    assert [(f.field, f.code) for f in faults] == [("default_action", "action_not_possible")]


def test_a_sum_of_nothing_is_warned_of() -> None:
    faults, warnings = check_pack(pack({"pattern": "ab"}, scoring={"mode": "sum"}))
    assert faults == []
    assert [(w.field, w.code) for w in warnings] == [("scoring.mode", "never_counts")]


def test_all_faults_come_at_once_with_their_positions() -> None:
    own = pack({"pattern": "fine"}, {"pattern": r"\bkey\Z"}, {"pattern": r"ab(?>a)"})
    with pytest.raises(PackError) as told:
        compile_guard([own], GuardSettings())
    assert [(f.field, f.position) for f in told.value.faults] == [
        ("rules[1].pattern", 5),
        ("rules[2].pattern", 2),
    ]


# fmt: off
WARNINGS = [
    ({"pattern": r"\w+"},                                  "matches_very_often"),
    ({"pattern": r"a\d+b", "validator": "luhn"},           "unbounded_in_stream"),
    ({"pattern": "ab|cd", "keywords": ["ab"]},             "keywords_not_proven"),
    ({"pattern": "ab", "confidence": 0.3},                 "never_hits"),
]
# fmt: on


@pytest.mark.parametrize(("rule", "code"), WARNINGS)
def test_warnings(rule: dict[str, object], code: str) -> None:
    faults, warnings = check_pack(pack(rule))
    assert faults == []
    assert [warning.code for warning in warnings] == [code]


def test_t_gr_29_the_seeds_placeholder_is_accepted_inert_and_warned() -> None:
    seed = PolicyPack.model_validate(
        {
            "policy_pack_id": "safety-v2",
            "version": "2.1.0",
            "rules": [
                {
                    "rule_id": "hate_speech",
                    "severity": "high",
                    "pattern": "[regulated terms]",
                    "action": "block",
                }
            ],
            "default_action": "log",
            "description": "Comprehensive safety policies for production chat routes",
        }
    )
    faults, warnings = check_pack(seed)
    assert faults == []
    assert [w.code for w in warnings] == ["pattern_looks_like_placeholder", "list_missing"]
    guard = compile_guard([seed], GuardSettings())
    assert guard.profile == "safety-v2@2.1.0"
    assert not guard.covers("request")
    assert guard.lane("text") is None
    assert guard.judge([Leaf("regulated terms", "text", "user", ())], "request").results == []


def test_the_placeholder_names_a_list_of_its_pack() -> None:
    own = pack(
        {"pattern": "[regulated terms]", "action": "block"},
        lists={"regulated terms": ["forbidden thing"]},
    )
    guard = compile_guard([own], GuardSettings())
    assert guard.judge([Leaf("A Forbidden_Thing!", "text", "user", ())], "request").block


def test_with_a_kind_the_brackets_are_a_character_class() -> None:
    own = pack({"kind": "regex", "pattern": "[regulated terms]", "action": "block"})
    guard = compile_guard([own], GuardSettings())
    assert guard.judge([Leaf("x m", "text", "user", ())], "request").block


@pytest.mark.thorough
def test_a_long_term_list_compiles_and_finds() -> None:
    words = [f"term{at:04d} of art" for at in range(800)]
    own = pack({"kind": "terms", "config": {"list": "many"}}, lists={"many": words})
    guard = compile_guard([own], GuardSettings())
    found = guard.judge([Leaf("a TERM0799_of-art", "text", "user", ())], "request")
    assert found.results[0].rule_matched == "r0"


def test_disabled_packs_and_rules_do_nothing() -> None:
    off = pack({"pattern": "ab"}, enabled=False)
    half = pack({"pattern": "ab", "enabled": False})
    guard = compile_guard([off, half], GuardSettings())
    assert guard.profile == "own@1.0.0"
    assert not guard.covers("request")


def test_settings_of_several_packs_the_strictest_wins() -> None:
    lax = pack({"pattern": "ab"}, reasoning="off", tool_args="live")
    strict = pack({"pattern": "ab"}, reasoning="live", unscannable={"remote": "block"})
    guard = compile_guard([lax, strict], GuardSettings())
    assert (guard.reasoning, guard.tool_args) == ("live", "hold")
    assert (guard.unscannable.binary, guard.unscannable.remote) == ("allow", "block")


def test_the_strictest_pack_says_whether_reasoning_is_scanned() -> None:
    lax, strict = pack({"pattern": "ab"}, reasoning="off"), pack({"pattern": "cd"})
    thought = [Leaf("ab", "reasoning", "assistant", ("choices", 0))]
    for packs, found in (([lax], 0), ([lax, strict], 1), ([strict, lax], 1)):
        guard = compile_guard(packs, GuardSettings())
        assert len(guard.judge(thought, "response").results) == found
        assert (guard.lane("reasoning") is not None) == bool(found)
    switched_off = pack({"pattern": "cd"}, enabled=False)
    guard = compile_guard([lax, switched_off], GuardSettings())
    assert guard.judge(thought, "response").results == []


# fmt: off
MESSAGES = [
    ("Not here, please: ask {team}.",       True),
    ("Found {{ match }}.",                  True),
    ("Found ${match}.",                     True),
    ("Found $match.",                       True),
    ("Found %s.",                           True),
    ("Found %(match)s.",                    True),
    ("Found <%= match %>.",                 True),
    ("Found {}.",                           True),
    ("At most 50 % of it, or US$ 5.",       False),
    ("Ask the <security> team [at 9].",     False),
    ("100% sure: see the handbook, p. 3.",  False),
]
# fmt: on


@pytest.mark.parametrize(("message", "refused"), MESSAGES)
def test_nothing_is_filled_into_the_sentence_of_a_pack(message: str, refused: bool) -> None:
    faults, _ = check_pack(pack({"pattern": "ab"}, message=message))
    told = [("message", "placeholder_in_message")] if refused else []
    assert [(fault.field, fault.code) for fault in faults] == told


def test_a_pack_that_takes_too_long_to_compile_is_refused_whole() -> None:
    answers = iter([False, True, True])
    rules = [{"pattern": f"word{place}"} for place in range(3)]
    faults, _ = check_pack(pack(*rules), over=lambda: next(answers))
    (fault,) = faults
    assert (fault.field, fault.code) == ("rules", "pack_too_large")
    assert "at rule 1" in fault.message


@pytest.mark.thorough
@pytest.mark.parametrize(
    "pattern",
    ["0" * 4096, "-" * 4096, "a" * 4096, "é" * 4096, "[0-9]" * 800, r"\d{1,3}" * 580, "ab|" * 1365],
)
def test_the_longest_patterns_are_read_soon(pattern: str) -> None:
    began = time.process_time()
    check_pack(pack({"pattern": pattern}))
    assert time.process_time() - began < 2


HELD: list[tuple[dict[str, object], bool]] = [
    ({"action": "redact"}, True),
    ({"action": "block"}, True),
    ({"action": "log"}, False),
    ({"action": "redact", "mode": "shadow"}, False),
    ({"action": "redact", "scope": {"direction": "request"}}, False),
]


@pytest.mark.parametrize(("said", "held"), HELD)
def test_beginnings_are_compiled_where_a_stream_is_held_for_them(
    said: dict[str, object], held: bool
) -> None:
    """They take as long as the rest of the pack, which rules that only watch need not pay."""
    rule = {"rule_id": "r", "pattern": f"beginning-{sorted(said.items())}".replace("'", ""), **said}
    pack = PolicyPack.model_validate({"policy_pack_id": "p", "rules": [rule]})
    (live,) = compile_rules([pack], GuardSettings())
    assert isinstance(live, LiveRule)
    assert (live.pattern._open_tail is not None) is held
    assert live.pattern.open_tail is live.pattern.open_tail
