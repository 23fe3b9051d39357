"""What time does to policies: only those to which something happens cost anything."""

import pytest

from proxy.gateway.flights import LEAST_TICKS, Flight, Flights
from proxy.model.failover import Outcome
from proxy.routing.standing import Standing
from proxy.routing.states import Permit, State
from tests.kit.builders import OPENAI, SPARE, World, policy, world


def standing_of(w: World) -> Standing:
    found = w.gateway.rules().workspaces["default"].routes["chat"].standing
    assert found is not None
    return found


def watched() -> tuple[World, Flights, Standing]:
    w = world([OPENAI, SPARE], failover=policy("openai", "spare"))
    return w, w.gateway.flights, standing_of(w)


def wait(w: World, seconds: float) -> None:
    for _ in range(round(seconds * 10)):
        w.clock.advance(0.1)
        w.gateway.flights.sweep()


def test_a_policy_that_nobody_uses_falls_asleep_and_wakes_with_a_request() -> None:
    w, flights, standing = watched()
    flights.asked(standing, w.clock.monotonic())
    standing.observe(
        "openai", w.clock.monotonic(), Outcome.SUCCESS, began=w.clock.monotonic(), quick=True
    )
    wait(w, 5)
    assert len(flights.awake) == 1
    wait(w, 70)
    assert len(flights.awake) == 0
    flights.asked(standing, w.clock.monotonic())
    assert len(flights.awake) == 1


def test_one_that_is_open_stays_awake_until_it_is_well() -> None:
    w, flights, standing = watched()
    flights.asked(standing, w.clock.monotonic())
    for _ in range(3):
        effects = standing.observe(
            "openai", w.clock.monotonic(), Outcome.CONNECT, began=w.clock.monotonic()
        )
        flights.told(standing, effects)
    wait(w, 100)
    assert standing.breakers["openai"].state is State.PROBING
    assert len(flights.awake) == 1


def test_what_is_told_of_a_sleeper_wakes_it() -> None:
    w, flights, standing = watched()
    assert len(flights.awake) == 0
    flights.told(standing, standing.force("spare", w.clock.monotonic(), ttl_s=5))
    assert len(flights.awake) == 1
    wait(w, 8)
    assert standing.breakers["spare"].state is State.CLOSED


@pytest.mark.parametrize("count", [1, 5 * LEAST_TICKS])
def test_each_policy_is_looked_at_within_a_second_a_part_of_them_at_a_time(count: int) -> None:
    w, flights, _ = watched()
    many = [Standing(policy("openai", "spare"), lambda: 0.5) for _ in range(count)]
    for each in many:
        each.force("openai", w.clock.monotonic(), ttl_s=0.01)
        flights.asked(each, w.clock.monotonic())

    def looked_at() -> int:
        return sum(each.breakers["openai"].state is State.CLOSED for each in many)

    w.clock.advance(0.1)
    flights.sweep()
    assert looked_at() == min(count, LEAST_TICKS)
    wait(w, 0.9)
    assert looked_at() == count


def test_an_edit_may_take_an_endpoint_out_from_under_attempts() -> None:
    w, flights, standing = watched()

    permit = Permit(deadline=1e9)
    sweeps, answers, probes = begun(w), begun(w), begun(w, permit=permit)
    ends = [begun(w, stream=stream) for stream in (True, False)]
    edited = policy("spare", "third")
    flights.told(standing, standing.edit(edited, w.clock.monotonic()))
    answers.answered(w.clock.monotonic())
    for flight, outcome in zip(ends, (Outcome.UPSTREAM_5XX, Outcome.SUCCESS), strict=True):
        flight.ended(w.clock.monotonic(), outcome)
    wait(w, 5)
    for flight in (sweeps, answers, probes):
        flight.ended(w.clock.monotonic(), Outcome.RATE_LIMITED)
    assert not flights.under_way
    assert list(standing.breakers) == ["spare", "third"]
    assert standing.state == "normal"


# fmt: off
EVERY_AGE = pytest.mark.parametrize(("age_s", "outcome", "counts"), [
    # samples, errors, verdicts of latency, slow ones
    (0.5, Outcome.CANCELLED,    [0, 0, 0, 0]),
    (2.5, Outcome.CANCELLED,    [0, 0, 1, 1]),
    (0.5, Outcome.CALLER,       [0, 0, 0, 0]),
    (0.5, Outcome.UPSTREAM_5XX, [1, 1, 0, 0]),
    (2.5, Outcome.UPSTREAM_5XX, [1, 1, 1, 1]),
    (0.5, Outcome.SUCCESS,      [1, 0, 1, 0]),
    (2.5, Outcome.SUCCESS,      [1, 0, 1, 1]),
    (2.5, Outcome.BLOCKED,      [1, 0, 1, 1]),
])
# fmt: on


def test_t_fo_10_a_hung_attempt_is_slow_once_its_age_crosses_the_threshold_and_only_then() -> None:
    w, _, standing = watched()
    flight = begun(w)
    seen: list[list[int]] = []
    for _ in range(30):
        wait(w, 0.1)
        seen.append(counted(standing))
    since = next(number for number, counts in enumerate(seen, 1) if counts != [0, 0, 0, 0])
    assert 20 <= since <= 22, "at 2.0 to 2.2 s"
    assert seen[-1] == [0, 0, 1, 1]
    flight.ended(w.clock.monotonic(), Outcome.NO_ANSWER)
    assert counted(standing) == [1, 1, 1, 1]


@EVERY_AGE
@pytest.mark.parametrize("swept", [True, False], ids=["swept", "between two sweeps"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_t_fo_12_what_an_attempt_of_that_age_leaves_behind(
    age_s: float, outcome: Outcome, counts: list[int], swept: bool, stream: bool
) -> None:
    w, _, standing = watched()
    flight = begun(w, stream=stream)
    if swept:
        wait(w, age_s)
    else:
        w.clock.advance(age_s)
    flight.ended(w.clock.monotonic(), outcome)
    assert counted(standing) == counts
    wait(w, 3)
    assert counted(standing) == counts


def begun(w: World, *, stream: bool = True, permit: Permit | None = None) -> Flight:
    return w.gateway.flights.start(
        standing_of(w), "openai", "", "m", w.clock.monotonic(), stream=stream, permit=permit
    )


def counted(standing: Standing) -> list[int]:
    """Samples, errors, verdicts of latency, slow ones."""
    return standing.breakers["openai"].window.totals[:4]
