"""What has changed about the endpoints of a policy, as events (events.md §3, failover.md §14)."""

from typing import Final

from proxy.model.events import (
    ENDPOINT_STATE_CHANGED,
    FAILOVER_DECISION,
    FAILOVER_RECOVERED,
)
from proxy.model.failover import FailoverDecision, Observed
from proxy.routing import window as fields
from proxy.routing.effects import FLAP_HOLD, Effect, Flapping, Recovered, StateChanged, Switched
from proxy.routing.saying import trigger_condition
from proxy.routing.standing import Standing
from proxy.routing.states import Reason, State
from proxy.spool.record import decision_doc

NO_SHARE: Final = 99  # of a ramp: what it lets in last


def change_of(standing: Standing, effect: Effect, at_ms: int) -> tuple[str, dict[str, object]]:
    """(type, payload) of the event that tells it."""
    policy_id = standing.policy.effective_id
    match effect:
        case StateChanged(endpoint_id, change):
            return ENDPOINT_STATE_CHANGED, {
                **_endpoint(standing, endpoint_id),
                "from": str(change.before),
                "to": str(change.after),
                "reason": change.reason.code if change.reason is not None else None,
            }
        case Switched():
            return FAILOVER_DECISION, decision_doc(decision_of(standing, effect, at_ms))
        case Recovered(before, after, outage_s, requests):
            return FAILOVER_RECOVERED, {
                "failover_policy_id": policy_id,
                "from_endpoint": before,
                "to_endpoint": after,
                "outage_seconds": round(outage_s, 3),
                "requests_on_fallback": requests,
            }
        case Flapping(endpoint_id, _):
            breaker = standing.breakers.get(endpoint_id)
            state = str(State.PROBING if breaker is None else breaker.state)
            return ENDPOINT_STATE_CHANGED, {
                **_endpoint(standing, endpoint_id),
                "from": state,
                "to": state,
                "reason": FLAP_HOLD,
            }


def _endpoint(standing: Standing, endpoint_id: str) -> dict[str, object]:
    breaker = standing.breakers.get(endpoint_id)  # None: an edit has taken it out meanwhile
    n = [0] * fields.FIELDS if breaker is None else breaker.window.totals
    return {
        "endpoint_id": endpoint_id,
        "failover_policy_id": standing.policy.effective_id,
        "stats": {
            "samples": n[fields.OUTCOMES],
            "errors": n[fields.ERRORS],
            "slow": n[fields.SLOW],
        },
        "version": 0 if breaker is None else breaker.version,
    }


def decision_of(standing: Standing, switched: Switched, now_ms: int) -> FailoverDecision:
    """The seed's failover decision of a switch of all traffic."""
    policy, before, after = standing.policy, switched.before, switched.after
    reason = switched.reason if after is not None else Reason("exhausted")
    left = standing.breakers.get(before or policy.primary_endpoint)
    seen = switched.reason
    observed = Observed(
        seen.value, seen.threshold, seen.samples, policy.conditions.window_seconds
    ) if seen.samples else None  # fmt: skip
    return FailoverDecision(
        failover_policy_id=policy.effective_id,
        trigger_condition=trigger_condition(reason, policy.conditions, now_ms),
        original_endpoint=before or policy.primary_endpoint,
        selected_fallback=after,
        timestamp_ms=now_ms,
        reason_code=reason.code,
        scope="endpoint",
        skipped=_passed_over(standing, after),
        observed=observed,
        route_id=policy.route_id,
        state_version=left.version if left is not None else None,
    )


def _passed_over(standing: Standing, chosen: str | None) -> list[tuple[str, str]]:
    """The endpoints before the chosen one, with why they do not admit; all when there is none."""
    found = []
    for name in standing.order:
        if name == chosen:
            break
        held = "rate_limited" if name in standing.limited else ""
        found.append((name, standing.refusal(name, NO_SHARE) or held))
    return found
