"""What a route's packs look at (guardrails.md §12)."""

from typing import get_args

import pytest

from proxy.guardrails.compile import compile_guard
from proxy.model.policy import Kind, PolicyPack
from proxy.model.tenancy import GuardSettings
from proxy.settings.coverage import SURFACES, PartCoverage, cover, route_doc
from proxy.wire.paths import PathFault, read_target


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
    (pack("p", {"action": "reroute"}),                       IN, "text", "enforced: p"),
    (pack("p", {"action": "reroute"}),                       OUT, "text", NONE),
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
    (off,) = [each for each in cover([lax]).parts if each.reason == "reasoning: off"]
    assert cover([lax]).reasoning == "off"
    assert (off.direction, off.part, off.scanned, off.hole) == (OUT, "reasoning", False, False)
    assert all(each.scanned for each in cover([lax, strict]).parts if each.part == off.part
               and each.direction == OUT)  # fmt: skip
    both = cover([lax, strict])
    assert (both.reasoning, both.binary, both.remote) == ("live", "block", "allow")


def test_tools_and_limits_stand_apart() -> None:
    tools = pack("t", {"kind": "tool_permission", "pattern": None, "config": {"default": "deny"}})
    inert = pack("i", {"kind": "tool_permission", "pattern": None})
    limits = pack("l", {"kind": "limits", "pattern": None})
    found = cover([tools, inert, limits])
    assert (found.tools, found.requests) == (["t"], ["l"])


def test_the_paths_are_those_with_a_map() -> None:
    """Of each guarded grammar one path; all others are only passed on, and refused with packs."""
    seen = {}
    for each in SURFACES:
        for path in each.paths:
            surface = read_target("POST", path)
            assert not isinstance(surface, PathFault)
            seen[each.surface] = (surface.dialect, surface.operation)
    assert seen == {
        "openai_chat": ("openai_chat", "chat"),
        "openai_completions": ("openai_chat", "completions"),
        "openai_embeddings": ("openai_chat", "embeddings"),
        "anthropic_messages": ("anthropic_messages", "messages"),
        "anthropic_count_tokens": ("anthropic_messages", "count_tokens"),
    }


@pytest.mark.parametrize(
    ("members", "reasons"),
    [
        ({}, ["binary", "remote", "signed reasoning", "opaque"]),
        ({"unscannable": {"binary": "block"}}, ["remote", "signed reasoning", "opaque"]),
        ({"unscannable": {"binary": "block", "remote": "block"}}, ["signed reasoning", "opaque"]),
    ],
)
def test_what_lies_outside_the_parts(members: dict[str, object], reasons: list[str]) -> None:
    found = cover([pack("p", {}, **members)]).not_scanned
    assert [each.reason for each in found] == reasons


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        ({"stage": "window"}, "config.window.overlap: 200"),
        ({"stage": "window", "window": {"overlap": 90}}, "config.window.overlap: 90"),
        ({"stage": "buffer"}, None),
        ({}, None),
    ],
)
def test_a_check_in_windows_has_borders(config: dict[str, object], setting: str | None) -> None:
    one = pack("p", {"kind": "external", "pattern": None, "config": config})
    found = [each for each in cover([one]).not_scanned if each.reason == "window border"]
    assert [each.setting for each in found] == ([setting] if setting else [])
    assert all("p/r0" in each.what for each in found)


def test_a_route_without_packs_is_told_as_such() -> None:
    doc = route_doc("r", [], "gone")
    assert (doc["guarded"], doc["unusable"], doc["parts"], doc["surfaces"]) == (
        False,
        "gone",
        [],
        [],
    )


TOLD: dict[str, object] = {"adapter": "http", "url": "https://checks.example/"}
SCHEMA: dict[str, object] = {"schema": {"type": "object"}}

STREAMS: list[tuple[str, dict[str, object], str]] = [
    ("terms", {"pattern": ["secret"]}, "exact"),
    ("regex", {"pattern": "secret"}, "exact"),
    ("regex", {"pattern": "secret", "action": "log"}, "exact"),
    ("regex", {"pattern": "secret", "mode": "shadow"}, "exact"),
    ("secret", {"pattern": "key-[a-z]{9,}"}, "exact"),
    ("pii", {"pattern": "[0-9]{9,16}", "config": {"entity": "CARD"}}, "exact"),
    ("unicode", {"config": {"class": "tags"}}, "exact"),
    ("injection", {"pattern": "ignore all", "config": {"family": "override"}}, "exact"),
    ("topic", {"pattern": ["secret"], "config": {"category": "c"}}, "exact"),
    ("url", {}, "exact"),
    ("tool_permission", {"action": "block", "config": {"default": "deny"}}, ""),
    ("model_access", {"action": "block", "scope": {"direction": "request"},
                      "config": {"deny": ["x"]}}, ""),
    ("limits", {"action": "block", "scope": {"direction": "request"},
                "config": {"n_max": 4}}, ""),
    ("json_schema", {"action": "block", "config": SCHEMA}, "held to its end"),
    ("json_schema", {"action": "log", "config": SCHEMA}, "afterwards"),
    ("json_schema", {"action": "flag", "config": SCHEMA}, "afterwards"),
    ("json_schema", {"action": "block", "mode": "shadow", "config": SCHEMA}, "afterwards"),
    ("json_schema", {"action": "block"}, ""),
    ("external", {"action": "block", "config": TOLD}, "held to its end"),
    ("external", {"action": "redact", "config": TOLD}, "held to its end"),
    ("external", {"action": "log", "config": TOLD}, "afterwards"),
    ("external", {"action": "block", "mode": "shadow", "config": TOLD}, "afterwards"),
    ("external", {"action": "log", "config": TOLD | {"map": {"bad": {"action": "block"}}}},
     "held to its end"),
    ("external", {"action": "block", "config": TOLD | {"stage": "preflight"}}, "held to its end"),
    ("external", {"action": "block", "config": TOLD | {"stage": "buffer"}}, "held to its end"),
    ("external", {"action": "block", "config": TOLD | {"stage": "window"}}, "window by window"),
    ("external", {"action": "log", "config": TOLD | {"stage": "window"}}, "afterwards"),
    ("external", {"action": "log", "config": TOLD | {"stage": "post"}}, "afterwards"),
    ("external", {"action": "block", "scope": {"direction": "request"},
                  "config": TOLD | {"stage": "preflight"}}, ""),
    ("external", {"action": "block", "scope": {"direction": "request"},
                  "config": TOLD | {"stage": "parallel"}}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "said", "way"), STREAMS)
def test_how_each_kind_looks_at_a_stream_as_the_engine_does(
    kind: str, said: dict[str, object], way: str
) -> None:
    """Both the word of the report and what the compiled rules hold."""
    one = pack("p", {"pattern": None, **said, "kind": kind})
    ways = {name: packs for each in cover([one]).parts for name, packs in each.stream.items()}
    assert ways == ({way: ["p"]} if way else {})
    assert all(not each.stream for each in cover([one]).parts if each.direction == "request")
    guard = compile_guard([one], GuardSettings())
    outside = [rule for rule in guard.outside if rule.response_stage is not None]
    held = guard.holds_answers or any(r.acts and r.response_stage == "buffer" for r in outside)
    windows = any(rule.acts and rule.response_stage == "window" for rule in outside)
    after = any(not rule.acts for rule in outside)
    after = after or (bool(guard.schemas) and not guard.holds_answers)
    assert (held, windows, after) == (
        way == "held to its end", way == "window by window", way == "afterwards"
    )  # fmt: skip


def test_every_kind_stands_in_the_table() -> None:
    assert {kind for kind, _, _ in STREAMS} == {*get_args(Kind)}


def test_a_part_that_is_looked_at_in_several_ways_names_the_packs_of_each() -> None:
    exact = pack("a", {})
    both = pack("b", {}, {"kind": "json_schema", "action": "block", "pattern": None,
                          "config": SCHEMA})  # fmt: skip
    assert part([exact, both], OUT, "text").stream == {
        "exact": ["a", "b"],
        "held to its end": ["b"],
    }
    assert part([exact, both], OUT, "refusal").stream == {"exact": ["a", "b"]}


@pytest.mark.parametrize(
    ("packs", "way"),
    [
        ([pack("a", {}, tool_args="live")], "exact, keys before its end"),
        ([pack("a", {}, tool_args="live"), pack("b", {})], "exact"),  # the strictest counts
        (
            [pack("a", {"action": "log"}, tool_args="live")],
            "exact",
        ),  # nothing is held, nothing waits
        ([pack("a", {})], "exact"),
    ],
)
def test_how_arguments_of_tool_calls_are_looked_at(packs: list[PolicyPack], way: str) -> None:
    assert [*part(packs, OUT, "tool_args").stream] == [way]
    assert [*part(packs, OUT, "text").stream] == ["exact"]


def test_a_check_outside_that_acts_on_arguments_wants_the_whole_of_them() -> None:
    outside = {"kind": "external", "pattern": None, "action": "block", "config": TOLD}
    ways = part([pack("a", {}, outside, tool_args="live")], OUT, "tool_args").stream
    assert [*ways] == ["exact", "held to its end"]
    elsewhere = outside | {"scope": {"parts": ["text"]}}
    ways = part([pack("a", {}, elsewhere, tool_args="live")], OUT, "tool_args").stream
    assert [*ways] == ["exact, keys before its end"]
