"""What policy packs would do and where they look: a dry run of one text, and the coverage of the
workspace (control-api.md §12.3, guardrails.md §12, §13).  Nothing is emitted."""

import asyncio
from collections.abc import Callable
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from proxy.control.compiling import settled
from proxy.control.fitting import content_of, shelf_of, source_of
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.kinds import one_of
from proxy.control.policies import POLICY
from proxy.control.policy_replay import leaves_of
from proxy.control.validation import read_as
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Judgement
from proxy.guardrails.outside import unasked
from proxy.guardrails.replay import judged_alone, strongest
from proxy.model.exchange import Direction, Json, Part
from proxy.model.policy import PolicyPack, PolicyResult, Rule, Verdict
from proxy.model.tenancy import GuardSettings
from proxy.settings.coverage import Streaming, route_doc
from proxy.spool.record import policy_result_doc
from proxy.wire.leaves import rewrite_json_text

MAX_CHARS: Final = 200_000


class Evaluation(BaseModel):
    """`rules`: in place of those of the pack."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str = Field(max_length=MAX_CHARS)
    direction: Literal["request", "response"] = "request"
    part: Part = "text"
    rules: list[Rule] | None = Field(None, max_length=500)


class Evaluated(BaseModel):
    """`text_after`: what would go on; null when nothing would."""

    verdict: Verdict
    results: list[dict[str, object]]
    text_after: str | None
    elapsed_us: int


async def evaluate_policy(passage: Passage, deps: ControlDeps) -> Reply:
    """Judge one text by the pack, or by rules that were sent."""
    asked = read_as(Evaluation, passage.body, _without_text)
    one = await one_of(POLICY, passage, deps)
    said = content_of(one.said)
    if asked.rules is not None:
        rules: list[Json] = [
            rule.model_dump(mode="json", exclude_unset=True) for rule in asked.rules
        ]
        said = {**said, "rules": rules}
    shelf = await shelf_of(passage, deps)
    source = await settled(shelf, source_of(said))
    pack = source.effective.model_copy(update={"enabled": True})
    judgement, elapsed_us = await asyncio.to_thread(
        _judge, pack, asked, passage.config.guard, deps.clock.monotonic
    )
    for result in judgement.results:
        result.timestamp_ms = deps.clock.now_ms()
    return Reply.json(200, _told(judgement, asked, elapsed_us))


def _without_text(sent: dict[str, Json]) -> Json:
    """The text may hold whatever a caller's prompt may."""
    if not isinstance(sent.get("text"), str):
        return sent
    return {name: value for name, value in sent.items() if name != "text"}


def _judge(
    pack: PolicyPack, asked: Evaluation, settings: GuardSettings, monotonic: Callable[[], float]
) -> tuple[Judgement, int]:
    guard = compile_guard([pack], settings)
    guard.warm()
    leaves = leaves_of(asked.text, asked.direction, asked.part)
    began = monotonic()
    judgement = judged_alone(guard, leaves, asked.text, asked.direction, asked.part)
    judgement.results += unasked(guard, leaves, asked.direction)
    return judgement, int((monotonic() - began) * 1_000_000)


def _told(judgement: Judgement, asked: Evaluation, elapsed_us: int) -> Json:
    after: str | None = asked.text
    if judgement.block is not None:
        after = None
    elif judgement.rewrites and asked.part == "tool_args":
        after = rewrite_json_text(asked.text, judgement.rewrites)
    elif judgement.rewrites:
        after = judgement.rewrites[0][1]
    return {
        "verdict": strongest(judgement.results),
        "results": [_plain(result) for result in judgement.results],
        "text_after": after,
        "elapsed_us": elapsed_us,
    }


def _plain(result: PolicyResult) -> Json:
    told: Json = {name: _json(value) for name, value in policy_result_doc(result).items()}
    return told


def _json(value: object) -> Json:
    assert value is None or isinstance(value, (str, int, float, bool, dict)), "a result is JSON"
    return value


async def policies_coverage(passage: Passage, _: ControlDeps) -> Reply:
    """Per route: what its packs look at, by direction and part, and what they do not."""
    rules = passage.config.workspaces[passage.workspace]
    packs = {f"{pack.policy_pack_id}@{pack.version}": pack for pack in rules.policies}
    newest = {pack.policy_pack_id: pack for pack in rules.policies}
    routes: list[Json] = []
    for route in rules.routes:
        found = [packs.get(name) or newest.get(name) for name in route.policy_packs]
        chosen = [pack for pack in found if pack is not None]
        routes.append(route_doc(route.id, chosen, rules.unusable.get(route.id)))
    return Reply.json(200, {"workspace_id": passage.workspace, "routes": routes})


class PartCovered(BaseModel):
    """`hole`: nothing looks there, and no setting says so.  `stream`: of an answer, the packs by
    how they look at one that streams."""

    direction: Direction
    part: Part
    enforced: list[str]
    recorded: list[str]
    shadow: list[str]
    reason: str
    hole: bool
    stream: dict[Streaming, list[str]]


class SurfaceCovered(BaseModel):
    """The paths of one grammar, and the parts that its bodies have."""

    surface: str
    paths: list[str]
    request: list[Part]
    response: list[Part]


class OutsideCovered(BaseModel):
    """What lies outside the parts; `setting`: what would change that, empty when nothing does."""

    direction: Direction
    what: str
    reason: str
    setting: str


class RouteCovered(BaseModel):
    """`tools` and `requests`: packs that judge calls of tools, and models and sizes."""

    route_id: str
    packs: list[str]
    unusable: str | None
    guarded: bool
    surfaces: list[SurfaceCovered]
    parts: list[PartCovered]
    not_scanned: list[OutsideCovered]
    tools: list[str]
    requests: list[str]
    binary: Literal["allow", "block"]
    remote: Literal["allow", "block"]
    reasoning: Literal["hold", "live", "off"] | None
    refused_paths: list[str]


class Coverage(BaseModel):
    workspace_id: str
    routes: list[RouteCovered]
