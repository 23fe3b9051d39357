"""…/failover-policies/{policyId}/force and /release: what an operator decides for a while.

SECURITY: each is a row of the audit, with the reason, before anything moves.  What moves is told as
a decision with that reason.
"""

from pydantic import BaseModel, ConfigDict, Field

from proxy.control.failover import FAILOVER_POLICY, policy_of
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.idempotency import Ticket, once
from proxy.control.kinds import Object, Stored, one_of
from proxy.control.problems import FieldError, Problem, invalid
from proxy.control.standing import standing_of
from proxy.control.validation import read_as
from proxy.model.batch import Batch
from proxy.model.documents import Slug
from proxy.model.exchange import Json
from proxy.model.failover import FailoverPolicy

REASON_CHARS = 200
LONGEST_S = 86_400


class Force(BaseModel):
    """All traffic of the policy to that endpoint for so many seconds, whatever happens to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    endpoint: Slug
    ttl_seconds: int = Field(ge=1, le=LONGEST_S)
    reason: str = Field(min_length=1, max_length=REASON_CHARS)


class Release(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    reason: str = Field("", max_length=REASON_CHARS)


async def force_failover(passage: Passage, deps: ControlDeps) -> Reply:
    """Put all traffic of the policy to one of its endpoints for a while."""
    asked = read_as(Force, passage.body)

    async def act(_: Ticket) -> Reply:
        one = await one_of(FAILOVER_POLICY, passage, deps)
        policy = policy_of(one.said)
        if asked.endpoint not in (policy.primary_endpoint, *policy.fallback_endpoints):
            detail = "is not an endpoint of this policy"
            raise invalid([FieldError("unknown_reference", detail, "endpoint", "#/endpoint")])
        rules = passage.config.workspaces[passage.workspace]
        if all(each.id != asked.endpoint for each in rules.endpoints):
            detail = "names no endpoint of this workspace"
            raise invalid([FieldError("unknown_reference", detail, "endpoint", "#/endpoint")])
        _must_stand(passage, deps, policy)
        new: Object = {
            "endpoint": asked.endpoint, "ttl_seconds": asked.ttl_seconds, "reason": asked.reason
        }  # fmt: skip
        await _note(passage, deps, "force", one, policy, new)
        forced = deps.standings.force(
            passage.workspace, one.id, asked.endpoint, asked.ttl_seconds, asked.reason
        )
        if not forced:
            raise Problem("conflict", "the policy was changed meanwhile")
        return Reply.json(200, one.representation(FAILOVER_POLICY, passage, deps))

    return await once(passage, deps, act)


async def release_failover(passage: Passage, deps: ControlDeps) -> Reply:
    """Take back what was forced; nothing happens where nothing was."""
    asked = read_as(Release, passage.body)

    async def act(_: Ticket) -> Reply:
        one = await one_of(FAILOVER_POLICY, passage, deps)
        policy = policy_of(one.said)
        if standing_of(deps, passage.workspace, policy).state == "forced":
            new: Object = {"endpoint": None, "ttl_seconds": None, "reason": asked.reason or None}
            await _note(passage, deps, "release", one, policy, new)
            deps.standings.release(passage.workspace, one.id, asked.reason)
        return Reply.json(200, one.representation(FAILOVER_POLICY, passage, deps))

    return await once(passage, deps, act)


def _must_stand(passage: Passage, deps: ControlDeps, policy: FailoverPolicy) -> None:
    """Raises Problem 409."""
    if policy.status != "active":
        raise Problem("conflict", "the policy is paused: it moves no traffic")
    if deps.standings.of(passage.workspace, policy.effective_id) is None:
        raise Problem("conflict", "the policy is not in force: its route is not there")


async def _note(
    passage: Passage,
    deps: ControlDeps,
    verb: str,
    one: Stored,
    policy: FailoverPolicy,
    new: Object,
) -> None:
    """The audit row, on its own: what follows changes no document."""
    standing = standing_of(deps, passage.workspace, policy)
    before = standing.active if standing.state == "forced" else None
    changes: list[Json] = [
        {"path": f"/forced/{name}", "old": before if name == "endpoint" else None, "new": value}
        for name, value in new.items()
    ]
    now_ms = deps.clock.now_ms()
    async with deps.audit.chain(deps.store, passage.workspace, now_ms) as chain:
        action = f"{FAILOVER_POLICY.name}.{verb}"
        row = chain.row(passage.actor, action, (FAILOVER_POLICY.name, one.id), changes)
        await deps.store.commit(passage.workspace, Batch(deps.ids.new("cm-"), (row,)))
