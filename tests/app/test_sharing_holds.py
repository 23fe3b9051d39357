"""What one worker was told by 429, and what that is to the others (§7.2, §11)."""

import pytest

from proxy.app.sharing import ALONE_S
from proxy.model.failover import Outcome
from proxy.routing.effects import StateChanged, Switched
from proxy.routing.holds import Key
from tests.kit.net import BAD, OK, Net

NO = Outcome.RATE_LIMITED


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


# --- while the control process is away


ALONE = ALONE_S + 0.2
LIMITED, CLOSED = "limited", "closed"
# fmt: off
MET_ALONE = [
    # what each of two workers meets, a step a second   what is told then, and its second
    ({0: "no 20"},                                      [(LIMITED, 0)]),
    ({0: "no 20", 1: "no 20"},                          [(LIMITED, 0)]),
    ({0: "no 1, ok"},                                   [(LIMITED, 0), (CLOSED, 1)]),
    ({0: "no 1, ok", 1: "no 1, ok"},                    [(LIMITED, 0), (CLOSED, 1)]),
    ({0: "no 1"},                                       [(LIMITED, 0)]),
    ({0: "no 1, no 20"},                                [(LIMITED, 0)]),
    ({0: "no 1, ok", 1: "no 1, no 20"},                 [(LIMITED, 0), (CLOSED, 1), (LIMITED, 1)]),
    ({0: "no 1, ok, no 20"},                            [(LIMITED, 0), (CLOSED, 1), (LIMITED, 2)]),
    ({0: "no 20", 1: "wait, no 1, ok"},                 [(LIMITED, 0)]),
]
# fmt: on


def meets(net: Net, said: dict[int, str]) -> None:
    """One step of each worker a second."""
    steps = {slot: words.split(", ") for slot, words in said.items()}
    for second in range(max(2, *(len(each) for each in steps.values()))):
        for slot, each in steps.items():
            step = each[second] if second < len(each) else "wait"
            if step == "ok":
                net.workers[slot].ask(OK)
            elif step != "wait":
                net.workers[slot].ask(NO, hint_s=float(step.removeprefix("no ")))
        net.wait(1.05)


@pytest.mark.parametrize(("said", "told"), MET_ALONE)
def test_what_workers_met_alone_is_told_once_and_with_its_time(
    said: dict[int, str], told: list[tuple[str, int]]
) -> None:
    net = Net()
    net.frozen = True
    net.wait(ALONE)
    began_ms = net.clock.now_ms()
    meets(net, said)
    assert net.told == []
    net.frozen = False
    net.wait(0.5)
    found = [
        (str(each.change.after), round((at_ms - began_ms) / 1050))
        for each, at_ms in net.told
        if isinstance(each, StateChanged)
    ]
    assert found == told
    held = told[-1][0] == LIMITED
    assert {w.standing().active for w in net.workers.values()} == {"spare" if held else "openai"}
    assert ("openai" in net.standing.limited) is held
    switched = net.told_of(Switched)
    assert isinstance(switched[0], Switched)
    assert switched[0].reason.code == "rate_limited"
    net.wait(3)
    assert len(net.changes()) == len(told)


def test_what_is_met_before_anybody_is_missed_is_told_once() -> None:
    net = Net()
    net.frozen = True
    net.workers[0].ask(NO, hint_s=20.0)
    net.wait(ALONE)
    net.frozen = False
    net.wait(0.5)
    assert net.changes() == ["limited"]
    assert net.workers[1].standing().active == "spare"


def test_a_new_control_process_knows_what_is_held_and_does_not_tell_it_again() -> None:
    net = Net()
    net.workers[0].ask(NO, hint_s=5.0)
    net.settle()
    net.restart_control()
    net.wait(0.5)
    assert net.standing.active == "spare"
    assert net.changes() == ["limited"]
    net.wait(5)
    net.workers[1].ask(OK)
    net.settle()
    assert net.changes() == ["limited", "closed"]
    assert {w.standing().active for w in net.workers.values()} == {"openai"}


def test_money_that_ran_out_is_told_as_that() -> None:
    net = Net()
    net.frozen = True
    net.wait(ALONE)
    net.workers[0].ask(Outcome.QUOTA)
    net.frozen = False
    net.wait(0.5)
    (switched,) = net.told_of(Switched)
    assert isinstance(switched, Switched)
    assert switched.reason.code == "quota"
    assert switched.reason.left_s == pytest.approx(300, abs=0.1)


def test_a_worker_that_was_told_no_since_does_not_forget_it() -> None:
    net = Net()
    key = Key("openai", "", "m")
    net.workers[0].ask(NO, hint_s=1.0)
    net.wait(1.2)
    net.workers[0].ask(OK)
    net.workers[1].ask(NO, hint_s=20.0)
    net.settle()
    for worker in net.workers.values():
        left_s = worker.flights.holds.left_s(key, worker.clock.monotonic())
        assert left_s == pytest.approx(20, abs=0.1)
    assert net.changes() == ["limited", "closed", "limited"]


def test_old_news_of_a_limit_do_not_outlast_its_end() -> None:
    net = Net()
    net.workers[0].ask(NO, hint_s=1.0)
    net.wait(1.2)
    net.node.changed(net.standing, [])  # says how all stands, and is on its way
    net.workers[0].ask(OK)
    net.settle()
    assert {w.standing().active for w in net.workers.values()} == {"openai"}
    assert not any(w.standing().limited for w in net.workers.values())


def test_of_two_nos_on_their_way_the_later_end_counts() -> None:
    net = Net()
    key = Key("openai", "", "m")
    net.workers[0].ask(NO, hint_s=20.0)
    net.workers[1].ask(NO, hint_s=5.0)
    net.settle()
    for worker in net.workers.values():
        left_s = worker.flights.holds.left_s(key, worker.clock.monotonic())
        assert left_s == pytest.approx(20, abs=0.1)
    assert net.changes() == ["limited"]
    assert net.node.holding.holds.left_s(key, net.clock.monotonic()) == pytest.approx(20, abs=0.1)


def test_a_control_process_that_heard_of_it_late_ends_it_late_and_for_all() -> None:
    net = Net()
    net.frozen = True
    net.workers[0].ask(NO, hint_s=1.0)
    net.wait(0.5)
    net.frozen = False
    net.wait(0.6)
    net.workers[0].ask(OK)
    net.settle()
    assert net.changes() == ["limited"]
    assert {w.standing().active for w in net.workers.values()} == {"spare"}
    net.wait(0.6)
    net.workers[0].ask(OK)
    net.settle()
    assert net.changes() == ["limited", "closed"]
    assert {w.standing().active for w in net.workers.values()} == {"openai"}
