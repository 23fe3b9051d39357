"""Who of the workers may probe, and what comes of it for all of them (§7.1, §11)."""

import sys

import pytest

from proxy.model.tenancy import SnapshotDoc
from proxy.routing.effects import Recovered
from proxy.routing.states import State
from tests.kit.net import BAD, DEAD, OK, RULES, Net, of_route


def recovered(net: Net, on: int = 0) -> None:
    """The endpoint is well again; all requests come to that worker."""
    for _ in range(3):
        net.wait(0.1)
        net.workers[on].ask(OK)
    net.wait(0.1)


def test_a_probe_is_the_right_of_one_worker() -> None:
    net = Net()
    net.workers[1].ask(BAD, 5)
    net.wait(5.3)
    assert net.states() == {State.PROBING}
    first = net.workers[1].fly()
    assert first is not None
    assert [net.workers[slot].fly() for slot in (0, 1)] == [None, None]
    first.ended(net.workers[1].clock.monotonic(), OK)
    net.settle()
    assert net.standing.breakers["openai"].good_probes == 1
    assert sum(net.workers[slot].fly() is not None for slot in (0, 1)) == 1


def holders(net: Net) -> list[int]:
    """Who has a permit."""
    return [
        slot for slot, worker in net.workers.items()
        if worker.standing().breakers["openai"].may_probe(worker.clock.monotonic())
    ]  # fmt: skip


def test_a_permit_that_is_not_used_is_everybodys() -> None:
    net = Net()
    net.workers[0].ask(BAD, 5)
    net.wait(5.3)
    assert holders(net) == [0]
    net.wait(1.5)
    assert holders(net) == [0]
    for _ in range(100):
        net.wait(0.7)
        assert holders(net) == [0, 1]


def test_of_workers_that_all_have_a_permit_one_probes_at_a_time() -> None:
    net = Net(3)
    net.workers[0].ask(BAD, 5)
    net.wait(8)
    assert holders(net) == [0, 1, 2]
    first = net.workers[0].fly()
    assert first is not None
    assert net.workers[1].fly() is None  # though it has not heard of it yet
    first.ended(net.workers[0].clock.monotonic(), OK)
    late = net.workers[2].fly()  # nor has this one, and it is over
    assert late is not None
    net.settle()
    assert net.standing.breakers["openai"].good_probes == 1
    assert [worker.fly() for worker in net.workers.values()] == [None, None, None]
    late.ended(net.workers[2].clock.monotonic(), OK)
    net.wait(3)
    assert net.standing.breakers["openai"].good_probes == 1  # it was nobody's
    assert [worker.fly() is None for worker in net.workers.values()].count(False) == 1


@pytest.mark.parametrize("used", [True, False])
def test_a_worker_that_dies_gives_back_its_permit(used: bool) -> None:
    net = Net()
    net.workers[0].ask(BAD, 5)
    net.wait(5.3)
    assert net.workers[0].standing().breakers["openai"].may_probe(net.workers[0].clock.monotonic())
    if used:
        assert net.workers[0].fly() is not None
        net.settle()
    net.kill(0)
    assert net.workers[1].fly() is not None


def test_a_bad_probe_opens_the_endpoint_everywhere() -> None:
    net = Net()
    net.workers[0].ask(BAD, 5)
    net.wait(5.3)
    assert net.workers[0].ask(DEAD) == 1
    net.settle()
    assert net.states() == {State.OPEN}
    assert net.changes() == ["open", "probing", "open"]
    assert {w.standing().breakers["openai"].version for w in net.workers.values()} == {3}


def test_traffic_comes_back_and_that_is_told_once() -> None:
    net = Net()
    net.workers[0].ask(BAD, 5)
    net.wait(10.5)
    net.workers[0].ask(OK, 4, "spare")
    recovered(net)
    assert net.states() == {State.CLOSED}
    (told,) = net.told_of(Recovered)
    assert isinstance(told, Recovered)
    assert (told.before, told.after, told.requests) == ("spare", "openai", 7)
    assert {w.standing().active for w in net.workers.values()} == {"openai"}


def test_every_worker_takes_each_step_of_a_ramp() -> None:
    net = Net()
    net.workers[0].ask(BAD, 5)
    net.wait(10.5)
    net.workers[0].ask(OK, 100, "spare")
    recovered(net)
    assert net.states() == {State.RAMP}
    for percent in (25, 50):
        assert {w.standing().breakers["openai"].percent for w in net.workers.values()} == {percent}
        for _ in range(11):
            net.workers[1].ask(OK, 10, "spare")
            net.wait(1)
    for _ in range(11):
        net.workers[1].ask(OK, 10, "spare")
        net.wait(1)
    assert net.states() == {State.CLOSED}


def test_lending_costs_no_more_for_each_policy_when_many_lend() -> None:
    def calls(many: int) -> int:
        policies = [of_route(f"r{at}") for at in range(many)]
        rules = RULES.model_copy(update={"failover_policies": policies})
        net = Net(1)
        net.node.keep(SnapshotDoc(version=2, sha256="", workspaces=[rules]))
        seen = 0

        def count(frame: object, event: str, arg: object) -> None:
            nonlocal seen
            seen += event == "call"

        for standing in net.node.all():
            for _ in range(3):
                standing.observe("openai", net.clock.monotonic(), DEAD, began=0.0)
        net.clock.advance(6)
        sys.setprofile(count)
        try:
            net.node.tick()
        finally:
            sys.setprofile(None)
        assert sum(message["t"] == "grant" for message in net.waiting[0]) == many
        return seen

    assert calls(200) < 2.5 * calls(100)


def test_streams_that_last_for_minutes_bring_an_endpoint_back() -> None:
    """Each is judged when its limit (4 s) is over and its content flows."""
    net = Net()
    one, two = net.workers.values()
    one.ask(BAD, 5)
    net.wait(5.5)
    streams = []
    for _ in range(3):
        probe = one.fly() or two.fly()
        assert probe is not None
        net.wait(1)
        probe.answered(net.workers[0].clock.monotonic() if probe in one.flights.under_way
                       else two.clock.monotonic())  # fmt: skip
        streams.append(probe)
        assert (one.fly() or two.fly()) is None  # one at a time
        net.wait(3.5)
    assert net.states() == {State.CLOSED}
    assert len(one.flights.under_way) + len(two.flights.under_way) == len(streams)


def test_one_whose_content_came_late_does_not() -> None:
    net = Net()
    one = net.workers[0]
    one.ask(BAD, 5)
    net.wait(5.5)
    probe = one.fly()
    assert probe is not None
    net.wait(2.5)  # slow
    probe.answered(one.clock.monotonic())
    net.wait(2)
    assert (net.standing.breakers["openai"].good_probes, net.states()) == (0, {State.OPEN})


def test_a_probe_that_outlasts_its_lease_keeps_nobody_from_the_next() -> None:
    net = Net()
    one, two = net.workers.values()
    one.ask(BAD, 5)
    net.settle()
    net.wait(5.5)
    long = one.fly()
    net.settle()
    assert long is not None
    long.answered(one.clock.monotonic())  # and goes on for minutes
    net.wait(4)
    assert two.fly() is None  # one at a time
    net.wait(8)
    assert two.ask(OK) == 1


def test_a_probe_from_before_the_last_trip_keeps_nobody_from_the_next() -> None:
    net = Net()
    one, two = net.workers.values()
    one.ask(BAD, 5)
    net.settle()
    net.wait(5.5)
    assert one.fly() is not None  # nothing comes of it
    net.node.force("default", "chat-fo", "spare", 1.0, "")
    net.settle()
    net.node.release("default", "chat-fo", "")
    net.settle()
    two.ask(BAD, 5)
    net.settle()
    net.wait(13.5)  # the second step of the ladder, and what the other one does not use
    assert two.ask(OK) == 1
