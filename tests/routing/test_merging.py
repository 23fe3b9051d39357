"""What processes tell each other of breakers, and who is believed (failover.md §11)."""

import pytest

from proxy.model.failover import Conditions, Outcome, Recovery
from proxy.routing import window as fields
from proxy.routing.breaker import Breaker
from proxy.routing.effects import Recovered, StateChanged, Switched
from proxy.routing.merging import (
    Told,
    counts_doc,
    counts_from,
    later,
    put_counts,
    take_counts,
    told_doc,
    told_from,
    told_of,
    wins,
)
from proxy.routing.standing import Standing
from proxy.routing.states import Reason, State
from tests.routing.breakers import BOTH
from tests.routing.test_standing import policy

DEAD, BAD, OK = Outcome.CONNECT, Outcome.UPSTREAM_5XX, Outcome.SUCCESS


def breaker() -> Breaker:
    return Breaker(Conditions(**BOTH), Recovery(), lambda: 0.5)


def told(said: str) -> Told:
    """`open v2 4s`, `ramp v3 step 1`"""
    state, version, *more = said.split()
    left_ms = int(more[0][:-1]) * 1000 if more and more[0].endswith("s") else 0
    step = int(more[1]) if more and more[0] == "step" else 0
    return Told("a", State(state), int(version[1:]), left_ms=left_ms, step=step)


# fmt: off
MERGES = [  # T-FO-60
    # known here          told                  believed
    ("closed v0",         "closed v0",          False),
    ("closed v0",         "open v1 5s",         True),
    ("open v1 5s",        "closed v0",          False),
    ("open v1 5s",        "closed v1",          False),
    ("closed v1",         "open v1 5s",         True),
    ("open v3 5s",        "closed v4",          True),
    ("closed v4",         "open v3 20s",        False),
    ("open v2 4s",        "open v2 9s",         True),
    ("open v2 9s",        "open v2 4s",         False),
    ("open v2 4s",        "open v2 4s",         False),
    ("open v2 4s",        "probing v3",         True),
    ("probing v3",        "open v2 20s",        False),
    ("probing v3",        "open v3 20s",        True),
    ("ramp v4 step 0",    "ramp v4 step 1",     True),
    ("ramp v4 step 1",    "ramp v4 step 0",     False),
    ("ramp v4 step 1",    "open v4 5s",         True),
    ("closed v5",         "ramp v5 step 0",     True),
    ("open v5 5s",        "forced_closed v5 9s", True),
    ("forced_open v5 9s", "open v5 20s",        False),
    ("forced_open v5 9s", "closed v6",          True),
]
# fmt: on


@pytest.mark.parametrize(("mine", "other", "believed"), MERGES)
def test_who_is_believed(mine: str, other: str, believed: bool) -> None:
    assert wins(told(other), told(mine)) is believed


@pytest.mark.parametrize(("mine", "other", "believed"), MERGES)
def test_two_that_tell_each_other_agree(mine: str, other: str, believed: bool) -> None:
    assert not (wins(told(other), told(mine)) and wins(told(mine), told(other)))


@pytest.mark.parametrize("skew_s", [-300.0, 0.0, 300.0])
def test_clocks_that_differ_neither_extend_nor_cut(skew_s: float) -> None:  # T-FO-61
    here, there, now = breaker(), breaker(), 10_000.0
    here.open(now, Reason("error_rate", 0.5, 0.1, 20))
    said = told_from(told_doc(told_of("a", here, now + 1)))
    there.adopt(now + skew_s + 1, said)
    assert there.until - (now + skew_s) == pytest.approx(here.until - now, abs=0.002)
    assert there.since - skew_s == pytest.approx(now, abs=0.002)
    assert there.tick(now + skew_s + 4.9) is None
    assert there.tick(now + skew_s + 5.1) is not None
    assert here.tick(now + 4.9) is None
    assert here.tick(now + 5.1) is not None


def test_what_waited_before_it_was_told_has_less_time_left() -> None:
    here = breaker()
    here.open(100.0, Reason("manual"))
    said = later(told_of("a", here, 100.0), 2)
    assert (said.ago_ms, said.left_ms) == (2000, 3000)
    assert later(said, 9).left_ms == 0


def test_a_state_is_the_same_behind_the_wire() -> None:
    here, there = breaker(), breaker()
    here.open(100.0, Reason("latency", 0.8, 0.5, 20, said="x"))
    change = there.adopt(100.0, told_from(told_doc(told_of("a", here, 100.0))))
    assert change is not None
    assert (there.state, there.version, there.level, there.reason) == (
        State.OPEN, 1, 1, Reason("latency", 0.8, 0.5, 20, said="x"),
    )  # fmt: skip
    assert told_of("a", there, 101.0) == told_of("a", here, 101.0)


@pytest.mark.parametrize(
    "change",
    [{"state": "unheard"}, {"version": "1"}, {"left_ms": None}, {"reason": {"value": "x"}},
     {"ago_ms": True}],
)  # fmt: skip
def test_what_is_no_state_is_refused(change: dict[str, object]) -> None:
    doc = {**told_doc(told_of("a", breaker(), 1.0)), **change}
    with pytest.raises(ValueError):  # noqa: PT011 - any of them
        told_from(doc)  # type: ignore[arg-type]


# --- counts


def saw(one: Breaker, outcomes: str, now: float = 100.0) -> None:
    """`+` good, `-` error, `!` hard, `s` slow"""
    for letter in outcomes:
        if letter == "s":
            one.mark_slow(now)
        else:
            outcome = {"+": OK, "-": BAD, "!": DEAD}[letter]
            one.observe(now, outcome, began=now, quick=True)


# fmt: off
RUNS = [
    # one worker tells     then the other        node: errors, run of errors, run of hard ones
    (["--"],               ["--"],               4, 4, 0),
    (["--", "-"],          ["-"],                4, 4, 0),
    (["--"],               ["+-"],               3, 1, 0),
    (["--"],               ["-", "+"],           3, 0, 0),
    (["--+"],              ["-"],                3, 1, 0),
    (["!"],                ["!"],                2, 2, 2),
    (["!"],                ["-"],                2, 2, 0),
    (["+-", "+-"],         [],                   2, 1, 0),
]
# fmt: on


@pytest.mark.parametrize(("one", "other", "errors", "run", "hard"), RUNS)
def test_counts_add_up(one: list[str], other: list[str], errors: int, run: int, hard: int) -> None:
    node = breaker()
    for reports in (one, other):
        worker = breaker()
        for report in reports:
            saw(worker, report)
            counts = take_counts("a", worker)
            assert counts is not None
            put_counts(node, counts_from(counts_doc(counts)), 100.0)
    n = node.window.totals
    assert n[fields.OUTCOMES] == sum(map(len, [*one, *other]))
    assert (n[fields.ERRORS], node.errors_in_a_row, node.hard_in_a_row) == (errors, run, hard)


def test_slow_ones_in_a_row_of_two_workers() -> None:
    node = breaker()
    for slow in (6, 4):
        worker = breaker()
        saw(worker, "s" * slow)
        counts = take_counts("a", worker)
        assert counts is not None
        put_counts(node, counts, 100.0)
    assert node.trips(100.0) == Reason("latency", 1.0, 0.5, 10)


def test_nothing_new_is_not_told_again() -> None:
    worker = breaker()
    saw(worker, "+")
    worker.observe(100.0, Outcome.CALLER, began=100.0)
    counts = take_counts("a", worker)
    assert counts is not None
    assert counts.excluded == {"caller": 1}
    assert take_counts("a", worker) is None


def test_a_breaker_that_is_open_counts_nothing() -> None:
    worker, node = breaker(), breaker()
    saw(worker, "--")
    counts = take_counts("a", worker)
    assert counts is not None
    node.open(100.0, Reason("manual"))
    put_counts(node, counts, 100.0)
    assert not any(node.window.totals)


@pytest.mark.parametrize(
    "change",
    [{"counts": [1]}, {"counts": 1}, {"runs": []}, {"runs": [1, 2, 3, 4]}, {"excluded": []},
     {"counts": ["1"] * 7}],
)  # fmt: skip
def test_what_are_no_counts_is_refused(change: dict[str, object]) -> None:
    worker = breaker()
    saw(worker, "-")
    counts = take_counts("a", worker)
    assert counts is not None
    with pytest.raises(ValueError):  # noqa: PT011 - any of them
        counts_from({**counts_doc(counts), **change})  # type: ignore[arg-type]


# --- standings


def test_a_switch_that_another_process_made_is_one_here() -> None:
    here, there = Standing(policy("b"), lambda: 0.5), Standing(policy("b"), lambda: 0.5)
    for _ in range(5):
        there.observe("a", 100.0, BAD, began=100.0)
    said = [told_of(name, one, 100.0) for name, one in there.breakers.items()]
    effects = here.adopt(said, 500.0)
    assert [type(each) for each in effects] == [StateChanged, Switched]
    assert here.active == "b"
    assert here.adopt(said, 500.0) == []


def test_what_follows_does_not_move_by_itself() -> None:
    one = Standing(policy("b"), lambda: 0.5)
    one.breakers["a"].open(100.0, Reason("error_rate"))
    one.follows = True
    assert one.tick(200.0) == []
    assert one.breakers["a"].state is State.OPEN
    one.follows = False
    assert one.tick(200.0) != []
    assert one.breakers["a"].state is State.PROBING


def test_an_operator_forces_every_endpoint_at_once() -> None:
    here, there = Standing(policy("b", "c"), lambda: 0.5), Standing(policy("b", "c"), lambda: 0.5)
    there.force("b", 100.0, ttl_s=60, said="so")
    effects = here.adopt([told_of(n, one, 100.0) for n, one in there.breakers.items()], 100.0)
    assert [type(each) for each in effects] == [StateChanged] * 3 + [Switched]
    there.release(110.0)
    back = here.adopt([told_of(n, one, 110.0) for n, one in there.breakers.items()], 110.0)
    assert isinstance(back[-1], Recovered)
    assert here.active == "a"


def test_what_is_down_for_one_policy_is_down_for_the_others() -> None:
    one, until = Standing(policy("b"), lambda: 0.5), 107.0
    effects = one.is_down("a", 100.0, until)
    assert [type(each) for each in effects] == [StateChanged, Switched]
    reason = one.breakers["a"].reason
    assert reason is not None
    assert (reason.code, one.breakers["a"].until) == ("hard_failure", 107.0)
    assert one.is_down("a", 101.0, until) == []
    assert one.is_down("nobody", 101.0, until) == []


def test_probes_elsewhere_count() -> None:
    one = Standing(policy("b"), lambda: 0.5)
    one.breakers["a"].open(100.0, Reason("error_rate"))
    one.tick(120.0)
    for _ in range(3):
        assert one.probed("a", 121.0, "good") == []
    one.asked_elsewhere(121.0, 50, 50)
    assert one.on_fallback == 50
    one.tick(121.0)
    assert one.breakers["a"].state is State.RAMP
    assert one.probed("a", 121.0, "hard") == []  # its time is over


def test_what_answers_took_is_told_too() -> None:
    worker, node = breaker(), breaker()
    for _ in range(3):
        worker.mark_quick(1000.0)
        worker.latencies.add(1000.0, 0.4)
    worker.latencies.wholes += 1
    counts = take_counts("a", worker)
    assert counts is not None
    put_counts(node, counts_from(counts_doc(counts)), 5.0)
    assert node.latencies.median_ms(5.0) == worker.latencies.median_ms(1000.0)
    assert node.latencies.wholes == 1
