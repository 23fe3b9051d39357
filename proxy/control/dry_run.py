"""POST {w}/explain: what would become of a request, and why (failover.md §14).  Sends nothing.

Credentials are not resolved: an endpoint counts as having its own when one is configured, and the
caller as having one for the primary.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from proxy.control.foretold import (
    Candidate,
    DependsOn,
    StickyTold,
    TierTold,
    candidate,
    missing,
    observed_of,
    sentence_of,
    sticky_told,
    tiers_told,
    unknowns,
)
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.kinds import Object
from proxy.control.problems import FieldError, Problem, invalid
from proxy.control.standing import State as PolicyState
from proxy.control.standing import standing_of
from proxy.control.validation import read_as
from proxy.guardrails.compile import PackError, compile_guard
from proxy.guardrails.permits import Permits
from proxy.model.documents import Slug
from proxy.model.exchange import Dialect
from proxy.model.failover import FailoverPolicy
from proxy.model.tenancy import ApiKey, Endpoint, GuardSettings, Route, Timeouts, WorkspaceRules
from proxy.routing.explaining import status_of
from proxy.routing.foretelling import NOWHERE, Foretold, alone, foretell
from proxy.routing.holds import Key
from proxy.routing.match import RouteTable, matches
from proxy.routing.standing import Standing
from proxy.routing.states import State
from proxy.wire.providers.models import model_for
from proxy.wire.providers.rehearsal import SPOKEN, refusal_of

By = Literal["route_id", "key", "model_is_route", "model", "default_route", "only_route", "none"]
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


class PolicyShort(BaseModel):
    failover_policy_id: str
    state: PolicyState
    max_attempts: int
    on_exhausted: str


class Explained(BaseModel):
    """What would become of such a request, as far as that is known without one."""

    route_id: str | None = Field(description="null: no route serves such a request")
    matched: Matched
    dialect: Dialect | None
    fault: str | None = Field(description="why the route serves nobody")
    sentence: str = Field(description="where it would go, and why")
    answers: str | None = Field(
        description="the endpoint that all such requests ask first, single probes left out; null: "
        "several share them (`asked_first`), or none admits"
    )
    asked_first: list[str] = Field(
        description="whoever may be asked first, probes included; empty: none admits"
    )
    endpoints: list[Candidate]
    tiers: list[TierTold]
    sticky: StickyTold | None = Field(description="null: off")
    depends_on: list[DependsOn] = Field(
        description="what may change the answer and is not known here: loads and pins are kept by "
        "workers, and a dry run has no body"
    )
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
            route_id=None, matched=matched, dialect=asked.dialect, fault=None,
            sentence=f"no route serves it: {matched.sentence}", answers=None, asked_first=[],
            endpoints=[], tiers=[], sticky=None, depends_on=[], policy=None, timeouts=None,
            policy_packs=[], stream_recovery=None,
        )  # fmt: skip
        return Reply.json(200, told.model_dump(mode="json"))
    policy = next(
        (p for p in rules.failover_policies if p.route_id == route.id and p.status == "active"),
        None,
    )
    permits, reroutes, fault = await asyncio.to_thread(
        _permits, route, rules, key, passage.config.guard, asked.model
    )
    standing = None if policy is None else standing_of(deps, passage.workspace, policy)
    names = [route.endpoint] if standing is None else standing.order
    primary = _primary(names, rules)
    fault = rules.unusable.get(route.id) or fault
    dialect = asked.dialect or (SPOKEN.get(primary.provider) if primary is not None else None)
    sight = _Sight(asked, rules, names, standing, dialect, permits, deps.clock.monotonic())
    value = ""
    if policy is not None and policy.sticky.enabled and policy.sticky.key == "api_key":
        value = key.id if key is not None else ""
    foretold = sight.foretell(value)
    sole = [place.name for place in foretold.places if place.share == 1]
    told = Explained(
        route_id=route.id,
        matched=matched,
        dialect=dialect,
        fault=fault,
        sentence=sentence_of(foretold, fault),
        answers=sole[0] if sole and fault is None else None,
        asked_first=list(foretold.first) if fault is None else [],
        endpoints=sight.candidates(foretold),
        tiers=tiers_told(foretold, sight.weights, value),
        sticky=None if policy is None else sticky_told(policy, foretold, value),
        depends_on=list(unknowns(policy, foretold, sight.docs, value, asked.model, reroutes)),
        policy=_short(policy, standing),
        timeouts=_timeouts(route, policy),
        policy_packs=route.policy_packs,
        stream_recovery=route.stream_recovery,
    )
    return Reply.json(200, told.model_dump(mode="json"))


class _Sight:
    """What the control process sees of the endpoints that a request might be sent to."""

    def __init__(
        self,
        asked: Asked,
        rules: WorkspaceRules,
        names: Sequence[str],
        standing: Standing | None,
        dialect: Dialect | None,
        permits: Permits | None,
        now: float,
    ) -> None:
        """`names`: the primary first; the first that there is stands for it.  `standing` None:
        there is no policy."""
        docs = {each.id: each for each in rules.endpoints}
        self._asked = asked
        self._names = names
        self._standing = standing
        self._now = now
        self.docs = {name: docs[name] for name in names if name in docs}
        self._primary = next(iter(self.docs.values()), None)
        self.weights = {name: doc.weight for name, doc in self.docs.items()}
        self._unfits: dict[str, str] = {}
        for name, doc in self.docs.items():
            why = self._unfit(doc, dialect, permits)
            if why:
                self._unfits[name] = why

    def foretell(self, value: str) -> Foretold:
        """`value`: what the request sticks to, where that is known."""
        if not self.docs:
            return NOWHERE
        if self._standing is not None:
            return foretell(self._standing, self.weights, self._unfits, self._now, value)
        return alone(self._names[0], self._unfits.get(self._names[0], ""))

    def _unfit(self, doc: Endpoint, dialect: Dialect | None, permits: Permits | None) -> str:
        """Why it does not take such a request, whatever its breaker says."""
        primary, asked, model = self._primary, self._asked.model, self._model(doc)
        if primary is not None and dialect is not None:
            why = refusal_of(doc, primary, dialect, asked or _any_model(primary))
            if why:
                return why
        if permits is not None and not permits.may_send(
            doc.id, model or "", doc.provider, asked or ""
        ):
            return _FORBIDDEN
        return "rate_limited" if self._held_s(doc.id, model) is not None else ""

    def _model(self, doc: Endpoint) -> str | None:
        asked, primary = self._asked.model, self._primary
        if primary is None or asked is None:
            return asked
        return model_for(doc, asked, primary.models)

    def _held_s(self, name: str, model: str | None) -> float | None:
        """How long its own key is still held for that model; None: it is not."""
        standing = self._standing
        if standing is None:
            return None
        if model is None:
            until = standing.limited.get(name)
            return None if until is None else until - self._now
        key = Key(name, "", model, standing.workspace_id)
        if standing.holds.admits(key, self._now):
            return None
        return standing.holds.left_s(key, self._now)

    def candidates(self, told: Foretold) -> list[Candidate]:
        """Those that there are tier by tier, then those that there are not."""
        standing = self._standing
        observed = {} if standing is None else observed_of(standing, self._now)
        found = []
        for place in told.places:
            doc, wait_s, status = self.docs[place.name], None, "healthy"
            model = self._model(doc)
            if standing is not None:
                status = status_of(standing, place.name, self._now)
                breaker = standing.breakers[place.name]
                if breaker.state in (State.OPEN, State.FORCED_OPEN):
                    wait_s = breaker.until - self._now
                elif place.reason == "rate_limited":
                    wait_s = self._held_s(place.name, model)
            found.append(candidate(doc, model, status, place, observed.get(place.name), wait_s))
        gone = [name for name in self._names if name not in self.docs]
        return found + [missing(name, self._asked.model) for name in gone]


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


def _primary(names: Sequence[str], rules: WorkspaceRules) -> Endpoint | None:
    """The first that there is, as in the gateway."""
    docs = {each.id: each for each in rules.endpoints}
    return next((docs[name] for name in names if name in docs), None)


def _any_model(primary: Endpoint) -> str:
    return next(iter(primary.models), "anthropic.claude")


def _permits(
    route: Route,
    rules: WorkspaceRules,
    key: ApiKey | None,
    settings: GuardSettings,
    model: str | None,
) -> tuple[Permits | None, list[str], str | None]:
    """(what its packs say of who may use what, where they may send a request, why they cannot be
    used).  Of a model that was not given they say nothing: `depends_on` tells that."""
    newest = {pack.policy_pack_id: pack for pack in rules.policies}
    exact = {f"{pack.policy_pack_id}@{pack.version}": pack for pack in rules.policies}
    found = [exact.get(name) or newest.get(name) for name in route.policy_packs]
    packs = [pack for pack in found if pack is not None]
    if not packs:
        return None, [], None
    try:
        guard = compile_guard(packs, settings)
    except PackError as why:
        return None, [], f"its packs cannot be used: {why}"
    if model is None:
        return None, sorted(guard.reroutes), None
    role = (key.role or "app") if key is not None else "anonymous"
    permits = Permits(guard.gates, role)
    permits.ask_model(model)
    if permits.forbidden or permits.blocked is not None:
        return permits, [], f"its packs refuse the request: {permits.message or _FORBIDDEN}"
    return permits, sorted(guard.reroutes), None


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
