"""What to do next with a request that has no answer yet: one pure function over what was tried.

Order is the policy's: the primary, then each fallback.  An endpoint is asked once; one that cannot
take the request is skipped with its reason.  `next_move` decides, the gateway does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.model.failover import Attempt, FailoverPolicy, Outcome
from proxy.routing.outcomes import CONSEQUENCES


@dataclass(frozen=True, slots=True)
class Send:
    """Ask this endpoint (its place in the order)."""

    place: int


@dataclass(frozen=True, slots=True)
class Fail:
    """Nothing is left to do.  `because` is told in the record."""

    because: str


Move = Send | Fail
_SENDS: Final = tuple(Send(place) for place in range(11))  # a primary and ten fallbacks


def next_move(
    places: int,
    tried: Sequence[Attempt],
    skipped: Mapping[int, str],
    policy: FailoverPolicy | None,
    *,
    left_s: float,
    each: bool = False,
) -> Move:
    """Say what to do next.

    `places`: how many endpoints the route has in order.  `tried`: the attempts so far, one per
    place that was asked.  `skipped`: places that refused the request, with the reason.
    `left_s`: what is left of the request's deadline.  `each`: the order is that of a rule which
    reroutes, and every endpoint of it gets its attempt without any policy.
    """
    if tried:
        if not CONSEQUENCES[tried[-1].outcome].elsewhere:
            return Fail(str(tried[-1].outcome))
        if not each:
            if policy is None or policy.status != "active" or not policy.request_failover.enabled:
                return Fail("no failover on this route")
            if len(tried) >= policy.max_attempts:
                return Fail("max_attempts")
        if left_s <= 0:
            return Fail("deadline")
    at = len(tried) + len(skipped)
    if at < places:
        return _SENDS[at] if at < len(_SENDS) else Send(at)
    return Fail("no endpoint left")


_TIMEOUT_PHASES: Final = {"first_content", "idle", "total", "unary", "connect"}


def reason_of(attempt: Attempt) -> tuple[str, str]:
    """(reason_code, trigger_condition) of a request-scope decision (failover.md §14)."""
    if attempt.timed_out in _TIMEOUT_PHASES:
        return "timeout", attempt.why
    if attempt.outcome is Outcome.RATE_LIMITED:
        return "rate_limited", attempt.why
    if attempt.outcome is Outcome.QUOTA:
        return "quota", attempt.why
    if attempt.outcome is Outcome.AUTH:
        return "auth", attempt.why
    if attempt.outcome is Outcome.MODEL_MISSING:
        return "model_not_found", attempt.why
    if attempt.outcome is Outcome.MISCONFIGURED:
        return "misconfigured", attempt.why
    return "upstream_error", attempt.why


# The most useful class of a failed chain wins (failover.md §8.6): the caller's to fix first, then
# the last one that another endpoint might have healed.
_CALLERS: Final = (Outcome.CALLER, Outcome.REFUSAL, Outcome.CONTEXT_WINDOW)


def final_attempt(tried: Sequence[Attempt]) -> int:
    """The index of the attempt whose class the caller is told."""
    for index, attempt in enumerate(tried):
        if attempt.outcome in _CALLERS:
            return index
    if all(attempt.outcome is Outcome.RATE_LIMITED for attempt in tried):
        hints = [
            (a.retry_after_s if a.retry_after_s is not None else 1e9, i)
            for i, a in enumerate(tried)
        ]
        return min(hints)[1]
    return len(tried) - 1
