"""What to do next with a request that has no answer yet: one pure function over what was tried.

Order is the policy's: the primary, then each fallback, or tier by tier.  An endpoint is asked once,
and once more where that may help; one that cannot take the request is skipped with its reason.
`next_move` decides, the gateway does.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.model.failover import FailoverPolicy, Outcome
from proxy.model.records import Attempt
from proxy.routing.outcomes import CONSEQUENCES


@dataclass(frozen=True, slots=True)
class Send:
    """Ask this endpoint (its place in the order).  `after_s`: not before so long.  `charged`: it
    takes one of the policy's budget of retries."""

    place: int
    after_s: float = 0.0
    charged: bool = False


@dataclass(frozen=True, slots=True)
class Fail:
    """Nothing is left to do.  `because` is told in the record."""

    because: str


Move = Send | Fail


@dataclass(frozen=True, slots=True)
class Now:
    """What is known at the moment of the decision.

    `left_s`: of the request's deadline; `least_s`: less than that is no use to another attempt.
    `steady`: the endpoint that was asked last is closed, and did not fail half of what it got of
    late.  `has_budget`: one more charged attempt may be made.  `apart_s`: the pause before the same
    endpoint is asked again; `extra_s`: what is waited beyond a provider's hint.
    """

    left_s: float
    least_s: float = 0.0
    steady: bool = True
    has_budget: bool = True
    apart_s: float = 0.1
    extra_s: float = 0.0
    fragile: Collection[int] = ()


_SENDS: Final = tuple(Send(place) for place in range(11))  # a primary and ten fallbacks
BUDGET: Final = "budget"  # why a request fails that might have been retried
_NOBODY: Final = "no endpoint left"
CUT_SHORT: Final = "answer cut short"  # one that was to be whole
MOST_ON_ONE: Final = 2  # attempts of one request on one endpoint (failover.md §8.2)


def next_move(
    order: Sequence[str],
    tried: Sequence[Attempt],
    refused: Mapping[int, str],
    policy: FailoverPolicy | None,
    now: Now,
    *,
    each: bool = False,
    places: Sequence[int] | None = None,
) -> Move:
    """Say what to do next.

    `order`: the endpoints of the route.  `places`: those of it that are asked first come first;
    None: in their order.  `tried`: the attempts so far, those on a connection that
    had gone stale left out.  `refused`: places that do not take the request, with the reason.
    `each`: the order is that of a rule which reroutes, and every endpoint of it gets its attempt
    without any policy.
    """
    if not tried:
        return _elsewhere(order, tried, refused, places)
    last = tried[-1]
    told = CONSEQUENCES[last.outcome]
    larger = last.outcome is Outcome.CONTEXT_WINDOW  # who has no larger one is refused
    if not told.elsewhere and not larger:
        return Fail(str(last.outcome))
    if each:
        if now.left_s <= 0:
            return Fail("deadline")
        return _elsewhere(order, tried, refused, places)
    if policy is None or policy.status != "active" or not policy.request_failover.enabled:
        return Fail("no failover on this route")
    if len(tried) >= policy.max_attempts:
        return Fail("max_attempts")
    if now.left_s <= now.least_s:
        return Fail("deadline")
    because = _NOBODY
    place = order.index(last.endpoint_id) if last.endpoint_id in order else -1
    if place >= 0 and place not in refused:
        again = _again(tried, place, policy, now)
        if again is not None:
            if now.has_budget:
                return again
            because = BUDGET
    move = _elsewhere(order, tried, refused, places, now, because)
    if isinstance(move, Fail) and last.why == CUT_SHORT and place >= 0 and place not in refused:
        return _last_resort(tried, place, now) or move
    return move


def _last_resort(tried: Sequence[Attempt], place: int, now: Now) -> Send | None:
    """The endpoint whose answer was cut: only where nothing else admits (failover.md §4)."""
    before = sum(attempt.endpoint_id == tried[-1].endpoint_id for attempt in tried)
    return Send(place, now.apart_s, True) if before < MOST_ON_ONE and now.has_budget else None


def _again(tried: Sequence[Attempt], place: int, policy: FailoverPolicy, now: Now) -> Send | None:
    """The same endpoint once more, where that may help: never after silence (failover.md §8.2)."""
    last, said = tried[-1], policy.request_failover
    before = sum(attempt.endpoint_id == last.endpoint_id for attempt in tried)
    if before >= min(1 + said.same_endpoint_retries, MOST_ON_ONE):
        return None
    hint_s = last.retry_after_s
    if last.outcome is Outcome.RATE_LIMITED:
        if hint_s is None or hint_s > said.rate_limit_wait_max_ms / 1000:
            return None
        wait_s = hint_s + now.extra_s
        return Send(place, wait_s, True) if wait_s < now.left_s - now.least_s else None
    if not CONSEQUENCES[last.outcome].again or hint_s is not None or not now.steady:
        return None
    if last.timed_out:
        return None  # it has had its time
    return Send(place, now.apart_s, True)


def _elsewhere(
    order: Sequence[str],
    tried: Sequence[Attempt],
    refused: Mapping[int, str],
    places: Sequence[int] | None,
    now: Now | None = None,
    because: str = _NOBODY,
) -> Move:
    """The first in order that was not asked; `because`: why nobody may be."""
    asked = {attempt.endpoint_id for attempt in tried}
    for place in range(len(order)) if places is None else places:
        if place in refused or order[place] in asked:
            continue
        if now is None or (len(asked) < 2 and place not in now.fragile):
            return _SENDS[place] if place < len(_SENDS) else Send(place)
        if now.has_budget:
            return Send(place, 0.0, True)
        because = BUDGET
    return Fail(because)


_TIMEOUT_PHASES: Final = {"first_content", "idle", "total", "unary", "connect"}


def reason_of(attempt: Attempt) -> tuple[str, str]:
    """(reason_code, trigger_condition) of a request-scope decision (failover.md §14)."""
    if attempt.outcome is Outcome.CUT and attempt.why != CUT_SHORT:
        return "stream_cut", attempt.why
    if attempt.outcome is Outcome.STALL:
        return "stream_stall", attempt.why
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
    if attempt.outcome is Outcome.CONTEXT_WINDOW:
        return "context_window", "context_length_exceeded"
    return "upstream_error", attempt.why


# The most useful class of a failed chain wins (failover.md §8.6): the caller's to fix first, then
# the last one that time may heal; what an operator must mend says least to a caller.
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
    for index in range(len(tried) - 1, -1, -1):
        if not CONSEQUENCES[tried[index].outcome].config:
            return index
    return len(tried) - 1
