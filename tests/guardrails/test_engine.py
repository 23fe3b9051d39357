"""Whole texts: actions, precedence, scope, errors, and what is told about them."""

import pytest

from proxy.guardrails.checks.validators import VALIDATORS
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard
from proxy.model.exchange import Direction, Leaf, Part, Role
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import pack


def breaks(text: str) -> tuple[int, int] | None:
    raise ZeroDivisionError(text)


CHECKS = {**VALIDATORS, "breaks": breaks, "tail": lambda text: (1, len(text))}


def guard_of(*packs: PolicyPack) -> Guard:
    return compile_guard(packs, GuardSettings(), validators=CHECKS)


def leaf(text: str, part: Part = "text", role: Role = "user") -> Leaf:
    return Leaf(text, part, role, ("messages", 0, "content"))


# fmt: off
REWRITES = [
    # rules                                  text             becomes
    ([("ab", "redact")],                     "xabyab",        "x[R0]y[R0]"), # every one
    ([("ab", "redact"), ("bc", "redact")],   "xabcx",         "x[R0]x"),       # a union
    ([("bc", "redact"), ("ab", "redact")],   "xabcx",         "x[R1]x"),       # first start
    ([("ab", "redact"), ("cd", "redact")],   "abcd",          "[R0][R1]"),     # touching
    ([("abc", "redact"), ("a", "redact")],   "abc",           "[R0]"),
    ([("ab", "replace")],                    "xab",           "xR0"),
    ([("ab", "log")],                        "ab",            None),
    ([("ab", "flag")],                       "ab",            None),
    ([("ab", "redact"), ("xabx", "allow")],  "xabx ab",       "xabx [R0]"),
    ([("é+", "redact")],                     "aéé日é",         "a[R0]日[R0]"),
]
# fmt: on


@pytest.mark.parametrize(("rules", "text", "becomes"), REWRITES)
def test_rewriting(rules: list[tuple[str, str]], text: str, becomes: str | None) -> None:
    guard = guard_of(pack(*({"pattern": p, "action": a} for p, a in rules)))
    judged = guard.judge([leaf(text)], "request")
    assert [new for _, new in judged.rewrites] == ([becomes] if becomes is not None else [])
    assert judged.block is None


def test_the_result_speaks_the_words_of_the_page() -> None:
    rule = {"pattern": "é[0-9]+", "action": "redact", "severity": "high", "rule_id": "code.ref-no"}
    judged = guard_of(pack(rule)).judge([leaf("日é12 é3"), leaf("none")], "request")
    (result,) = judged.results
    assert (result.policy_id, result.policy_version) == ("own", "1.0.0")
    assert (result.rule_matched, result.verdict) == ("code.ref-no", "violation")
    assert (result.action_taken, result.enforced, result.detector) == ("redact", True, "regex")
    assert (result.span_start, result.span_end, result.count) == (1, 4, 2)
    assert (result.severity, result.applies_to, result.direction) == ("high", "text", "request")
    assert judged.rewrites[0][1] == "日[REF_NO] [REF_NO]"
    assert (judged.scanned_chars, judged.total_chars) == (11, 11)


def test_precedence_block_wins_and_every_hit_is_recorded() -> None:
    guard = guard_of(
        pack(
            {"pattern": "ab", "action": "log"},
            {"pattern": "ab", "action": "redact"},
            {"pattern": "ab", "action": "flag"},
            {"pattern": "cd", "action": "block"},
            message="Not here.",
        )
    )
    judged = guard.judge([leaf("ab cd")], "request")
    assert judged.block is not None
    assert judged.block.rule_matched == "r3"
    assert judged.message == "Not here."
    assert judged.rewrites == []
    assert judged.flagged
    assert [r.action_taken for r in judged.results] == ["block", "redact", "flag", "log"]


def test_the_sentence_is_never_the_matched_text() -> None:
    guard = guard_of(pack({"pattern": "hidden", "action": "block"}))
    for direction, sentence in (
        ("request", "The request was blocked by a content policy."),
        ("response", "The response was blocked by a content policy."),
    ):
        judged = guard.judge([leaf("hidden")], direction)
        assert judged.message == sentence
        assert "hidden" not in repr(judged.results)


@pytest.mark.parametrize("part", ["text", "tool_args"])
def test_a_rewrite_that_is_not_possible_is_a_block(part: Part) -> None:
    guard = guard_of(pack({"pattern": "ab", "action": "redact"}))
    fixed = Leaf("ab", part, "assistant", ("a",), inner=("key",), rewritable=False)
    judged = guard.judge([leaf("ab"), fixed], "response")
    assert judged.block is not None
    assert judged.block.action_taken == "block"
    assert judged.rewrites == []


def test_t_gr_24_shadow_changes_nothing_and_tells() -> None:
    guard = guard_of(
        pack(
            {"pattern": "ab", "action": "redact"},
            {"pattern": "ab", "action": "block"},
            mode="shadow",
        )
    )
    judged = guard.judge([leaf("ab")], "request")
    assert judged.block is None
    assert judged.rewrites == []
    assert [(r.enforced, r.action_taken, r.message) for r in judged.results] == [
        (False, "none", "would block"),
        (False, "none", "would redact"),
    ]
    assert not guard.enforces("request", "text")
    assert guard.covers("request")


# fmt: off
BROKEN = [
    # action    on_error  mode       verdict     action_taken  blocked
    ("block",   "block",  "enforce", "error",    "block",      True),
    ("redact",  "block",  "enforce", "error",    "block",      True),
    ("replace", "block",  "enforce", "error",    "block",      True),
    ("allow",   "block",  "enforce", "error",    "block",      True),
    ("block",   "allow",  "enforce", "bypassed", "none",       False),
    ("redact",  "allow",  "enforce", "bypassed", "none",       False),
    ("log",     "block",  "enforce", "bypassed", "none",       False), # it only watches
    ("block",   "block",  "shadow",  "bypassed", "none",       False),
]
# fmt: on


@pytest.mark.parametrize(("action", "on_error", "mode", "verdict", "taken", "blocked"), BROKEN)
@pytest.mark.parametrize("kind", ["regex", "secret", "terms"])
def test_t_gr_23_a_check_that_breaks_is_never_a_pass(
    kind: str, action: str, on_error: str, mode: str, verdict: str, taken: str, blocked: bool
) -> None:
    rule: dict[str, object] = {"kind": kind, "pattern": "abc123", "action": action}
    rule |= {"validator": "breaks", "fold": "none"}
    guard = guard_of(pack(rule, on_error=on_error, mode=mode))
    judged = guard.judge([leaf("x abc123 y")], "request")
    (result,) = judged.results
    assert (result.verdict, result.action_taken) == (verdict, taken)
    assert result.message == "ZeroDivisionError"
    assert (judged.block is not None) is blocked
    if blocked:
        assert judged.message == "The request could not be checked and was blocked."
    lane = guard.lane("text")
    if lane is None:  # nothing to exempt from
        assert action == "allow"
        return
    assert (lane.feed("x abc123") + lane.feed(" y") + lane.finish() == "x abc123 y") is not blocked
    assert [(r.verdict, r.action_taken) for r in lane.results()] == [(verdict, taken)]
    assert (lane.blocked is not None) is blocked


SCOPES: list[tuple[dict[str, object], Direction, Part, Role, bool, bool]] = [
    # scope                    direction   part           role        latest covered
    ({}, "request", "text", "user", False, True),
    ({}, "request", "tool_result", "tool", True, True),
    ({}, "request", "tool_def", "system", True, False),
    ({"parts": ["tool_def"]}, "request", "tool_def", "system", True, True),
    ({"parts": ["tool_def"]}, "request", "text", "system", True, False),
    ({}, "request", "reasoning", "assistant", True, False),
    ({}, "response", "reasoning", "assistant", True, True),
    ({"direction": "in"}, "response", "text", "assistant", True, False),
    ({"direction": "out"}, "response", "text", "assistant", True, True),
    ({"direction": "request"}, "request", "text", "user", True, True),
    ({"roles": ["developer"]}, "request", "text", "system", True, True),
    ({"roles": ["function"]}, "request", "tool_result", "tool", True, True),
    ({"roles": ["user"]}, "request", "text", "assistant", True, False),
    ({"turns": "latest"}, "request", "text", "user", False, False),
    ({"turns": "latest"}, "request", "text", "user", True, True),
]


@pytest.mark.parametrize(("scope", "direction", "part", "role", "latest", "covered"), SCOPES)
def test_scope(
    scope: dict[str, object],
    direction: Direction,
    part: Part,
    role: Role,
    latest: bool,
    covered: bool,
) -> None:
    guard = guard_of(pack({"pattern": "ab", "action": "block", "scope": scope}))
    judged = guard.judge([Leaf("ab", part, role, (), latest=latest)], direction)
    assert (judged.block is not None) is covered
    assert judged.scanned_chars == (2 if covered else 0)
    assert judged.total_chars == 2


def test_the_packs_scope_holds_for_rules_that_say_nothing() -> None:
    guard = guard_of(
        pack(
            {"pattern": "ab", "action": "block"},
            {"pattern": "cd", "action": "block", "scope": {}},
            scope={"direction": "response"},
        )
    )
    assert guard.judge([leaf("ab")], "request").block is None
    assert guard.judge([leaf("cd")], "request").block is not None


def test_reasoning_that_is_off_is_not_scanned() -> None:
    guard = guard_of(pack({"pattern": "ab", "action": "block"}, reasoning="off"))
    assert guard.lane("reasoning") is None
    assert not guard.enforces("response", "reasoning")
    assert guard.enforces("response", "text")


def test_a_validator_may_narrow_the_span_and_a_group_may_be_it() -> None:
    guard = guard_of(
        pack(
            {"pattern": "xab", "validator": "tail", "action": "redact"},
            {"pattern": "k=([0-9]+)?", "group": 1, "action": "redact"},
        )
    )
    assert guard.judge([leaf("xab k=12 k=")], "request").rewrites[0][1] == "x[R0] k=[R1] [R1]"


def test_a_refused_hit_of_bounded_width_is_tried_again_one_character_on() -> None:
    card = {"pattern": r"\b\d(?:[ -]?\d){12,18}\b", "validator": "luhn", "action": "redact"}
    judged = guard_of(pack(card)).judge([leaf("1 4111 1111 1111 1111")], "request")
    assert judged.rewrites[0][1] == "1 [R0]"


def test_allow_is_about_the_span_alone() -> None:
    rule = {"pattern": r"\bkey-[a-z]+\b", "allow": ["key-test"], "action": "redact"}
    judged = guard_of(pack(rule)).judge([leaf("key-test key-testing key-real")], "request")
    assert judged.rewrites[0][1] == "key-test [R0] [R0]"


# fmt: off
TERMS = [
    # terms             config                  text                      becomes
    (["alter"],         {},                     "alternative alter ALTER", "alternative [R0] [R0]"),
    (["hate speech"],   {},                     "hate_speech hate - speech",  "[R0] [R0]"),
    (["hate speech"],   {},                     "hatespeech Hate Speech", "hatespeech [R0]"),
    (["hate"],          {},                     "h\u200bаt\u0301e hates",  "[R0] hates"),
    (["ate"],           {"boundary": "none"},   "late rates",              "l[R0] r[R0]s"),
    (["hate"],          {"gaps": 2},            "h a..t e  hate",          "[R0]  [R0]"),
    (["ab", "ab cd"],   {},                     "ab cd ab",                "[R0] [R0]"),
    (["机密"],           {},                     "这是机密文件",              "这是[R0]文件"),
    (["c++"],           {},                     "in C++!",                 "in [R0]!"),
]
# fmt: on


@pytest.mark.parametrize(("terms", "config", "text", "becomes"), TERMS)
def test_terms(terms: list[str], config: dict[str, object], text: str, becomes: str) -> None:
    rule = {"kind": "terms", "pattern": terms, "config": config, "action": "redact"}
    assert guard_of(pack(rule)).judge([leaf(text)], "request").rewrites[0][1] == becomes


def test_a_hostile_pattern_and_text_take_linear_time() -> None:
    guard = guard_of(pack({"pattern": "(a+)+$", "action": "block"}))
    assert guard.judge([leaf("a" * 100_000 + "b")], "request").block is None


def test_unpaired_surrogates_are_searched_too() -> None:
    guard = guard_of(pack({"pattern": "ab", "action": "redact"}))
    assert guard.judge([leaf("\ud83dab\udc00")], "request").rewrites[0][1] == "\ud83d[R0]\udc00"


def test_no_packs_no_work() -> None:
    guard = guard_of()
    assert (guard.profile, guard.lane("text"), guard.covers("response")) == ("", None, False)
    assert guard.judge([leaf("anything")], "request").total_chars == 8
    assert repr(guard) == "<Guard empty 0 rules>"
