"""What a route's packs look at (guardrails.md §12)."""

import pytest

from proxy.model.policy import PolicyPack
from proxy.settings.coverage import PartCoverage, cover


def pack(pack_id: str, *rules: dict[str, object], **members: object) -> PolicyPack:
    named = [{"rule_id": f"r{i}", "pattern": "x1", "action": "redact", **rule}
             for i, rule in enumerate(rules)]  # fmt: skip
    return PolicyPack.model_validate({"policy_pack_id": pack_id, "rules": named, **members})


def part(packs: list[PolicyPack], direction: str, name: str) -> PartCoverage:
    (found,) = [
        each for each in cover(packs).parts if (each.direction, each.part) == (direction, name)
    ]
    return found


IN, OUT, NONE = "request", "response", "no rule in scope"
SOME, LATE = "enforced: p (system user)", "enforced: p (latest turn)"
PLACEHOLDER = {"pattern": "[regulated terms]"}
# fmt: off
CASES: list[tuple[PolicyPack, str, str, str]] = [
    (pack("p", {}),                                          IN, "text", "enforced: p"),
    (pack("p", {}),                                          OUT, "reasoning", "enforced: p"),
    (pack("p", {}),                                          IN, "tool_def", NONE),
    (pack("p", {"scope": {"parts": ["tool_def"]}}),          IN, "tool_def", "enforced: p"),
    (pack("p", {"scope": {"parts": ["tool_def"]}}),          IN, "text", NONE),
    (pack("p", {"kind": "unicode", "pattern": None}),        IN, "tool_def", "enforced: p"),
    (pack("p", {}),                                          IN, "reasoning", "signed reasoning"),
    (pack("p", {"scope": {"direction": "out"}}),             IN, "text", NONE),
    (pack("p", {"scope": {"direction": "out"}}),             OUT, "text", "enforced: p"),
    (pack("p", {}, scope={"direction": "request"}),          OUT, "text", NONE),
    (pack("p", {"action": "log"}),                           IN, "text", "recorded: p"),
    (pack("p", {}, mode="shadow"),                           IN, "text", "shadow: p"),
    (pack("p", {"mode": "enforce"}, mode="shadow"),          IN, "text", "enforced: p"),
    (pack("p", {}, enabled=False),                           IN, "text", NONE),
    (pack("p", {"enabled": False}),                          IN, "text", NONE),
    (pack("p", {"action": "allow"}),                         IN, "text", NONE),
    (pack("p", PLACEHOLDER),                                 IN, "text", "inert rule"),
    (pack("p", PLACEHOLDER, lists={"regulated terms": ["x"]}), IN, "text", "enforced: p"),
    (pack("p", PLACEHOLDER | {"kind": "regex"}),             IN, "text", "enforced: p"),
    (pack("p", {"kind": "limits", "pattern": None}),         IN, "text", NONE),
    (pack("p", {"scope": {"roles": ["developer", "user"]}}), IN, "text", SOME),
    (pack("p", {"scope": {"roles": ["user"]}}, {}),          IN, "text", "enforced: p"),
    (pack("p", {"scope": {"turns": "latest"}}),              IN, "text", LATE),
]
# fmt: on


@pytest.mark.parametrize(("one", "direction", "name", "said"), CASES)
def test_one_pack(one: PolicyPack, direction: str, name: str, said: str) -> None:
    found = part([one], direction, name)
    kinds = (("enforced", found.enforced), ("recorded", found.recorded), ("shadow", found.shadow))
    labels = [f"{kind}: {' '.join(packs)}" for kind, packs in kinds if packs]
    assert (", ".join(labels) or found.reason) == said


HOLES: list[tuple[PolicyPack, bool]] = [
    (pack("p", {}), False),
    (pack("p", PLACEHOLDER), True),
    (pack("p"), True),
    (pack("p", {}, enabled=False), True),
    (pack("p", {"kind": "limits", "pattern": None}), True),
    (pack("p", {"scope": {"direction": "request"}}), False),  # a setting names it
]


@pytest.mark.parametrize(("one", "holes"), HOLES)
def test_a_hole_is_what_no_setting_names(one: PolicyPack, holes: bool) -> None:
    assert bool(cover([one]).holes) is holes


def test_the_strictest_pack_counts() -> None:
    lax = pack("a", {}, reasoning="off")
    strict = pack("b", {}, reasoning="live", unscannable={"binary": "block"})
    assert cover([lax]).reasoning == "off"
    both = cover([lax, strict])
    assert (both.reasoning, both.binary, both.remote) == ("live", "block", "allow")


def test_tools_and_limits_stand_apart() -> None:
    tools = pack("t", {"kind": "tool_permission", "pattern": None, "config": {"default": "deny"}})
    inert = pack("i", {"kind": "tool_permission", "pattern": None})
    limits = pack("l", {"kind": "limits", "pattern": None})
    found = cover([tools, inert, limits])
    assert (found.tools, found.requests) == (["t"], ["l"])
