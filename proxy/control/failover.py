"""{w}/failover-policies: which endpoint answers when another does not (control-api.md §12.6,
members failover.md §1)."""

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import BaseModel, TypeAdapter

from proxy.control.decisions import DECISIONS_LOG, POLICY_STATE
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.kinds import Kind, Object, Reference, Stored, one_of, state_of
from proxy.control.logs import LogQuery, log_reply
from proxy.control.objects import FailoverDecisionTold
from proxy.control.problems import FieldError, Problem
from proxy.control.routing import ENDPOINT_NAME
from proxy.control.standing import (
    EndpointExplainedTold,
    EndpointHealth,
    EndpointStats,
    ForcedTold,
    State,
    explained,
    standing_of,
    told_of,
)
from proxy.control.validation import pointer_of
from proxy.control.wire import ListQuery
from proxy.model.batch import Delete, LogFilter
from proxy.model.documents import Instant, slug
from proxy.model.exchange import Json
from proxy.model.failover import FailoverPolicy
from proxy.model.ports import Ids
from proxy.settings.crosscheck import tier_faults
from proxy.settings.problems import path_text
from proxy.settings.risks import observed_risks, policy_risks, route_risks

FAILOVER_NAME: Final = "failover_policy"
Status = Literal["active", "paused"]
_SEEN: Final = frozenset(
    {"primary_status", "state", "active_endpoint", "since", "forced", "last_decision", "stats"}
    | {"explain"}
)


class FailoverQuery(ListQuery):
    status: list[Status] | None = None
    route_id: list[str] | None = None
    state: list[State] | None = None


def _keep(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, FailoverQuery), "the table says so"
    return (
        (query.status is None or doc["status"] in query.status)
        and (query.route_id is None or doc["route_id"] in query.route_id)
        and (query.state is None or doc["state"] in query.state)
    )


def policy_id(said: Object, ids: Ids) -> str:
    """The id that was chosen, that the name gives, or a new one."""
    return str(said.get("id") or slug(str(said.get("name") or "")) or ids.new("failover-"))


def _check(said: Object, _: Object | None) -> Iterator[FieldError]:
    policy = policy_of(said)
    for problem in tier_faults(policy, ()):
        yield FieldError("invalid_value", problem.message, "tiers", "#/tiers")


def policy_of(said: Object) -> FailoverPolicy:
    return FailoverPolicy.model_validate(
        {name: value for name, value in said.items() if name != "labels"}
    )


def _references(said: Object) -> list[Reference]:
    policy = policy_of(said)
    return [
        Reference("#/route_id", "route", "route", policy.route_id),
        Reference("#/primary_endpoint", ENDPOINT_NAME, "endpoint", policy.primary_endpoint),
        *(
            Reference(f"#/fallback_endpoints/{place}", ENDPOINT_NAME, "endpoint", name)
            for place, name in enumerate(policy.fallback_endpoints)
        ),
    ]


def _unique(told: Object) -> tuple[tuple[str, str], ...]:
    """One active policy on a route."""
    return (("route_id", str(told["route_id"])),) if told["status"] == "active" else ()


def _permit(said: Object, _: Object | None, passage: Passage) -> None:
    """Raises Problem 409 when the file has an active policy on the route: it would stay."""
    policy = policy_of(said)
    if policy.status != "active":
        return
    for location, declared in passage.config.declared(passage.workspace, FAILOVER_NAME):
        same = declared["route_id"] == policy.route_id
        if same and declared.get("status", "active") == "active":
            detail = "the route has an active policy in the configuration file"
            raise Problem("conflict", detail, extra={"location": location})


async def _warn(said: Object, passage: Passage, deps: ControlDeps) -> list[Json]:
    """What is legal and probably not meant, as far as route and endpoints are known."""
    policy, rules = policy_of(said), passage.config.workspaces[passage.workspace]
    route = next((each for each in rules.routes if each.id == policy.route_id), None)
    endpoints = {each.id: each for each in rules.endpoints}
    if route is None or not {policy.primary_endpoint, *policy.fallback_endpoints} <= set(endpoints):
        return []
    standing = standing_of(deps, passage.workspace, policy)
    now = deps.clock.monotonic()
    found = [
        *policy_risks(policy, route, endpoints, ()),
        *route_risks(route, ("route_id",)),
        *observed_risks(policy, standing, now, ()),
    ]
    return [
        {
            "pointer": "#/route_id" if problem.path[0] == "route_id" else pointer_of(problem.path),
            "code": problem.code,
            "detail": f"{path_text(problem.path[1:])}: {problem.message}"
            if problem.path[0] == "route_id" and problem.path[1:]
            else problem.message,
        }
        for problem in found
    ]


def _view(one: Stored, shown: Object, passage: Passage, deps: ControlDeps) -> Object:
    """With how its endpoints stand; one that is asked for alone is explained, too."""
    rules = passage.config.workspaces[passage.workspace]
    standing = standing_of(deps, passage.workspace, policy_of(one.said))
    alone = FAILOVER_POLICY.parameter in passage.params
    return {
        **shown,
        **told_of(deps, standing, rules),
        "last_decision": one.state.get("last_decision"),
        "explain": explained(deps, standing, rules) if alone else None,
    }


async def list_decisions(passage: Passage, deps: ControlDeps) -> Reply:
    """Changes of endpoint by the policy, as they were told."""
    query = passage.query
    assert isinstance(query, LogQuery), "the table says so"
    one = await one_of(FAILOVER_POLICY, passage, deps)
    narrowed = LogFilter(types=(one.id,))
    return await log_reply(
        passage, deps, passage.workspace, DECISIONS_LOG, query, narrowed=narrowed
    )


class FallbackTold(BaseModel):
    id: str
    status: EndpointHealth


class FailoverPolicyTold(BaseModel):
    """What is known of the endpoints.

    `since`: when it came into its `state`; null: it was always so.  `active_endpoint`: where none
    admits (`exhausted`), the primary.  `last_decision`: the last one of our gateways.  `stats`,
    `explain`: by endpoint, the latter where one policy is asked for (else null)."""

    fallback_endpoints: list[FallbackTold]
    primary_status: EndpointHealth
    state: State
    active_endpoint: str
    since: Instant | None
    forced: ForcedTold | None
    last_decision: FailoverDecisionTold | None
    stats: dict[str, EndpointStats]
    explain: dict[str, EndpointExplainedTold] | None


FAILOVER_POLICY: Final = Kind(
    name=FAILOVER_NAME,
    noun="failover policy",
    parameter="policyId",
    adapter=TypeAdapter(FailoverPolicy),
    id_of=policy_id,
    keep=_keep,
    sorts=("route_id", "created_at", "updated_at", "status"),
    references=_references,
    check=_check,
    permit=_permit,
    unique=_unique,
    warn=_warn,
    view=_view,
    read_only=_SEEN,
    told=FailoverPolicyTold,
    state=state_of(FAILOVER_NAME),
    removed=lambda one: (Delete(POLICY_STATE, one.id),),
    conditional_get=False,
    live=True,
)
