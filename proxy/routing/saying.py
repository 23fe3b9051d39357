"""The words of a decision: one function makes `trigger_condition` (failover.md §14)."""

import math

from proxy.model.events import iso
from proxy.model.failover import Conditions, Outcome
from proxy.model.records import Attempt
from proxy.routing.failover import reason_of
from proxy.routing.rules import CONFIG_IN_A_ROW, HARD_IN_A_ROW
from proxy.routing.states import Reason

_CONFIG = frozenset({"auth", "model_not_found", "quota", "misconfigured"})


def trigger_condition(reason: Reason, said: Conditions | None, at_ms: int) -> str:
    """Why an endpoint was left, as the seed writes it: `latency > 2000ms`.  `at_ms`: when.

    `said`: the conditions of the policy that left it, which may have been edited since, so that a
    threshold that the reason knows comes first; None: one request did, for what `reason.said`
    tells."""
    if reason.left_s:
        until_s = -(-at_ms // 1000) + math.ceil(reason.left_s)
        return f"{reason.code} until {iso(until_s * 1000)}"
    if said is None:
        return reason.said or reason.code
    match reason.code:
        case "latency" if said.latency_threshold_ms is not None:
            return f"latency > {said.latency_threshold_ms}ms"
        case "error_rate" if reason.threshold or said.error_rate_threshold is not None:
            return f"error_rate > {reason.threshold or said.error_rate_threshold:g}"
        case "consecutive_failures":
            return f"consecutive_failures >= {reason.threshold or said.consecutive_failures:g}"
        case "hard_failure":
            return f"connect_failures >= {HARD_IN_A_ROW}"
        case code if code in _CONFIG:
            return f"{code}_failures >= {CONFIG_IN_A_ROW}"
        case "manual" if reason.said:
            return f"manual: {reason.said}"
        case "exhausted":
            return "all endpoints unavailable"
        case code:
            return code


def why_sent_on(attempt: Attempt, at_ms: int) -> tuple[str, str]:
    """(reason_code, trigger_condition) of one request that left an endpoint."""
    code, why = reason_of(attempt)
    left_s = 0.0
    if attempt.outcome is Outcome.RATE_LIMITED:
        left_s = attempt.retry_after_s or 0.0
    return code, trigger_condition(Reason(code, left_s=left_s, said=why), None, at_ms)
