"""The words of a decision: one function makes `trigger_condition` (failover.md §14)."""

import math

from proxy.model.events import iso
from proxy.model.failover import Conditions
from proxy.routing.breaker import CONFIG_IN_A_ROW, HARD_IN_A_ROW, Reason

_CONFIG = {"auth": "auth", "model_not_found": "model_not_found", "quota": "quota",
           "misconfigured": "misconfigured"}  # fmt: skip


def trigger_condition(reason: Reason, said: Conditions, at_ms: int) -> str:
    """Why an endpoint was left, as the seed writes it: `latency > 2000ms`.  `at_ms`: when."""
    match reason.code:
        case code if reason.left_s:
            until_s = -(-at_ms // 1000) + math.ceil(reason.left_s)
            return f"{code} until {iso(until_s * 1000)}"
        case "latency":
            return f"latency > {said.latency_threshold_ms}ms"
        case "error_rate":
            return f"error_rate > {said.error_rate_threshold:g}"
        case "consecutive_failures":
            return f"consecutive_failures >= {said.consecutive_failures}"
        case "hard_failure":
            return f"connect_failures >= {HARD_IN_A_ROW}"
        case code if code in _CONFIG:
            return f"{_CONFIG[code]}_failures >= {CONFIG_IN_A_ROW}"
        case "manual" if reason.said:
            return f"manual: {reason.said}"
        case "exhausted":
            return "all endpoints unavailable"
        case code:
            return code
