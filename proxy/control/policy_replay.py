"""Replay: a version or a draft of a pack against another, on texts that the caller sends
(guardrails.md §13).  Nothing is stored and nothing is told.

SECURITY: whoever may read policies may ask for this, so it is bounded by the body (1 MiB), by the
number of texts and by the computing that it may take; that is done beside the loop.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from proxy.control.compiling import settled
from proxy.control.fitting import content_of, shelf_of, source_of
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.kinds import Object, Stored, one_of
from proxy.control.policies import POLICY, version_of
from proxy.control.problems import FieldError, Problem, invalid
from proxy.control.validation import field_of, pointer_of, read_as
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard
from proxy.guardrails.replay import (
    STREAMED,
    Compared,
    Heard,
    NotReplayed,
    Over,
    ReplayTooLong,
    Sample,
    by_rule,
    not_replayed,
    replay,
)
from proxy.model.exchange import Direction, Json, Leaf, Part, Role
from proxy.model.policy import SEMVER, ActionTaken, PolicyPack, Verdict
from proxy.model.tenancy import GuardSettings
from proxy.runtime.clock import cpu_budget
from proxy.wire.leaves import json_text_leaves

MAX_ITEMS: Final = 1000
MAX_CHUNKS: Final = 100_000
REPLAY_S: Final = 12.0  # of computing, all texts together
_REQUEST_ROLES: Final[Mapping[Part, Role]] = {
    "tool_result": "tool",
    "tool_args": "assistant",
    "tool_name": "assistant",
    "refusal": "assistant",
    "reasoning": "assistant",
}
Version = Annotated[str, Field(pattern=SEMVER, max_length=128)]


class ReplayItem(BaseModel):
    """One text.  `chunks`: sizes in characters of the pieces in which a stream brings it; what is
    left of the text comes as one more."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str = Field(min_length=1, max_length=128)
    text: str
    direction: Literal["request", "response"]
    part: Part = "text"
    chunks: list[Annotated[int, Field(ge=1)]] | None = Field(None, max_length=MAX_CHUNKS)


class Replay(BaseModel):
    """Either `version`, one that was published, or `candidate`, a draft; `baseline`: what it is
    compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Version | None = None
    candidate: PolicyPack | None = None
    baseline: Literal["active"] | Version = "active"
    items: list[ReplayItem] = Field(min_length=1, max_length=MAX_ITEMS)


class RuleChange(BaseModel):
    """Numbers of texts that the rule hits; `new`: only the candidate does, `gone`: only the
    baseline did."""

    rule_id: str
    baseline_hits: int
    candidate_hits: int
    new: int
    gone: int


class Judged(BaseModel):
    verdict: Verdict
    action_taken: ActionTaken


class ItemReplayed(BaseModel):
    """`stream_equals_whole`: what leaves of the pieces is what leaves of the whole text, by the
    candidate; null when the text came whole."""

    id: str
    baseline: Judged
    candidate: Judged
    stream_equals_whole: bool | None


class RuleLeftOut(BaseModel):
    """A rule of which the numbers say nothing.  `reason`: it asks a service outside, which a replay
    does not, or what it judges is no text.  `texts`: how many it would have looked at."""

    rule_id: str
    reason: Literal["external", "not_a_text"]
    in_baseline: bool
    in_candidate: bool
    texts: int


class Replayed(BaseModel):
    """`changed`: texts with another verdict, another action, or another text that goes on.
    `by_rule`: every rule that hits a text.  `not_replayed`: the rules that were left out."""

    items: int
    changed: int
    by_rule: list[RuleChange]
    not_replayed: list[RuleLeftOut]
    results: list[ItemReplayed]


async def replay_policy(passage: Passage, deps: ControlDeps) -> Reply:
    """Judge texts by two versions of the pack and tell the difference."""
    asked = read_as(Replay, passage.body, _without_texts)
    one = await one_of(POLICY, passage, deps)
    wrong = [*_faults(asked)]
    if wrong:
        raise invalid(wrong)
    if asked.version is not None:
        candidate = await _published(one, asked.version, "version", passage, deps)
    else:
        assert asked.candidate is not None, "one of the two is there"
        draft: Object = asked.candidate.model_dump(mode="json", exclude_unset=True)
        candidate = await _pack(draft, "candidate", passage, deps)
    baseline = await _published(one, asked.baseline, "baseline", passage, deps)
    samples = [sample_of(item) for item in asked.items]
    settings = passage.config.guard
    try:
        compared, left_out = await asyncio.to_thread(
            lambda: compare(candidate, baseline, samples, settings, cpu_budget(REPLAY_S))
        )
    except ReplayTooLong as stop:
        where = ("items", stop.place)
        detail = f"the texts take more than {REPLAY_S:g} s of computing; send fewer"
        raise invalid([_at(where, "takes_too_long", detail)]) from stop
    return Reply.json(200, told(compared, left_out))


def _without_texts(sent: dict[str, Json]) -> Json:
    """All but the texts: those may hold whatever a caller's prompt may."""
    items = sent.get("items")
    if not isinstance(items, list):
        return sent
    bare: list[Json] = [
        {name: value for name, value in item.items() if name != "text"}
        if isinstance(item, dict) and isinstance(item.get("text"), str)
        else item
        for item in items
    ]
    return {**sent, "items": bare}


def _faults(asked: Replay) -> list[FieldError]:
    found = []
    if asked.version is None and asked.candidate is None:
        found.append(_at(("version",), "missing", "or `candidate` is required"))
    if asked.version is not None and asked.candidate is not None:
        found.append(_at(("candidate",), "invalid_value", "stands beside `version`: send one"))
    return found + item_faults(asked.items)


def item_faults(items: Sequence[ReplayItem]) -> list[FieldError]:
    """What is wrong with texts that have the right shape."""
    found, seen = [], set[str]()
    for place, item in enumerate(items):
        if item.id in seen:
            found.append(_at(("items", place, "id"), "duplicate", "is there twice"))
        seen.add(item.id)
        if item.chunks is None:
            continue
        if item.direction == "request":
            detail = "a request comes whole: only responses come in pieces"
            found.append(_at(("items", place, "chunks"), "invalid_value", detail))
        elif item.part not in STREAMED:
            detail = f"only {', '.join(sorted(STREAMED))} come in pieces"
            found.append(_at(("items", place, "chunks"), "invalid_value", detail))
    return found


def _at(where: tuple[str | int, ...], code: str, detail: str) -> FieldError:
    return FieldError(code, detail, field_of(where), pointer_of(where))


# --- the two packs


async def _published(
    one: Stored, version: str, member: str, passage: Passage, deps: ControlDeps
) -> PolicyPack:
    """Raises Problem 404, 422."""
    if version != "active":
        one = await version_of(one, version, passage, deps)
    return await _pack(content_of(one.said), member, passage, deps)


async def _pack(said: Object, member: str, passage: Passage, deps: ControlDeps) -> PolicyPack:
    """The pack with what it extends, switched on.  Raises Problem 422 that names the member."""
    try:
        source = await settled(await shelf_of(passage, deps), source_of(said))
    except Problem as problem:
        for each in problem.errors:
            each.field = ".".join(filter(None, (member, each.field)))
            each.pointer = f"#/{member}{(each.pointer or '#')[1:]}"
        raise
    return source.effective.model_copy(update={"enabled": True})


# --- judging


Ask = Callable[[tuple[Guard, Guard], Sequence[Sample]], tuple[Heard, Heard]]


def compare(
    candidate: PolicyPack,
    baseline: PolicyPack,
    samples: Sequence[Sample],
    settings: GuardSettings,
    over: Over,
    ask: Ask | None = None,
) -> tuple[list[Compared], list[NotReplayed]]:
    """Compile both packs and judge the texts; `ask` asks services about them.  Raises PackError,
    ReplayTooLong, and what `ask` raises."""
    ours, theirs = compile_guard([candidate], settings), compile_guard([baseline], settings)
    heard = ask((ours, theirs), samples) if ask is not None else ({}, {})
    left_out = not_replayed(ours, theirs, samples, asked=ask is not None)
    return replay(ours, theirs, samples, over, heard), left_out


def sample_of(item: ReplayItem) -> Sample:
    """The text as the data path would hand it to a guard."""
    leaves = leaves_of(item.text, item.direction, item.part)
    return Sample(item.id, item.text, item.direction, item.part, leaves, item.chunks)


def leaves_of(text: str, direction: Direction, part: Part) -> list[Leaf]:
    """A text of that part, from whoever says such texts; arguments of a tool are parsed."""
    role: Role = "assistant"
    if direction == "request":
        role = _REQUEST_ROLES.get(part, "user")
    if part == "tool_args":
        return json_text_leaves(text, part, role, ())
    return [Leaf(text, part, role, ())]


def told(compared: Sequence[Compared], left_out: Sequence[NotReplayed]) -> Json:
    """The answer, also of the command."""
    results: list[Json] = [
        {
            "id": each.id,
            "baseline": _opinion(each.baseline.verdict, each.baseline.action_taken),
            "candidate": _opinion(each.candidate.verdict, each.candidate.action_taken),
            "stream_equals_whole": each.stream_equals_whole,
        }
        for each in compared
    ]
    rules: list[Json] = [asdict(count) for count in by_rule(compared)]
    changed = sum(each.changed for each in compared)
    return {
        "items": len(compared),
        "changed": changed,
        "by_rule": rules,
        "not_replayed": [asdict(rule) for rule in left_out],
        "results": results,
    }


def _opinion(verdict: Verdict, action: ActionTaken) -> Json:
    return {"verdict": verdict, "action_taken": action}
