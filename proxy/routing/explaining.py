"""Why an endpoint was left, or why it was not: each rule of failover.md §5 with what it saw.

Pure, like all of routing: of a `Standing` and `now` it makes figures, one word and one sentence per
rule (§14).  It changes nothing but windows that time has gone by.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from proxy.model.failover import Conditions
from proxy.routing import window as fields
from proxy.routing.breaker import Breaker
from proxy.routing.rules import CONFIG_IN_A_ROW, HARD_IN_A_ROW
from proxy.routing.standing import Standing
from proxy.routing.states import Reason, State
from proxy.routing.window import lower_bound

_IN_USE: Final = (State.CLOSED, State.FORCED_CLOSED)
NO_CONDITION: Final = "no_condition"
FEW_SAMPLES: Final = "not_enough_samples"
FEW_ERRORS: Final = "not_enough_errors"
BELOW: Final = "below_threshold"
BOUND_BELOW: Final = "lower_bound_below_threshold"
ONLY_EXCLUDED: Final = "only_excluded_outcomes"
RATE_LIMITS: Final = "rate_limits_are_not_errors"
BASIS: Final = "basis_excludes_traffic"
ALREADY_OPEN: Final = "already_open"
FORCED_CLOSED: Final = "forced_closed"
PAUSED: Final = "paused"
FLAP_HOLD: Final = "flap_hold"
NOBODY: Final = "no_endpoint_admits"
WHYS: Final = (
    NO_CONDITION, FEW_SAMPLES, FEW_ERRORS, BELOW, BOUND_BELOW, ONLY_EXCLUDED, RATE_LIMITS, BASIS,
    ALREADY_OPEN, FORCED_CLOSED, PAUSED, FLAP_HOLD, NOBODY,
)  # fmt: skip

Held = Sequence[tuple[str, float]]  # upstream models, and the seconds for which they are held

STATUSES: Final = {
    State.CLOSED: "healthy",
    State.LIMITED: "rate_limited",
    State.OPEN: "unhealthy",
    State.PROBING: "probing",
    State.RAMP: "recovering",
    State.FORCED_OPEN: "disabled",
    State.FORCED_CLOSED: "healthy",
}


@dataclass(frozen=True, slots=True)
class RuleExplained:
    """One rule, a to e.  `value` beside `threshold`: a ratio, of which `lower_bound` is sure, or a
    run.  `have` and `need`: samples when there are too few of them, else what is bad among them,
    and how much of it trips.  `why` null: it trips."""

    rule: str
    reason: str
    value: float | None
    lower_bound: float | None
    threshold: float | None
    have: int
    need: int | None
    would_trip: bool
    why: str | None
    sentence: str


@dataclass(frozen=True, slots=True)
class EndpointExplained:
    """One endpoint under a policy.  Times are seconds from `now`; `since_s` None: it was always
    so, `next_probe_in_s` None: it needs none.  `timed`: answers that were found slow or not, of
    which `slow` are a part; attempts under way are among them before they are `samples`.
    `opened_by`: why it was left, until all its traffic is back."""

    state: str
    status: str
    since_s: float | None
    next_probe_in_s: float | None
    hold: Held
    samples: int
    errors: int
    slow: int
    timed: int
    ramp_percent: int | None = None
    opened_by: Reason | None = None
    excluded: dict[str, int] = field(default_factory=dict)
    rules: tuple[RuleExplained, ...] = ()


def held_of(standing: Standing, name: str, now: float) -> Held:
    """What is held of that endpoint's own key; what callers' keys have used up is theirs."""
    return [
        (key.model, left_s)
        for key, left_s in standing.holds.all(name, now, standing.workspace_id)
        if not key.credential
    ]  # fmt: skip


def state_of(standing: Standing, name: str) -> State:
    """Of its breaker, and whether its provider wants to be left alone."""
    state = standing.breakers[name].state
    return State.LIMITED if state is State.CLOSED and name in standing.limited else state


def explain(standing: Standing, name: str, now: float) -> EndpointExplained:
    """How that endpoint of the policy stands, and what each rule says of it."""
    breaker = standing.breakers[name]
    breaker.window.advance(now)
    n = breaker.window.totals
    paused = standing.policy.status == "paused"
    return EndpointExplained(
        state="disabled" if paused else str(state_of(standing, name)),
        status=status_of(standing, name, now),
        since_s=now - breaker.since if breaker.since else None,
        next_probe_in_s=_next_probe_s(breaker, now),
        hold=held_of(standing, name, now),
        samples=n[fields.OUTCOMES],
        errors=n[fields.ERRORS],
        slow=n[fields.SLOW],
        timed=n[fields.VERDICTS],
        ramp_percent=breaker.percent if breaker.state is State.RAMP else None,
        opened_by=None if breaker.state in _IN_USE else breaker.reason,
        excluded={str(each): count for each, count in breaker.window.excluded.items()},
        rules=_rules(standing, name, now),
    )


def status_of(standing: Standing, name: str, now: float) -> str:
    """In the words of the API (failover.md §1)."""
    breaker = standing.breakers[name]
    if standing.policy.status == "paused":
        return "disabled"
    state = state_of(standing, name)
    if state is not State.CLOSED:
        return STATUSES[state]
    breaker.window.advance(now)
    n, said = breaker.window.totals, breaker.conditions
    errors, slow = said.error_rate_threshold, said.slow_ratio_threshold
    if errors is not None and n[fields.ERRORS] > errors / 2 * n[fields.OUTCOMES]:
        return "degraded"
    timed = said.latency_threshold_ms is not None
    return "degraded" if timed and n[fields.SLOW] > slow / 2 * n[fields.VERDICTS] else "healthy"


def _next_probe_s(breaker: Breaker, now: float) -> float | None:
    if breaker.state is State.OPEN:
        return max(0.0, breaker.until - now)
    return 0.0 if breaker.state is State.PROBING else None


# ---- rules


def _rules(standing: Standing, name: str, now: float) -> tuple[RuleExplained, ...]:
    breaker = standing.breakers[name]
    found = (
        _errors(breaker),
        _slow(breaker),
        _in_a_row(breaker),
        _run("d", "hard_failure", "refused or failed connections", breaker.hard_in_a_row,
             HARD_IN_A_ROW),
        _run("e", "config", "answers that our configuration is to blame for",
             breaker.config_in_a_row, CONFIG_IN_A_ROW),
    )  # fmt: skip
    asleep = _asleep(standing, name, now)
    if asleep is None:
        return found
    why, sentence = asleep
    return tuple(
        RuleExplained(
            each.rule, each.reason, each.value, each.lower_bound, each.threshold, each.have,
            each.need, False, why, sentence,
        )
        for each in found
    )  # fmt: skip


def _asleep(standing: Standing, name: str, now: float) -> tuple[str, str] | None:
    """Why no rule is looked at: (word, sentence)."""
    breaker = standing.breakers[name]
    if standing.policy.status == "paused":
        return PAUSED, "the policy is paused: the primary gets everything"
    if breaker.state is State.FORCED_CLOSED:
        left = _span(breaker.until - now)
        return FORCED_CLOSED, f"an operator holds this endpoint in use for {left} more"
    if breaker.state in (State.CLOSED, State.RAMP):
        return None
    if standing.active is None:
        return NOBODY, "no endpoint of the policy admits: there is nowhere to move to"
    if breaker.state is State.PROBING and now < standing.flap_until:
        left = _span(standing.flap_until - now)
        return FLAP_HOLD, f"too many switches of late: no return for {left} more"
    if breaker.state is State.PROBING:
        return ALREADY_OPEN, _probed(breaker, now)
    left = _span(breaker.until - now)
    if breaker.state is State.FORCED_OPEN:
        return ALREADY_OPEN, f"an operator holds this endpoint out of use for {left} more"
    code = f" ({breaker.reason.code})" if breaker.reason is not None else ""
    return ALREADY_OPEN, f"out of use already{code}; a probe in {left}"


def _probed(breaker: Breaker, now: float) -> str:
    done = breaker.good_probes + breaker.bad_probes + breaker.slow_probes
    said = f"out of use and being probed: {done} of {breaker.recovery.probe_requests} probes done"
    left_s = breaker.opened_at + breaker.recovery.min_fallback_seconds - now
    if done < breaker.recovery.probe_requests or left_s <= 0:
        return said
    return f"{said}; not back for {_span(left_s)} more (min_fallback_seconds)"


def _errors(breaker: Breaker) -> RuleExplained:
    """Rule a."""
    said, n = breaker.conditions, breaker.window.totals
    total, errors = n[fields.OUTCOMES], n[fields.ERRORS]
    limit = said.error_rate_threshold
    if limit is None:
        return _without("a", "error_rate", "error_rate_threshold is not set")
    at = max(total, said.min_samples)
    need = _least(at, said.min_errors, limit, said.confidence, strictly=True)
    bound = lower_bound(errors, total, said.confidence)
    why, sentence = _why_errors(breaker, bound, limit, need)
    few = why in (FEW_SAMPLES, ONLY_EXCLUDED)
    return RuleExplained(
        "a", "error_rate", _ratio(errors, total), bound if total else None, limit,
        total if few else errors, said.min_samples if few else need,
        why is None, why, sentence,
    )  # fmt: skip


def _why_errors(
    breaker: Breaker, bound: float, limit: float, need: int | None
) -> tuple[str | None, str]:
    said, n = breaker.conditions, breaker.window.totals
    total, errors = n[fields.OUTCOMES], n[fields.ERRORS]
    excluded = sum(breaker.window.excluded.values())
    limited = n[fields.LIMITED] + n[fields.HINTED]
    if not total and excluded:
        what = ", ".join(f"{count} {each}" for each, count in breaker.window.excluded.items())
        return ONLY_EXCLUDED, f"only outcomes that say nothing of the endpoint: {what}"
    if limited and not errors:
        only = _many(limited, "answer was 429", "answers were 429")
        return RATE_LIMITS, f"{only}: a rate limit is held, and is no error"
    if total < said.min_samples:
        return FEW_SAMPLES, _too_few(total, said)
    seen = f"{_many(errors, 'error')} in {_many(total, 'sample')} ({_percent(errors / total)})"
    more = f"{need} would trip" if need is not None else "no number would trip"
    if errors <= limit * total:
        return BELOW, f"{seen} are not above {_percent(limit)}; {more}"
    if bound <= limit:
        return BOUND_BELOW, f"{seen} could still be a {_percent(bound)} error rate; {more}"
    if errors < said.min_errors:
        return FEW_ERRORS, f"{seen} are fewer than min_errors {said.min_errors}; {more}"
    return None, f"{seen} are above {_percent(limit)}: trips"


def _slow(breaker: Breaker) -> RuleExplained:
    """Rule b."""
    said, n = breaker.conditions, breaker.window.totals
    total, slow = n[fields.VERDICTS], n[fields.SLOW]
    threshold_ms, limit = said.latency_threshold_ms, said.slow_ratio_threshold
    if threshold_ms is None:
        return _without("b", "latency", "latency_threshold_ms is not set")
    at = max(total, said.min_samples)
    need = _least(at, 1, limit, said.confidence, strictly=False)
    bound = lower_bound(slow, total, said.confidence)
    why, sentence = _why_slow(breaker, bound, limit, need)
    few = why in (FEW_SAMPLES, ONLY_EXCLUDED, BASIS)
    return RuleExplained(
        "b", "latency", _ratio(slow, total), bound if total else None, limit,
        total if few else slow, said.min_samples if few else need,
        why is None, why, sentence,
    )  # fmt: skip


def _why_slow(
    breaker: Breaker, bound: float, limit: float, need: int | None
) -> tuple[str | None, str]:
    said, n = breaker.conditions, breaker.window.totals
    total, slow = n[fields.VERDICTS], n[fields.SLOW]
    if not total and not n[fields.OUTCOMES] and breaker.window.excluded:
        what = ", ".join(f"{count} {each}" for each, count in breaker.window.excluded.items())
        return ONLY_EXCLUDED, f"only outcomes that say nothing of the endpoint: {what}"
    good = n[fields.OUTCOMES] - n[fields.ERRORS] - n[fields.LIMITED] - n[fields.HINTED]
    if not total and good > 0 and said.latency_basis == "ttft":
        seen = _many(n[fields.OUTCOMES], "sample")
        return BASIS, f"{seen}, none of them timed: latency_basis ttft leaves whole answers out"
    if total < said.min_samples:
        return FEW_SAMPLES, _too_few(total, said, "timed answer")
    timed = _many(total, "answer")
    seen = f"{slow} of {timed} ({_percent(slow / total)}) over {said.latency_threshold_ms} ms"
    more = f"{need} would trip" if need is not None else "no number would trip"
    if slow < limit * total:
        return BELOW, f"{seen} are below {_percent(limit)}; {more}"
    if bound < limit:
        return BOUND_BELOW, f"{seen} could still be {_percent(bound)}; {more}"
    return None, f"{seen} are {_percent(limit)} or more: trips"


def _in_a_row(breaker: Breaker) -> RuleExplained:
    """Rule c: of its two halves the one that is nearer to its end."""
    said = breaker.conditions
    halves: list[RuleExplained] = []
    if said.consecutive_failures:
        halves.append(_run("c", "consecutive_failures", "errors", breaker.errors_in_a_row,
                           said.consecutive_failures))  # fmt: skip
    if said.consecutive_slow and said.latency_threshold_ms is not None:
        halves.append(_run("c", "latency", "slow answers", breaker.slow_in_a_row,
                           said.consecutive_slow))  # fmt: skip
    if not halves:
        off = "consecutive_failures and consecutive_slow are off"
        return _without("c", "consecutive_failures", off)
    return max(halves, key=lambda half: half.have / (half.need or 1))


def _run(rule: str, reason: str, what: str, have: int, need: int) -> RuleExplained:
    trips = have >= need
    said = f"{have} {what} in a row: " + ("trips" if trips else f"{need} would trip")
    why = None if trips else BELOW
    return RuleExplained(rule, reason, have, None, need, have, need, trips, why, said)


def _without(rule: str, reason: str, what: str) -> RuleExplained:
    return RuleExplained(rule, reason, None, None, None, 0, None, False, NO_CONDITION,
                         f"{what}: this rule never trips")  # fmt: skip


def _least(
    total: int, at_least: int, limit: float, confidence: float, *, strictly: bool
) -> int | None:
    """How many of `total` would trip; None: not even all of them."""
    low, high = at_least, total + 1
    while low < high:
        middle = (low + high) // 2
        bound = lower_bound(middle, total, confidence)
        if bound > limit or (bound == limit and not strictly):
            high = middle
        else:
            low = middle + 1
    return low if low <= total else None


# ---- words


def _ratio(count: int, total: int) -> float | None:
    return round(count / total, 6) if total else None


def _many(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %" if share >= 0.01 or not share else f"{share * 100:.2g} %"


def _span(seconds: float) -> str:
    return f"{max(0, ceil(seconds))} s"


def _too_few(have: int, said: Conditions, what: str = "sample") -> str:
    seen = f"{_many(have, what)} in the last {said.window_seconds} s"
    return f"{seen}, {said.min_samples} are needed to judge"
