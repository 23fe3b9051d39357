"""What has changed about the endpoints of a policy, as events (events.md §3, failover.md §14)."""

from proxy.model.events import (
    ENDPOINT_STATE_CHANGED,
    FAILOVER_DECISION,
    FAILOVER_RECOVERED,
    iso,
)
from proxy.model.failover import FailoverDecision, FailoverPolicy
from proxy.routing import window as fields
from proxy.routing.breaker import Reason
from proxy.routing.saying import trigger_condition
from proxy.routing.standing import (
    FLAP_HOLD,
    Effect,
    Flapping,
    Recovered,
    Standing,
    StateChanged,
    Switched,
)


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
            decision = decision_of(standing.policy, effect, at_ms)
            return FAILOVER_DECISION, {
                "failover_policy_id": decision.failover_policy_id,
                "trigger_condition": decision.trigger_condition,
                "original_endpoint": decision.original_endpoint,
                "selected_fallback": decision.selected_fallback,
                "timestamp": iso(at_ms),
                "scope": decision.scope,
                "reason_code": decision.reason_code,
                "observed": {
                    "value": effect.reason.value,
                    "threshold": effect.reason.threshold,
                    "samples": effect.reason.samples,
                    "window_seconds": standing.policy.conditions.window_seconds,
                },
                "route_id": standing.policy.route_id,
            }
        case Recovered(before, after, outage_s, requests):
            return FAILOVER_RECOVERED, {
                "failover_policy_id": policy_id,
                "from_endpoint": before,
                "to_endpoint": after,
                "outage_seconds": round(outage_s, 3),
                "requests_on_fallback": requests,
            }
        case Flapping(endpoint_id, _):
            return ENDPOINT_STATE_CHANGED, {
                **_endpoint(standing, endpoint_id),
                "from": str(standing.breakers[endpoint_id].state),
                "to": str(standing.breakers[endpoint_id].state),
                "reason": FLAP_HOLD,
            }


def _endpoint(standing: Standing, endpoint_id: str) -> dict[str, object]:
    breaker = standing.breakers[endpoint_id]
    n = breaker.window.totals
    return {
        "endpoint_id": endpoint_id,
        "failover_policy_id": standing.policy.effective_id,
        "stats": {
            "samples": n[fields.OUTCOMES],
            "errors": n[fields.ERRORS],
            "slow": n[fields.SLOW],
        },
        "version": breaker.version,
    }


def decision_of(policy: FailoverPolicy, switched: Switched, now_ms: int) -> FailoverDecision:
    """The seed's failover decision of a switch of all traffic."""
    reason = switched.reason if switched.after is not None else Reason("exhausted")
    return FailoverDecision(
        failover_policy_id=policy.effective_id,
        trigger_condition=trigger_condition(reason, policy.conditions, now_ms),
        original_endpoint=switched.before or policy.primary_endpoint,
        selected_fallback=switched.after,
        timestamp_ms=now_ms,
        reason_code=reason.code,
        scope="endpoint",
    )
