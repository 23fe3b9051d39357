"""How the endpoints of a failover policy stand, as the API tells it (failover.md §1, §14)."""

from dataclasses import asdict, replace
from typing import Final, Literal

from pydantic import BaseModel

from proxy.control.frame import ControlDeps
from proxy.control.kinds import Object
from proxy.model.documents import Instant
from proxy.model.events import iso
from proxy.model.exchange import Json
from proxy.model.failover import FailoverPolicy
from proxy.model.tenancy import WorkspaceRules
from proxy.routing import window as fields
from proxy.routing.explaining import EndpointExplained, RuleExplained, explain, status_of
from proxy.routing.saying import trigger_condition
from proxy.routing.standing import Standing
from proxy.routing.states import State as Breaker

State = Literal["normal", "failed_over", "recovering", "exhausted", "forced"]
EndpointHealth = Literal[
    "healthy", "degraded", "unhealthy", "probing", "recovering", "rate_limited", "unknown",
    "disabled",
]  # fmt: skip
_DIGITS: Final = 4


class EndpointStats(BaseModel):
    """What the breaker has seen of an endpoint; null: nothing to tell of.  `error_rate` is of
    `samples`; `slow_ratio` of the answers that were timed (`timed` in `explain`)."""

    samples: int
    error_rate: float | None
    slow_ratio: float | None
    p50_ms: float | None


class HoldTold(BaseModel):
    """A provider has refused that model with a 429, or for want of money: nobody asks meanwhile."""

    model: str
    remaining_ms: int


class OpenedBy(BaseModel):
    """Why an endpoint was left; `value` beside `threshold`, of so many samples."""

    reason_code: str
    trigger_condition: str
    value: float
    threshold: float
    samples: int


class EndpointExplainedTold(BaseModel):
    """One endpoint under the policy: what was seen of it, and what each rule says of that.

    `since`: when it came into its `state`; null: it was always so.  `next_probe_in_ms` null: it
    needs none.  `timed`: answers that were found slow or not, of which `slow` are a part; attempts
    under way are among them before they are `samples`.  `ramp_percent`: of the requests, while it
    comes back.  `opened_by`: why it was left, until all its traffic is back.  `excluded`: outcomes
    that say nothing of it, by class."""

    state: str
    status: EndpointHealth
    since: Instant | None
    next_probe_in_ms: int | None
    hold: list[HoldTold]
    samples: int
    errors: int
    slow: int
    timed: int
    ramp_percent: int | None
    opened_by: OpenedBy | None
    excluded: dict[str, int]
    rules: list[RuleExplained]


class ForcedTold(BaseModel):
    """An operator has put all traffic to that endpoint, for so long."""

    endpoint: str
    until: Instant
    reason: str


def standing_of(deps: ControlDeps, workspace_id: str, policy: FailoverPolicy) -> Standing:
    """How its endpoints stand; of a policy that is paused, or not in force yet, as if nothing were
    known."""
    found = deps.standings.of(workspace_id, policy.effective_id)
    names = {policy.primary_endpoint, *policy.fallback_endpoints}
    if found is None or found.breakers.keys() != names or policy.status != "active":
        return Standing(policy, lambda: 0.5, workspace_id)
    return found


def told_of(deps: ControlDeps, standing: Standing, rules: WorkspaceRules) -> Object:
    """The members that only a reader's moment can tell."""
    now = deps.clock.monotonic()
    known = {each.id for each in rules.endpoints}

    def status(name: str) -> str:
        return status_of(standing, name, now) if name in known else "unknown"

    policy = standing.policy
    fallbacks: list[Json] = [
        {"id": name, "status": status(name)} for name in policy.fallback_endpoints
    ]
    return {
        "fallback_endpoints": fallbacks,
        "primary_status": status(policy.primary_endpoint),
        "state": standing.state,
        "active_endpoint": standing.active or policy.primary_endpoint,
        "since": _at(deps, standing.since),
        "forced": _forced(deps, standing),
        "stats": {name: stats_of(deps, standing, name) for name in standing.order},
    }


def explained(deps: ControlDeps, standing: Standing, rules: WorkspaceRules) -> Object:
    """By endpoint, what each rule says."""
    known = {each.id for each in rules.endpoints}
    return {
        name: explained_one(deps, standing, name, known=name in known) for name in standing.order
    }


def explained_one(deps: ControlDeps, standing: Standing, name: str, *, known: bool) -> Object:
    """What each rule says of that endpoint.  `known`: there is one of that id."""
    now = deps.clock.monotonic()
    each = explain(standing, name, now)
    probe_s, since_s = each.next_probe_in_s, each.since_s
    return {
        "state": each.state,
        "status": each.status if known else "unknown",
        "since": None if since_s is None else _at(deps, now - since_s),
        "next_probe_in_ms": None if probe_s is None else _ms(probe_s),
        "hold": [{"model": model, "remaining_ms": _ms(left_s)} for model, left_s in each.hold],
        "samples": each.samples,
        "errors": each.errors,
        "slow": each.slow,
        "timed": each.timed,
        "ramp_percent": each.ramp_percent,
        "opened_by": _opened_by(deps, standing, each),
        "excluded": {**each.excluded},
        "rules": [_rule(rule) for rule in each.rules],
    }


def stats_of(deps: ControlDeps, standing: Standing, name: str) -> Object:
    """In short, what was seen of it."""
    breaker, now = standing.breakers[name], deps.clock.monotonic()
    breaker.window.advance(now)
    n = breaker.window.totals
    samples, verdicts = n[fields.OUTCOMES], n[fields.VERDICTS]
    return {
        "samples": samples,
        "error_rate": round(n[fields.ERRORS] / samples, _DIGITS) if samples else None,
        "slow_ratio": round(n[fields.SLOW] / verdicts, _DIGITS) if verdicts else None,
        "p50_ms": breaker.latencies.median_ms(now),
    }


def _rule(each: RuleExplained) -> Json:
    bound = each.lower_bound
    return {**asdict(each), "lower_bound": None if bound is None else round(bound, _DIGITS)}


def _opened_by(deps: ControlDeps, standing: Standing, each: EndpointExplained) -> Json:
    why = each.opened_by
    if why is None:
        return None
    if each.state != Breaker.OPEN:
        why = replace(why, left_s=0.0)  # its time is over
    at_ms = deps.clock.now_ms() - _ms(each.since_s or 0.0)
    return {
        "reason_code": why.code,
        "trigger_condition": trigger_condition(why, standing.policy.conditions, at_ms),
        "value": round(why.value, _DIGITS),
        "threshold": why.threshold,
        "samples": why.samples,
    }


def _forced(deps: ControlDeps, standing: Standing) -> Json:
    for name, breaker in standing.breakers.items():
        if breaker.state is Breaker.FORCED_CLOSED:
            reason = breaker.reason.said if breaker.reason is not None else ""
            return {"endpoint": name, "until": _at(deps, breaker.until), "reason": reason}
    return None


def _at(deps: ControlDeps, monotonic: float) -> str | None:
    """A time of the clock that never goes back, as one for people; 0: there was none."""
    if not monotonic:
        return None
    return iso(deps.clock.now_ms() + _ms(monotonic - deps.clock.monotonic()))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
