"""POST {w}/explain: what would become of a request, and why (failover.md §14).  Sends nothing.

Credentials are not resolved: an endpoint counts as having its own when one is configured, and the
caller as having one for the primary.
"""

import asyncio
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.kinds import Object
from proxy.control.problems import FieldError, Problem, invalid
from proxy.control.standing import EndpointHealth, State, standing_of
from proxy.control.validation import read_as
from proxy.guardrails.compile import PackError, compile_guard
from proxy.guardrails.permits import Permits
from proxy.model.documents import Slug
from proxy.model.exchange import Dialect
from proxy.model.failover import FailoverPolicy
from proxy.model.tenancy import ApiKey, Endpoint, GuardSettings, Route, Timeouts, WorkspaceRules
from proxy.routing.explaining import status_of
from proxy.routing.holds import Key
from proxy.routing.match import RouteTable, matches
from proxy.routing.standing import Standing
from proxy.wire.providers.models import model_for
from proxy.wire.providers.rehearsal import SPOKEN, refusal_of

By = Literal["route_id", "key", "model_is_route", "model", "default_route", "only_route", "none"]
_RAMP_SHARE: Final = 99  # the last that a ramp lets in
_FORBIDDEN: Final = "forbidden"


class Asked(BaseModel):
    """`route_id`, `model`, or both; `key_id`: of the Parapet key that the caller would show."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    route_id: Slug | None = None
    model: str | None = Field(None, min_length=1, max_length=256)
    key_id: str | None = Field(None, min_length=1, max_length=128)
    dialect: Dialect | None = None

    @model_validator(mode="after")
    def _one(self) -> "Asked":
        if self.route_id is None and self.model is None:
            raise ValueError("needs route_id or model, or both")
        return self


class Matched(BaseModel):
    """How the route was found; `pattern`: the one of its `match.models`."""

    by: By
    pattern: str | None
    sentence: str


class Candidate(BaseModel):
    """One endpoint, in the order in which they are asked.  `reason`: why it is skipped."""

    endpoint_id: str
    provider: str | None
    model: str | None
    status: EndpointHealth
    admits: bool
    reason: str | None


class PolicyShort(BaseModel):
    failover_policy_id: str
    state: State
    max_attempts: int
    on_exhausted: str


class Explained(BaseModel):
    """`route_id` null: no route serves such a request.  `fault`: why the route serves nobody.
    `answers`: the endpoint that would be asked first; null: none would."""

    route_id: str | None
    matched: Matched
    dialect: Dialect | None
    fault: str | None
    answers: str | None
    endpoints: list[Candidate]
    policy: PolicyShort | None
    timeouts: Timeouts | None
    policy_packs: list[str]
    stream_recovery: Literal["off", "resume", "buffer"] | None


async def explain_request(passage: Passage, deps: ControlDeps) -> Reply:
    """Say what would become of a request, without sending one."""
    asked = read_as(Asked, passage.body)
    rules = passage.config.workspaces[passage.workspace]
    key = _key(asked, rules)
    route, matched = _route(asked, rules, key)
    if route is None:
        told = Explained(
            route_id=None, matched=matched, dialect=asked.dialect, fault=None, answers=None,
            endpoints=[], policy=None, timeouts=None, policy_packs=[], stream_recovery=None,
        )  # fmt: skip
        return Reply.json(200, told.model_dump(mode="json"))
    policy = next(
        (p for p in rules.failover_policies if p.route_id == route.id and p.status == "active"),
        None,
    )
    standing = None if policy is None else standing_of(deps, passage.workspace, policy)
    permits, fault = await asyncio.to_thread(
        _permits, route, rules, key, passage.config.guard, asked.model
    )
    now = deps.clock.monotonic()
    primary = _primary(route, policy, rules)
    dialect = asked.dialect or (SPOKEN.get(primary.provider) if primary is not None else None)
    endpoints: list[Candidate] = []
    for name in [route.endpoint] if standing is None else standing.order:
        doc = next((each for each in rules.endpoints if each.id == name), None)
        model = asked.model if doc is None or primary is None or asked.model is None else (
            model_for(doc, asked.model, primary.models)
        )  # fmt: skip
        reason = _reason(standing, name, model, now) if doc is not None else "unknown"
        if not reason and doc is not None and primary is not None and dialect is not None:
            reason = refusal_of(doc, primary, dialect, asked.model or _any_model(primary))
        if not reason and doc is not None and permits is not None:
            free = permits.may_send(name, model or "", doc.provider, asked.model or "")
            reason = "" if free else _FORBIDDEN
        status = "healthy" if standing is None else status_of(standing, name, now)
        endpoints.append(
            Candidate.model_validate(
                {
                    "endpoint_id": name,
                    "provider": None if doc is None else doc.provider,
                    "model": model,
                    "status": status if doc is not None else "unknown",
                    "admits": not reason,
                    "reason": reason or None,
                }
            )
        )
    told = Explained(
        route_id=route.id,
        matched=matched,
        dialect=dialect,
        fault=rules.unusable.get(route.id) or fault,
        answers=next((each.endpoint_id for each in endpoints if each.admits), None),
        endpoints=endpoints,
        policy=_short(policy, standing),
        timeouts=_timeouts(route, policy),
        policy_packs=route.policy_packs,
        stream_recovery=route.stream_recovery,
    )
    return Reply.json(200, told.model_dump(mode="json"))


# --- the route


def _key(asked: Asked, rules: WorkspaceRules) -> ApiKey | None:
    """Raises Problem 422.  A key of another workspace is not told apart from none."""
    if asked.key_id is None:
        return None
    for each in rules.keys:
        if each.id == asked.key_id:
            return each
    raise _unknown("key_id", "names no key of this workspace")


def _route(asked: Asked, rules: WorkspaceRules, key: ApiKey | None) -> tuple[Route | None, Matched]:
    """First match wins (architecture.md §3).  Raises Problem 422, 403."""
    routes = {each.id: each for each in rules.routes}
    bound = key.route if key is not None else None
    if asked.route_id is not None:
        if asked.route_id not in routes:
            raise _unknown("route_id", "names no route of this workspace")
        if bound is not None and bound != asked.route_id:
            raise _unknown("key_id", "is bound to another route")
        return routes[asked.route_id], _said("route_id", "the caller names the route")
    if bound is not None and bound in routes:
        return routes[bound], _said("key", f"the key is bound to route {bound}")
    model = asked.model or ""
    table = RouteTable(rules.routes, rules.default_route)
    if model in routes:
        return routes[model], _said("model_is_route", "the model's name is that of the route")
    found = table.by_model(model)
    if found is not None:
        pattern = next(each for each in routes[found].match.models if matches(each, model))
        return routes[found], _said("model", f"match.models has {pattern}", pattern)
    if rules.default_route in routes:
        assert rules.default_route is not None, "it is one of the routes"
        return routes[rules.default_route], _said("default_route", "no pattern fits the model")
    if len(routes) == 1:
        return next(iter(routes.values())), _said("only_route", "there is no other route")
    return None, _said("none", "no pattern fits the model, and there is no default_route")


def _said(by: By, sentence: str, pattern: str | None = None) -> Matched:
    return Matched(by=by, pattern=pattern, sentence=sentence)


def _unknown(member: str, detail: str) -> Problem:
    return invalid([FieldError("unknown_reference", detail, member, f"#/{member}")])


# --- its endpoints


def _primary(route: Route, policy: FailoverPolicy | None, rules: WorkspaceRules) -> Endpoint | None:
    name = route.endpoint if policy is None else policy.primary_endpoint
    return next((each for each in rules.endpoints if each.id == name), None)


def _any_model(primary: Endpoint) -> str:
    return next(iter(primary.models), "anthropic.claude")


def _reason(standing: Standing | None, name: str, model: str | None, now: float) -> str:
    """Why it does not take a request now; "" when it does, or a part of them."""
    if standing is None:
        return ""
    why = standing.refusal(name, _RAMP_SHARE)
    if why:
        return why
    key = Key(name, "", model or "", standing.workspace_id)
    held = not standing.holds.admits(key, now) if model else (
        name in standing.limited
    )  # fmt: skip
    return "rate_limited" if held else ""


def _permits(
    route: Route,
    rules: WorkspaceRules,
    key: ApiKey | None,
    settings: GuardSettings,
    model: str | None,
) -> tuple[Permits | None, str | None]:
    """(what its packs say of who may use what, why they cannot be used)"""
    newest = {pack.policy_pack_id: pack for pack in rules.policies}
    exact = {f"{pack.policy_pack_id}@{pack.version}": pack for pack in rules.policies}
    found = [exact.get(name) or newest.get(name) for name in route.policy_packs]
    packs = [pack for pack in found if pack is not None]
    if not packs:
        return None, None
    try:
        guard = compile_guard(packs, settings)
    except PackError as why:
        return None, f"its packs cannot be used: {why}"
    role = (key.role or "app") if key is not None else "anonymous"
    permits = Permits(guard.gates, role)
    permits.ask_model(model or "")
    if permits.forbidden or permits.blocked is not None:
        return permits, f"its packs refuse the request: {permits.message or _FORBIDDEN}"
    return permits, None


def _short(policy: FailoverPolicy | None, standing: Standing | None) -> PolicyShort | None:
    if policy is None or standing is None:
        return None
    short: Object = {
        "failover_policy_id": policy.effective_id,
        "state": standing.state,
        "max_attempts": policy.max_attempts,
        "on_exhausted": policy.on_exhausted,
    }
    return PolicyShort.model_validate(short)


def _timeouts(route: Route, policy: FailoverPolicy | None) -> Timeouts:
    total_ms = policy.request_failover.total_deadline_ms if policy is not None else None
    if total_ms is None:
        return route.timeouts
    return route.timeouts.model_copy(update={"total_ms": total_ms})
