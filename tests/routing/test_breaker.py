"""When an endpoint is left, and how it comes back (failover.md §3 to §7)."""

import pytest

from proxy.model.failover import Outcome
from proxy.routing.breaker import Breaker
from proxy.routing.states import State
from tests.routing.breakers import Bench

DEAD, BAD, OK = Outcome.CONNECT, Outcome.UPSTREAM_5XX, Outcome.SUCCESS
EXCLUDED = [
    Outcome.CALLER, Outcome.REFUSAL, Outcome.CONTEXT_WINDOW, Outcome.BLOCKED,
    Outcome.INTERNAL, Outcome.STALE, Outcome.CANCELLED,
]  # fmt: skip


@pytest.mark.parametrize("outcome", EXCLUDED)
def test_t_fo_11_what_is_excluded_leaves_no_trace(outcome: Outcome) -> None:
    bench = Bench()
    bench.see(BAD, 2)
    before = bench.counts[:5]
    bench.see(outcome, 1000)
    assert bench.counts[:5] == before
    assert bench.breaker.errors_in_a_row == 2
    assert bench.breaker.window.excluded == {outcome: 1000}
    assert bench.told == []


# --- trips

SCRIPTS = [
    # what comes                                             the code of the trip, "" if none
    ([("good", 5), (BAD, 4)],                                ""),
    ([(BAD, 5)],                                             "consecutive_failures"),
    ([(BAD, 2), ("good", 1)] * 2 + [(BAD, 2)],               ""),
    ([("good", 8), (BAD, 2)],                                ""),
    ([("good", 7), (BAD, 3)],                                "error_rate"),
    ([("good", 3), (BAD, 3), ("good", 3)],                   ""),
    ([("good", 16), (BAD, 4)],                               ""),
    ([(BAD, 3), ("good", 12), (BAD, 2)],                     "error_rate"),
    ([(DEAD, 2), ("good", 1), (DEAD, 1)],                    ""),
    ([(DEAD, 3)],                                            "hard_failure"),
    ([(DEAD, 2), (BAD, 1), (DEAD, 1)],                       ""),
    ([(Outcome.AUTH, 3)],                                    "auth"),
    ([(Outcome.AUTH, 2), (OK, 1), (Outcome.AUTH, 2)],        ""),
    ([(Outcome.MODEL_MISSING, 3)],                           "model_not_found"),
    ([(Outcome.QUOTA, 3)],                                   "quota"),
    ([(Outcome.MISCONFIGURED, 3)],                           "misconfigured"),
    ([("slow", 9)],                                          ""),
    ([("slow", 10)],                                         "latency"),
    ([("slow", 9), ("good", 1), ("slow", 5)],                "latency"),
    ([("good", 3), ("slow", 7)],                             ""),
    ([("good", 2), ("slow", 8)],                             "latency"),
    ([(Outcome.RATE_LIMITED, 9)],                            ""),
    ([(Outcome.RATE_LIMITED, 10)],                           "rate_limited"),
    ([("good", 6), (Outcome.RATE_LIMITED, 5)],               ""),
]  # fmt: skip


@pytest.mark.parametrize(("script", "code"), SCRIPTS)
def test_what_trips(script: list[tuple[str, int]], code: str) -> None:
    bench = Bench()
    for what, times in script:
        if what == "good":
            bench.good(times)
        elif what == "slow":
            bench.slow(times)
        else:
            bench.see(Outcome(what), times)
    assert [told[2] for told in bench.told] == ([code] if code else [])
    assert bench.state is (State.OPEN if code else State.CLOSED)


def test_t_fo_15_nine_errors_trip_at_the_fifth() -> None:
    bench = Bench()
    bench.see(BAD, 9, every_s=1)
    assert bench.told == [(1005.0, "open", "consecutive_failures")]


def test_t_fo_16_ten_slow_marks_with_no_good_one_between() -> None:
    bench = Bench(latency_threshold_ms=2000, min_samples=100)
    bench.slow(9)
    bench.good()
    bench.slow(9)
    assert bench.state is State.CLOSED
    bench.slow()
    assert bench.told[-1][2] == "latency"


def test_t_fo_18_without_confidence_the_ratio_decides() -> None:
    bench = Bench(error_rate_threshold=0.1, confidence=0, consecutive_failures=0)
    for _ in range(10):
        bench.good(9)
        bench.see(BAD)
    assert bench.state is State.CLOSED
    bench.see(BAD)
    assert bench.breaker.reason is not None
    assert (bench.breaker.reason.value, bench.breaker.reason.samples) == (11 / 101, 101)


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"latency_threshold_ms": 2000, "consecutive_failures": 0}, "errors"),
        ({"error_rate_threshold": 0.1}, "slow"),
        ({"latency_threshold_ms": 2000, "consecutive_slow": 0, "min_samples": 50}, "slow"),
    ],
)
def test_a_rule_that_is_off_does_not_trip(said: dict[str, float], what: str) -> None:
    bench = Bench(**said)
    for _ in range(45):
        if what == "slow":
            bench.slow(1)
        else:
            bench.see(BAD)
    assert bench.state is State.CLOSED


def test_a_slow_attempt_counts_when_it_crosses_the_threshold_and_once() -> None:
    bench = Bench()
    bench.breaker.mark_slow(bench.now)
    assert bench.counts[2:4] == [1, 1]
    bench.see(OK)
    assert bench.counts[:4] == [1, 0, 1, 1]
    bench.breaker.mark_slow(bench.now)
    bench.see(Outcome.CANCELLED)
    assert bench.counts[:4] == [1, 0, 2, 2]


def test_429_with_a_hint_is_no_reason_to_leave() -> None:
    bench = Bench()
    bench.see(Outcome.RATE_LIMITED, 50, hinted=True)
    assert (bench.state, bench.counts[1]) == (State.CLOSED, 0)


# --- back


def tripped(**said: object) -> Bench:
    bench = Bench(**said)
    bench.see(BAD, 5)
    assert bench.state is State.OPEN
    bench.told.clear()
    return bench


def test_t_fo_20_the_ladder_of_cool_downs() -> None:
    bench = tripped()
    waits = []
    for _ in range(4):
        began = bench.now
        while bench.state is State.OPEN:
            bench.wait(0.1)
        waits.append(round(bench.now - began, 1))
        bench.probe(DEAD)
    assert waits == pytest.approx([5, 10, 20, 20], abs=0.15)


@pytest.mark.parametrize(("chance", "until"), [(0.0, 4.5), (1.0, 5.5)])
def test_t_fo_20_cool_downs_are_spread(chance: float, until: float) -> None:
    bench = tripped(chance=chance)
    assert bench.breaker.until - bench.now == pytest.approx(until)


def test_t_fo_20_a_level_less_for_each_minute_of_health() -> None:
    bench = tripped()
    for _ in range(3):
        bench.wait(25)
        bench.probe(DEAD)
    bench.wait(25)
    for _ in range(3):
        bench.probe(OK)
    bench.wait(30)
    assert (bench.state, bench.breaker.level) == (State.CLOSED, 4)
    bench.wait(60)
    assert bench.breaker.level == 3
    bench.wait(600)
    assert bench.breaker.level == 0


def test_three_good_probes_then_a_ramp_then_all() -> None:
    bench = tripped()
    bench.wait(5)
    assert bench.told.pop()[1] == "probing"
    for _ in range(3):
        assert bench.probe(OK) is not None
        bench.wait(1)
    bench.wait(2.2)
    assert bench.told.pop()[1] == "ramp", "ten seconds on the fallback at least"
    assert bench.breaker.percent == 25
    bench.wait(10)
    assert bench.breaker.percent == 50
    bench.wait(10)
    assert bench.told == [(pytest.approx(1030.1, abs=0.3), "closed", "")]


def test_little_traffic_has_no_ramp() -> None:
    bench = tripped(recovery={"min_fallback_seconds": 0})
    bench.wait(5)
    for _ in range(3):
        bench.probe(OK)
    bench.wait(0.1, rps=0.5)
    assert bench.state is State.CLOSED


PROBES = [
    # outcomes                                    state after
    ([OK, OK],                                    State.PROBING),
    ([OK, BAD],                                   State.OPEN),
    ([DEAD],                                      State.OPEN),
    ([Outcome.AUTH],                              State.OPEN),
    ([OK, "slow"],                                State.OPEN),
    ([Outcome.CALLER, Outcome.BLOCKED, Outcome.CANCELLED, Outcome.RATE_LIMITED, OK], State.PROBING),
]  # fmt: skip


@pytest.mark.parametrize(("outcomes", "after"), PROBES)
def test_what_probes_say(outcomes: list[str], after: State) -> None:
    bench = tripped()
    bench.wait(5)
    for each in outcomes:
        if each == "slow":
            bench.probe(OK, slow=True)
        else:
            bench.probe(Outcome(each))
    assert bench.state is after
    if after is State.OPEN:
        assert bench.told[-1][2] == "probe_failed"


def test_one_probe_at_a_time_and_a_lease_that_ends() -> None:
    bench = tripped()
    assert bench.breaker.permit(bench.now, 10) is None
    bench.wait(5)
    first = bench.breaker.permit(bench.now, 10)
    assert first is not None
    assert bench.breaker.permit(bench.now, 10) is None
    bench.breaker.give_back(first)
    second = bench.breaker.permit(bench.now, 10)
    assert second is not None
    bench.wait(15.1)
    assert bench.breaker.permit(bench.now, 10) is not None
    bench.see(OK, permit=second, quick=True)
    assert bench.breaker.good_probes == 0, "it came after its lease"


def test_a_ramp_starts_with_an_empty_window_and_what_began_before_it_does_not_count() -> None:
    bench = tripped()
    bench.wait(10)
    for _ in range(3):
        bench.probe(OK)
    bench.wait(0.2)
    assert (bench.state, bench.counts) == (State.RAMP, [0] * 7)
    bench.breaker.observe(bench.now, BAD, began=bench.now - 5)
    assert bench.counts == [0] * 7
    bench.see(BAD, 5)
    assert (bench.state, bench.breaker.level) == (State.OPEN, 2)


def test_a_step_of_the_ramp_needs_health() -> None:
    bench = tripped()
    bench.wait(10)
    for _ in range(3):
        bench.probe(OK)
    bench.wait(0.2)
    bench.good(15)
    bench.see(BAD)
    bench.wait(30)
    assert (bench.state, bench.breaker.percent) == (State.RAMP, 25)


def test_a_return_that_must_not_be_waits_in_probing() -> None:
    bench = tripped()
    bench.wait(10)
    for _ in range(3):
        bench.probe(OK)
    assert bench.breaker.tick(bench.now + 1, may_return=False) is None
    assert bench.breaker.tick(bench.now + 2, may_return=True) is not None


def test_an_operator_decides_for_a_while() -> None:
    bench = Bench()
    bench.breaker.force(bench.now, closed=False, ttl_s=60)
    bench.see(OK, 10)
    bench.wait(59)
    assert bench.state is State.FORCED_OPEN
    bench.wait(2)
    assert bench.state is State.CLOSED
    bench.breaker.force(bench.now, closed=True, ttl_s=60)
    bench.see(BAD, 100)
    assert bench.state is State.FORCED_CLOSED
    assert bench.breaker.release(bench.now) is not None
    assert (bench.state, bench.counts) == (State.CLOSED, [0] * 7)


def test_an_edit_keeps_state_and_samples() -> None:
    bench = tripped()
    breaker: Breaker = bench.breaker
    said = breaker.conditions.model_copy(update={"min_samples": 20})
    breaker.edit(said, breaker.recovery)
    assert breaker.state is State.OPEN
    assert breaker.conditions.min_samples == 20
