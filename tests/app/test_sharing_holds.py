"""What one worker was told by 429, and what that is to the others (§7.2, §11)."""

import pytest

from proxy.model.failover import Outcome
from proxy.routing.holds import Key
from tests.app.onenode import BAD, OK, Net


def test_what_one_worker_was_told_by_429_holds_the_others_too() -> None:
    net = Net()
    key = Key("openai", "", "m")
    net.workers[0].ask(Outcome.RATE_LIMITED, hint_s=20.0)
    net.settle()
    other = net.workers[1]
    assert other.flights.holds.left_s(key, other.clock.monotonic()) == pytest.approx(20, abs=0.1)
    net.start(2)
    new = net.workers[2]
    assert new.flights.holds.left_s(key, new.clock.monotonic()) == pytest.approx(20, abs=0.1)
    net.wait(20.1)
    net.workers[0].ask(OK)
    net.settle()
    assert not any(worker.flights.holds for worker in net.workers.values())


def test_a_callers_own_key_is_nobody_elses_matter() -> None:
    net = Net()
    worker = net.workers[0]
    standing = worker.standing()
    flight = worker.flights.start(
        standing, "openai", "x", "m", worker.clock.monotonic(), stream=True, permit=None
    )
    flight.ended(worker.clock.monotonic(), Outcome.RATE_LIMITED, hint_s=20.0)
    net.settle()
    assert not net.workers[1].flights.holds


def test_a_failure_after_a_hold_does_not_end_it_elsewhere() -> None:
    net = Net()
    key = Key("openai", "", "m")
    net.workers[0].ask(Outcome.RATE_LIMITED)
    net.wait(2.5)
    net.workers[0].ask(BAD)
    net.settle()
    assert all(worker.flights.holds.of(key) for worker in net.workers.values())
    assert "openai" in net.standing.limited
    net.wait(0.1)
    net.workers[1].ask(OK)
    net.settle()
    assert not any(worker.flights.holds for worker in net.workers.values())
    assert net.standing.limited == {}
