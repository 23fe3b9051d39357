"""T-GR-30: texts judged before are not read again, and nothing else changes."""

from collections.abc import Sequence

import pytest

from proxy.guardrails.checks.validators import VALIDATORS
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard, Judgement
from proxy.guardrails.memo import MIN_CHARS, Memo
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import Maker, pack

OWN = pack(
    {"pattern": r"\bkey-\d{4,8}\b", "action": "redact"},
    {"pattern": r"\bsee\b", "action": "log"},
    {"kind": "terms", "pattern": ["state good"], "action": "flag"},
    {"pattern": r"\bkey-1234\b", "action": "allow"},
)


def guard_of(own: PolicyPack, memo: Memo) -> Guard:
    return compile_guard([own], GuardSettings(), memo=memo)


def chat(make: Maker, messages: int) -> list[Leaf]:
    leaves = []
    for at in range(messages):
        text = make.prose(80, 120) + make.r.choice(["", " key-1234 x", " key-98765."])
        leaves.append(Leaf(text, "text", "user", ("messages", at, "content"), latest=False))
    return leaves


def told(judged: Judgement) -> tuple[object, ...]:
    return (
        judged.block,
        judged.results,
        [(leaf.text, text) for leaf, text in judged.rewrites],
        judged.flagged,
        judged.scanned_chars,
    )


def test_a_second_turn_reads_only_what_is_new() -> None:
    make, memo = Maker(30), Memo()
    guard, without = guard_of(OWN, memo), guard_of(OWN, Memo(0))
    history = chat(make, 200)
    assert told(guard.judge(history, "request")) == told(without.judge(history, "request"))
    assert (memo.known, memo.unknown) == (0, 200)
    longer = history + chat(make, 2)
    assert told(guard.judge(longer, "request")) == told(without.judge(longer, "request"))
    assert (memo.known, memo.unknown) == (200, 202)
    assert repr(memo) == "<Memo 202 texts>"


def judged_twice(guard: Guard, leaves: Sequence[Leaf]) -> set[str]:
    return {repr(told(guard.judge(leaves, "request"))) for _ in range(2)}


def test_what_names_lead_to_and_short_texts_are_read_each_time() -> None:
    memo = Memo()
    guard = guard_of(OWN, memo)
    short = Leaf("see key-98765", "text", "user", ())
    argument = Leaf("see key-98765 " * 50, "tool_args", "assistant", (), inner=("key",))
    assert len(judged_twice(guard, [short])) == len(judged_twice(guard, [argument])) == 1
    assert len(memo) == memo.known == 0


def test_entries_are_of_one_rule_set_alone() -> None:
    memo = Memo()
    text = Leaf("see key-98765 " * 50, "text", "user", ())
    first, second = guard_of(OWN, memo), guard_of(pack({"pattern": "x", "action": "log"}), memo)
    assert first.judge([text], "request").rewrites
    assert not second.judge([text], "request").results
    assert not second.judge([text], "request").results
    assert first.judge([text], "request").rewrites
    assert len(memo) == 2


def test_the_least_recently_used_goes_first() -> None:
    memo = Memo(2)
    guard = guard_of(OWN, memo)
    a, b, c = (Leaf(letter * MIN_CHARS, "text", "user", ()) for letter in "abc")
    for leaf in (a, b, a, c, a, b):
        guard.judge([leaf], "request")
    assert (memo.known, memo.unknown, len(memo)) == (2, 4, 2)


def test_a_check_that_breaks_is_asked_again() -> None:
    asked: list[str] = []

    def breaks(text: str) -> tuple[int, int] | None:
        asked.append(text)
        raise ValueError

    rule = {"pattern": "key-[0-9]+", "action": "redact", "validator": "own", "on_error": "allow"}
    memo = Memo()
    guard = compile_guard(
        [pack(rule)], GuardSettings(), validators={**VALIDATORS, "own": breaks}, memo=memo
    )
    text = Leaf("x" * MIN_CHARS + " key-1", "text", "user", ())
    verdicts = [guard.judge([text], "request").results[0].verdict for _ in range(2)]
    assert verdicts == ["bypassed", "bypassed"]
    assert len(asked) == 2
    assert len(memo) == 0


@pytest.mark.parametrize("text", ["\ud800" * 300, "é" * 300, "\U0001f469\u200d\U0001f4bb" * 100])
def test_any_text_may_be_looked_up(text: str) -> None:
    guard = guard_of(OWN, Memo())
    assert len(judged_twice(guard, [Leaf(text, "text", "user", ())])) == 1
