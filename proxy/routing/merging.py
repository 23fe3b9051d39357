"""What processes tell each other of a breaker, and which of two knows better (failover.md §11).

No times of a clock are told, only how long ago and how long still: each process puts them on its
own clock, so that clocks that differ neither extend nor cut a cool-down.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.model.exchange import Json
from proxy.routing import window as fields
from proxy.routing.breaker import Breaker
from proxy.routing.states import Reason, State, Told

SAME_MS: Final = 50  # what is told grows older on its way: that is no later end
_COUNTS: Final = (State.CLOSED, State.RAMP)
_TIMED: Final = (State.OPEN, State.FORCED_OPEN, State.FORCED_CLOSED)
_CARE: Final = {
    State.CLOSED: 0,
    State.RAMP: 1,
    State.PROBING: 2,
    State.OPEN: 3,
    State.FORCED_OPEN: 4,
    State.FORCED_CLOSED: 4,
}


# --- states


def told_of(endpoint_id: str, breaker: Breaker, now: float) -> Told:
    """How it stands, for another process."""
    left_s = breaker.until - now if breaker.state in _TIMED else 0.0
    return Told(
        endpoint_id,
        breaker.state,
        breaker.version,
        breaker.level,
        breaker.step,
        _ms(now - breaker.since),
        max(0, _ms(left_s)),
        _ms(now - breaker.opened_at),
        breaker.reason,
    )


def care_of(state: State) -> int:
    """Of two states of one version the greater one wins."""
    return _CARE[state]


def wins(told: Told, mine: Told) -> bool:
    """Whether what is told is to be believed rather than what is known here.

    A higher version wins.  Of equal versions: the more careful state (OPEN before CLOSED, what an
    operator forced before all), then the later end, then the later step of a ramp."""
    if told.version != mine.version:
        return told.version > mine.version
    if _CARE[told.state] != _CARE[mine.state]:
        return _CARE[told.state] > _CARE[mine.state]
    if told.left_ms > mine.left_ms + SAME_MS:
        return True
    return told.state is State.RAMP and told.step > mine.step


def later(told: Told, seconds: float) -> Told:
    """The same, told so much later."""
    by_ms = _ms(seconds)
    return Told(
        told.endpoint_id,
        told.state,
        told.version,
        told.level,
        told.step,
        told.ago_ms + by_ms,
        max(0, told.left_ms - by_ms),
        told.opened_ago_ms + by_ms,
        told.reason,
    )


def told_doc(told: Told) -> dict[str, Json]:
    """As JSON."""
    why = told.reason
    return {
        "endpoint_id": told.endpoint_id,
        "state": str(told.state),
        "version": told.version,
        "level": told.level,
        "step": told.step,
        "ago_ms": told.ago_ms,
        "left_ms": told.left_ms,
        "opened_ago_ms": told.opened_ago_ms,
        "reason": None if why is None else {
            "code": why.code, "value": why.value, "threshold": why.threshold,
            "samples": why.samples, "left_s": why.left_s, "said": why.said,
        },
    }  # fmt: skip


def told_from(doc: Mapping[str, Json]) -> Told:
    """Raises ValueError: that is none."""
    why = doc.get("reason")
    reason = None
    if isinstance(why, dict):
        value, threshold, left_s = why.get("value"), why.get("threshold"), why.get("left_s")
        if (
            not isinstance(value, int | float)
            or not isinstance(threshold, int | float)
            or not isinstance(left_s, int | float)
        ):
            raise ValueError("a reason has numbers")
        said = str(why.get("said", ""))
        code, samples = str(why.get("code")), whole(why, "samples")
        reason = Reason(code, value, threshold, samples, left_s, said)
    return Told(
        str(doc.get("endpoint_id")),
        State(str(doc.get("state"))),
        whole(doc, "version"),
        whole(doc, "level"),
        whole(doc, "step"),
        whole(doc, "ago_ms"),
        whole(doc, "left_ms"),
        whole(doc, "opened_ago_ms"),
        reason,
    )


# --- counts


@dataclass(slots=True)
class Counts:
    """What one breaker has counted since it last told.

    `runs` are failures in a row: errors, slow ones, hard ones, those of configuration.  Each says
    whether there was nothing else meanwhile, and then how many were added, else how many there are.
    """

    endpoint_id: str
    counts: list[int]
    excluded: dict[str, int]
    runs: list[tuple[bool, int]]
    config_code: str = ""
    latencies: dict[int, int] = field(default_factory=dict)  # by bucket of `Latencies`


def take_counts(endpoint_id: str, breaker: Breaker) -> Counts | None:
    """None: nothing was counted."""
    taken = breaker.window.take()
    if taken is None:
        return None
    counts, excluded = taken
    outcomes = counts[fields.OUTCOMES]
    only = (
        (counts[fields.ERRORS], outcomes),
        (counts[fields.SLOW], counts[fields.VERDICTS]),
        (outcomes, outcomes),
        (outcomes, outcomes),
    )
    runs = []
    now_runs = _runs(breaker)
    for (bad, all_of_them), before, after in zip(only, breaker.runs_told, now_runs, strict=True):
        unbroken = bad == all_of_them and after - before == bad
        runs.append((unbroken, after - before if unbroken else after))
    breaker.runs_told = now_runs
    latencies = breaker.latencies.take()
    return Counts(endpoint_id, counts, excluded, runs, breaker.config_code, latencies)


def put_counts(breaker: Breaker, told: Counts, now: float) -> None:
    """Add them; a breaker that is not closed counts nothing."""
    if breaker.state not in _COUNTS:
        return
    breaker.window.put(now, told.counts, told.excluded)
    breaker.latencies.put(now, told.latencies)
    runs = _runs(breaker)
    for at, (unbroken, run) in enumerate(told.runs):
        runs[at] = runs[at] + run if unbroken else run
    if told.config_code and told.config_code != breaker.config_code:
        runs[3], breaker.config_code = told.runs[3][1], told.config_code
    breaker.errors_in_a_row, breaker.slow_in_a_row = runs[0], runs[1]
    breaker.hard_in_a_row, breaker.config_in_a_row = runs[2], runs[3]


def counts_doc(told: Counts) -> dict[str, Json]:
    """As JSON."""
    return {
        "endpoint_id": told.endpoint_id,
        "counts": list[Json](told.counts),
        "excluded": {str(outcome): count for outcome, count in told.excluded.items()},
        "runs": [[unbroken, run] for unbroken, run in told.runs],
        "config_code": told.config_code,
        "latencies": [[place, count] for place, count in told.latencies.items()],
    }


def counts_from(doc: Mapping[str, Json]) -> Counts:
    """Raises ValueError: those are none."""
    counts, excluded, runs = doc.get("counts"), doc.get("excluded"), doc.get("runs")
    if not isinstance(counts, list) or not isinstance(excluded, dict) or not isinstance(runs, list):
        raise ValueError("counts have counts, excluded and runs")
    if len(counts) != fields.FIELDS or len(runs) != len(_RUNS):
        raise ValueError("counts have another number of fields")
    found = []
    for each in runs:
        if not isinstance(each, list) or len(each) != 2:
            raise ValueError("a run is a pair")
        found.append((bool(each[0]), _whole(each[1])))
    return Counts(
        str(doc.get("endpoint_id")),
        [_whole(each) for each in counts],
        {outcome: _whole(count) for outcome, count in excluded.items()},
        found,
        str(doc.get("config_code", "")),
        _latencies(doc.get("latencies")),
    )


def _latencies(told: Json) -> dict[int, int]:
    """Raises ValueError."""
    found = {}
    for each in told if isinstance(told, list) else ():
        if not isinstance(each, list) or len(each) != 2 or type(each[0]) is not int:
            raise ValueError("a count of latencies is a pair")
        found[each[0]] = _whole(each[1])
    return found


_RUNS: Final = ("errors", "slow", "hard", "config")


def _runs(breaker: Breaker) -> list[int]:
    return [
        breaker.errors_in_a_row,
        breaker.slow_in_a_row,
        breaker.hard_in_a_row,
        breaker.config_in_a_row,
    ]


def whole(doc: Mapping[str, Json], name: str) -> int:
    """Raises ValueError: no whole number of that name."""
    return _whole(doc.get(name))


def _whole(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("not a whole number")
    return value


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
