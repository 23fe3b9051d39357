"""When an endpoint is left: the rules of failover.md §5, each a function of what was counted.

`counts` are the sums of a window, by field; `in_a_row` is a run with nothing better between.
"""

from collections.abc import Sequence
from typing import Final

from proxy.model.failover import Conditions
from proxy.routing import window as fields
from proxy.routing.states import Reason
from proxy.routing.window import lower_bound

HARD_IN_A_ROW: Final = 3
CONFIG_IN_A_ROW: Final = 3
LIMITED_SHARE: Final = 0.5  # of attempts that are 429 without a hint


def by_kind(hard_in_a_row: int, config_in_a_row: int, config_code: str) -> Reason | None:
    """d and e: nobody is there; it does not take what we are."""
    if hard_in_a_row >= HARD_IN_A_ROW:
        return Reason("hard_failure", hard_in_a_row, HARD_IN_A_ROW, hard_in_a_row)
    if config_in_a_row >= CONFIG_IN_A_ROW:
        return Reason(config_code, config_in_a_row, CONFIG_IN_A_ROW, config_in_a_row)
    return None


def by_errors(said: Conditions, counts: Sequence[int], in_a_row: int) -> Reason | None:
    """a and c: too many of them fail, as far as so few can tell; or one after the other."""
    limit = said.error_rate_threshold
    outcomes, errors = counts[fields.OUTCOMES], counts[fields.ERRORS]
    if (
        limit is not None
        and outcomes >= said.min_samples
        and errors >= said.min_errors
        and lower_bound(errors, outcomes, said.confidence) > limit
    ):
        return Reason("error_rate", errors / outcomes, limit, outcomes)
    if said.consecutive_failures and in_a_row >= said.consecutive_failures:
        return Reason("consecutive_failures", in_a_row, said.consecutive_failures, in_a_row)
    return None


def by_latency(said: Conditions, counts: Sequence[int], in_a_row: int) -> Reason | None:
    """b and c: too many of them are slow; or one after the other."""
    if said.latency_threshold_ms is None:
        return None
    if said.consecutive_slow and in_a_row >= said.consecutive_slow:
        return Reason("latency", 1.0, said.slow_ratio_threshold, in_a_row)
    verdicts, slow = counts[fields.VERDICTS], counts[fields.SLOW]
    if (
        verdicts >= said.min_samples
        and lower_bound(slow, verdicts, said.confidence) >= said.slow_ratio_threshold
    ):
        return Reason("latency", slow / verdicts, said.slow_ratio_threshold, verdicts)
    return None


def by_limits(said: Conditions, counts: Sequence[int]) -> Reason | None:
    """Half of them are told that they are too many, and not until when (§7.2)."""
    attempts, limited = counts[fields.ATTEMPTS], counts[fields.LIMITED]
    if attempts >= said.min_samples and limited >= LIMITED_SHARE * attempts:
        return Reason("rate_limited", limited / attempts, LIMITED_SHARE, attempts)
    return None
