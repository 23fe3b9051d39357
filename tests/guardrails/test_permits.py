"""T-GR-23 for rules that look at no text: a check that breaks is a verdict, never a pass; and the
account of what was denied."""

from collections.abc import Callable
from typing import cast

import pytest

from proxy.guardrails.compile import compile_rules
from proxy.guardrails.gates import Amounts, Gates
from proxy.guardrails.permits import MAX_DECISIONS, Permits
from proxy.guardrails.rules import RuleFacts
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from proxy.model.tools import Call, Tool

CONFIGS = {
    "tool_permission": {"default": "deny", "on_declared": "strip", "tools": [{"resource": "x"}]},
    "model_access": {"allow": ["x"]},
    "limits": {"max_messages": 1},
}
NO_TEXT = cast(str, 5)  # a name that breaks every check that looks at it
NO_NUMBER = cast(int, "5")


def rule_of(kind: str, **said: object) -> RuleFacts:
    rule = {"rule_id": "r", "kind": kind, "action": "block", "config": CONFIGS[kind], **said}
    pack = PolicyPack.model_validate({"policy_pack_id": "p", "rules": [rule]})
    (found,) = compile_rules([pack], GuardSettings())
    return found


def permits_of(kind: str, **said: object) -> Permits:
    return Permits(Gates.of([rule_of(kind, **said)]), "app")


def declared(permits: Permits, name: str = NO_TEXT) -> object:
    return permits.declared([Tool((name,), ("tools", 0))])


def called(permits: Permits, name: str = NO_TEXT) -> object:
    return permits.called(Call((name,), {}))


# fmt: off
CHECKS: list[tuple[str, Callable[[Permits], object]]] = [
    ("tool_permission", declared),
    ("tool_permission", lambda permits: permits.forced([Tool((NO_TEXT,), ("tool_choice",))])),
    ("tool_permission", called),
    ("model_access",    lambda permits: permits.ask_model(NO_TEXT)),
    ("limits",          lambda permits: permits.limit(Amounts({"max_messages": NO_NUMBER}))),
]
# fmt: on


@pytest.mark.parametrize(("kind", "check"), CHECKS)
def test_t_gr_23_a_check_that_breaks_blocks(kind: str, check: Callable[[Permits], object]) -> None:
    permits = permits_of(kind)
    check(permits)
    assert permits.blocked is not None
    assert not permits.forbidden
    assert permits.message.endswith("could not be checked and was blocked.")
    (result,) = permits.results
    assert (result.verdict, result.action_taken) == ("error", "block")
    assert result.message in ("AttributeError", "TypeError")


@pytest.mark.parametrize(("kind", "check"), CHECKS)
@pytest.mark.parametrize("said", [{"on_error": "allow"}, {"mode": "shadow"}, {"action": "log"}])
def test_t_gr_23_or_is_told_as_bypassed(
    kind: str, check: Callable[[Permits], object], said: dict[str, object]
) -> None:
    permits = permits_of(kind, **said)
    check(permits)
    assert permits.blocked is None
    assert [(r.verdict, r.action_taken) for r in permits.results] == [("bypassed", "none")]


def test_a_broken_check_of_a_call_is_a_block() -> None:
    assert called(permits_of("tool_permission")) == "block"
    assert called(permits_of("tool_permission", on_error="allow")) == "pass"


def test_a_broken_check_of_an_endpoint_skips_it() -> None:
    permits = permits_of("model_access")
    assert not permits.may_send("e", NO_TEXT, "openai", "m")
    assert permits.blocked is None


def test_a_broken_check_of_the_history_is_only_told() -> None:
    permits = permits_of("tool_permission")
    permits.history([Call((NO_TEXT,), {})])
    assert permits.blocked is None
    assert [r.verdict for r in permits.results] == ["bypassed"]


def test_the_account_is_bounded() -> None:
    permits = permits_of("tool_permission")
    gone = permits.declared([Tool((f"t{n}",), ("tools", n)) for n in range(1000)])
    assert len(gone) == 1000
    assert len(permits.decisions) == MAX_DECISIONS
    assert [result.count for result in permits.results] == [1000]


def test_the_strongest_of_several_rules_wins_and_all_are_told() -> None:
    rules = [rule_of("tool_permission", action=a) for a in ("log", "redact", "block", "flag")]
    permits = Permits(Gates.of(rules), "app")
    assert called(permits, "t") == "block"
    assert [r.action_taken for r in permits.results] == ["log", "redact", "block", "flag"]
    assert permits.flagged
    assert [d.count for d in permits.decisions] == [2]  # those of the rules that enforce


def test_a_packs_message_stands_before_the_names() -> None:
    said = {"rule_id": "r", "kind": "model_access", "action": "block", "config": {"deny": ["m"]}}
    pack = PolicyPack.model_validate(
        {"policy_pack_id": "p", "rules": [said], "message": "Ask the platform team."}
    )
    permits = Permits(Gates.of(compile_rules([pack], GuardSettings())), "app")
    permits.ask_model("m")
    assert permits.message == "Ask the platform team. The model 'm' is not allowed here."
