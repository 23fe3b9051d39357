"""Replay over the control API: versions, drafts, bounds (guardrails.md §13)."""

import asyncio
from typing import Any

import pytest

from proxy.model.tenancy import GuardSettings
from tests.control.world import World, bearer

W = "/v1/workspaces/default"
RULE = {"rule_id": "word", "pattern": "forbidden", "action": "redact", "severity": "high"}
MORE = {"rule_id": "end", "pattern": "launch codes", "action": "block"}
PACK = {"id": "mine", "version": "2.1.0", "rules": [RULE]}
ITEM = {"id": "1", "text": "x", "direction": "request"}


async def replayed(world: World, body: dict[str, Any], pack: str = "mine") -> Any:
    answer = await world.post(f"{W}/policies/{pack}/replay", body)
    assert answer.status == 200, answer.body
    return answer.doc


async def two_versions(world: World) -> None:
    await world.post(f"{W}/policies", PACK)
    newer = {**PACK, "version": "2.2.0", "rules": [RULE, MORE]}
    await world.call("PUT", f"{W}/policies/mine", newer)
    answer = await world.post(f"{W}/policies/mine/activate", {"version": "2.1.0"})
    assert answer.status == 200


async def test_a_version_against_the_active_one(world: World) -> None:
    await two_versions(world)
    items = [
        {"id": "a", "text": "forbidden", "direction": "response", "chunks": [5, 1, 7]},
        {"id": "b", "text": "the launch codes", "direction": "request"},
    ]
    assert await replayed(world, {"version": "2.2.0", "items": items}) == {
        "items": 2,
        "changed": 1,
        "by_rule": [
            {"rule_id": "end", "baseline_hits": 0, "candidate_hits": 1, "new": 1, "gone": 0},
            {"rule_id": "word", "baseline_hits": 1, "candidate_hits": 1, "new": 0, "gone": 0},
        ],
        "not_replayed": [],
        "results": [
            {
                "id": "a",
                "baseline": {"verdict": "violation", "action_taken": "redact"},
                "candidate": {"verdict": "violation", "action_taken": "redact"},
                "stream_equals_whole": True,
            },
            {
                "id": "b",
                "baseline": {"verdict": "pass", "action_taken": "none"},
                "candidate": {"verdict": "violation", "action_taken": "block"},
                "stream_equals_whole": None,
            },
        ],
    }
    assert (await world.get(f"{W}/policies/mine")).doc["active_version"] == "2.1.0"
    assert (await world.get(f"{W}/events?type=runtime.*")).doc["data"] == []


@pytest.mark.parametrize(
    ("asked", "changed"),
    [
        ({"version": "2.2.0", "baseline": "2.2.0"}, 0),
        ({"version": "2.1.0", "baseline": "2.2.0"}, 1),
        ({"version": "2.1.0", "baseline": "active"}, 0),
        ({"candidate": {"policy_pack_id": "mine", "rules": [MORE]}, "baseline": "2.2.0"}, 0),
        ({"candidate": {"policy_pack_id": "mine", "rules": []}, "baseline": "2.2.0"}, 1),
        ({"candidate": {"policy_pack_id": "new", "extends": "mine", "rules": [MORE]}}, 1),
        ({"candidate": {"policy_pack_id": "mine", "enabled": False, "rules": [MORE]}}, 1),
    ],
)
async def test_what_is_compared(world: World, asked: dict[str, Any], changed: int) -> None:
    await two_versions(world)
    items = [{**ITEM, "text": "the launch codes"}]
    assert (await replayed(world, {**asked, "items": items}))["changed"] == changed


async def test_a_shipped_pack_is_replayed(world: World) -> None:
    draft = {"policy_pack_id": "d", "rules": [{"rule_id": "word", "pattern": "x"}]}
    doc = await replayed(world, {"candidate": draft, "items": [ITEM]}, "secrets-core")
    assert doc["by_rule"] == [
        {"rule_id": "word", "baseline_hits": 0, "candidate_hits": 1, "new": 1, "gone": 0}
    ]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("part", "text", "action"),
    [
        ("tool_args", '{"a":{"b":"forbidden"}}', "redact"),
        ("tool_args", '{"forbidden":1}', "block"),
        ("tool_args", "{not json forbidden", "block"),
        ("tool_result", "forbidden", "redact"),
        ("text", "a\r\n\u0000\u0007 forbidden \U000e0041", "redact"),
        ("tool_def", "forbidden", "none"),
    ],
)
async def test_a_text_is_judged_as_on_the_data_path(
    world: World, part: str, text: str, action: str
) -> None:
    await world.post(f"{W}/policies", PACK)
    items = [{**ITEM, "part": part, "text": text}]
    doc = await replayed(world, {"version": "2.1.0", "items": items})
    assert doc["results"][0]["candidate"]["action_taken"] == action
    evaluated = await world.post(f"{W}/policies/mine/evaluate", {"text": text, "part": part})
    assert evaluated.status == 200
    assert evaluated.doc["text_after"] == (
        None
        if action == "block"
        else text.replace("forbidden", "[WORD]" if action != "none" else "forbidden")
    )


async def test_the_stream_guard_has_the_settings_of_the_file(world: World) -> None:
    endless = {"rule_id": "run", "pattern": "a+b", "action": "redact"}
    await world.post(f"{W}/policies", {**PACK, "rules": [endless]})
    item = {**ITEM, "direction": "response", "text": "a" * 700, "chunks": [50]}
    asked = {"version": "2.1.0", "items": [item]}
    assert (await replayed(world, asked))["results"][0]["stream_equals_whole"] is False
    world.guard = GuardSettings(hold_max_chars=1024)
    assert (await replayed(world, asked))["results"][0]["stream_equals_whole"] is True


def with_item(**members: object) -> dict[str, Any]:
    return {"version": "2.1.0", "items": [{**ITEM, **members}]}


def with_draft(**members: object) -> dict[str, Any]:
    return {"candidate": {"policy_pack_id": "mine", "rules": [], **members}, "items": [ITEM]}


BAD = {"rule_id": "a", "kind": "regex", "pattern": "(x"}
ALL = {"version": "2.1.0", "items": [ITEM]}


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"items": [ITEM]}, "version", "missing"),
        ({"version": "2.1.0"}, "items", "missing"),
        ({**ALL, "items": []}, "items", "too_short"),
        ({**ALL, "items": [ITEM] * 1001}, "items", "too_long"),
        ({**ALL, "items": "many"}, "items", "wrong_type"),
        ({**ALL, "items": [7, None]}, "items.0", "wrong_type"),
        ({**ALL, "items": [ITEM, ITEM]}, "items.1.id", "duplicate"),
        ({**ALL, "version": "two"}, "version", "pattern"),
        ({**ALL, "baseline": 7}, "baseline", "wrong_type"),
        ({**ALL, "more": 7}, "more", "extra_forbidden"),
        ({**ALL, **with_draft()}, "candidate", "invalid_value"),
        (with_item(more=1), "items.0.more", "extra_forbidden"),
        (with_item(text=1), "items.0.text", "wrong_type"),
        (with_item(direction="both"), "items.0.direction", "unknown_value"),
        (with_item(part="tail"), "items.0.part", "unknown_value"),
        (with_item(id="a\u0000"), "items.0.id", "control_character"),
        (with_item(id=""), "items.0.id", "too_short"),
        (with_item(chunks=[1]), "items.0.chunks", "invalid_value"),
        (with_item(chunks=[1] * 100_001), "items.0.chunks", "too_long"),
        (
            with_item(direction="response", part="tool_args", chunks=[1]),
            "items.0.chunks",
            "invalid_value",
        ),
        (with_item(direction="response", chunks=[0]), "items.0.chunks.0", "greater_than_equal"),
        (with_item(direction="response", chunks=[1.5]), "items.0.chunks.0", "wrong_type"),
        (with_draft(rules=[BAD]), "candidate.rules.0.pattern", "invalid_value"),
        (with_draft(extends="gone"), "candidate.extends", "invalid_value"),
        (with_draft(nonsense=1), "candidate.nonsense", "extra_forbidden"),
    ],
)
async def test_what_cannot_be_replayed(
    world: World, body: dict[str, Any], field: str, code: str
) -> None:
    await world.post(f"{W}/policies", PACK)
    answer = await world.post(f"{W}/policies/mine/replay", body)
    assert answer.status == 422
    assert (field, code) in answer.codes()
    assert "(x" not in answer.body.decode()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("nobody/replay", {"version": "2.1.0", "items": [ITEM]}, 404),
        ("mine/replay", {"version": "9.9.9", "items": [ITEM]}, 404),
        ("mine/replay", {"version": "2.1.0", "baseline": "9.9.9", "items": [ITEM]}, 404),
        ("mine/replay", [], 422),
    ],
)
async def test_what_is_not_there_or_too_much(
    world: World, path: str, body: Any, status: int
) -> None:
    await world.post(f"{W}/policies", PACK)
    assert (await world.post(f"{W}/policies/{path}", body)).status == status


async def test_who_reads_policies_may_replay(world: World) -> None:
    await world.post(f"{W}/policies", PACK)
    asked = {"version": "2.1.0", "items": [ITEM]}
    answer = await world.post(f"{W}/policies/mine/replay", asked, bearer("viewer000000"))
    assert (answer.status, answer.headers["RateLimit-Policy"]) == (200, '"test";q=10;w=60')
    answer = await world.post(f"{W}/policies/mine/replay", asked, bearer("ingest000000"))
    assert answer.status == 403


@pytest.mark.thorough
async def test_others_are_served_meanwhile(world: World) -> None:
    """A thousand long texts, in pieces of one character: nobody else waits for them."""
    rules = [
        {"rule_id": f"r{n}", "pattern": f"(?i)k{n}[a-z0-9]+x", "action": "redact"}
        for n in range(40)
    ]
    await world.post(f"{W}/policies", {**PACK, "rules": rules})
    text = "k1 k2a k33bcd " * 60
    items = [
        {"id": f"{n}", "text": text, "direction": "response", "chunks": [1] * 30}
        for n in range(1000)
    ]
    waits, clock = [], asyncio.get_running_loop().time
    async with asyncio.TaskGroup() as group:
        long = group.create_task(replayed(world, {"version": "2.1.0", "items": items}))
        while not long.done():
            began = clock()
            await asyncio.sleep(0.01)
            waits.append(clock() - began)
    assert long.result()["items"] == 1000
    assert sorted(waits)[len(waits) // 2] < 0.05


ASKS = {"rule_id": "ask", "kind": "external", "action": "block", "scope": {"direction": "request"},
        "config": {"adapter": "http", "url": "https://checks.example/"}}  # fmt: skip
TOOLS = {"rule_id": "tools", "kind": "tool_permission", "action": "block",
         "config": {"default": "deny"}}  # fmt: skip
SHAPED = {"rule_id": "shaped", "kind": "json_schema", "action": "block",
          "config": {"schema": {"type": "object"}}}  # fmt: skip


async def test_rules_that_no_replay_can_speak_for_are_named(world: World) -> None:
    await world.post(f"{W}/policies", {**PACK, "rules": [RULE, ASKS]})
    draft = {"policy_pack_id": "mine", "rules": [RULE, ASKS, TOOLS]}
    items = [ITEM, {**ITEM, "id": "2", "direction": "response"}, {**ITEM, "id": "3"}]
    doc = await replayed(world, {"candidate": draft, "items": items})
    assert doc["not_replayed"] == [
        {"rule_id": "ask", "reason": "external", "in_baseline": True, "in_candidate": True,
         "texts": 2},
        {"rule_id": "tools", "reason": "not_a_text", "in_baseline": False, "in_candidate": True,
         "texts": 0},
    ]  # fmt: skip


async def test_an_answer_is_held_against_its_schema(world: World) -> None:
    await world.post(f"{W}/policies", PACK)
    draft = {"policy_pack_id": "mine", "rules": [SHAPED]}
    items = [
        {"id": "fits", "text": "{}", "direction": "response"},
        {"id": "breaks", "text": "no object", "direction": "response"},
        {"id": "asks", "text": "no object", "direction": "request"},
    ]
    doc = await replayed(world, {"candidate": draft, "items": items})
    said = {each["id"]: each["candidate"]["action_taken"] for each in doc["results"]}
    assert said == {"fits": "none", "breaks": "block", "asks": "none"}
    assert doc["not_replayed"] == []
    asked = {"text": "no object", "direction": "response", "rules": [SHAPED]}
    evaluated = await world.post(f"{W}/policies/mine/evaluate", asked)
    assert (evaluated.doc["verdict"], evaluated.doc["text_after"]) == ("violation", None)
