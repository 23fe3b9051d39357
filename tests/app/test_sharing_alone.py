"""A worker or the control process is away, and comes back (§11)."""

import asyncio

import pytest

from proxy.app.messages import objects
from proxy.app.sharing import ALONE_S, UNTOLD, WorkerShare
from proxy.gateway.flights import Flights
from proxy.link.frames import Message
from proxy.model.exchange import Json
from proxy.routing import window as fields
from proxy.routing.effects import StateChanged, Switched
from proxy.routing.states import State
from tests.app.test_many_policies import NAMES, POLICIES, ROUTES
from tests.kit.builders import OPENAI, SPARE, world
from tests.kit.fakes import FakeClock
from tests.kit.net import BAD, DEAD, Claims, Net, Worker


def test_a_new_worker_knows_what_is_open() -> None:
    net = Net()
    net.workers[0].ask(BAD, 5)
    net.settle()
    net.kill(0)
    net.start(0)
    worker = net.workers[0]
    assert worker.state() is State.OPEN
    breaker = worker.standing().breakers["openai"]
    assert breaker.until - worker.clock.monotonic() == pytest.approx(5, abs=0.1)


async def test_a_new_worker_waits_for_the_first_word_but_not_for_long() -> None:
    clock = FakeClock()
    began = asyncio.get_running_loop().time()
    await Worker(clock, Claims()).share.first_word()
    assert 0.4 < asyncio.get_running_loop().time() - began < 2
    told = Net().workers[0]
    began = asyncio.get_running_loop().time()
    await told.share.first_word()
    assert asyncio.get_running_loop().time() - began < 0.2


def test_an_operators_word_reaches_workers_and_outlives_them() -> None:
    net = Net()
    net.node.force("default", "chat-fo", "spare", 60, "maintenance")
    net.settle()
    assert {w.standing().active for w in net.workers.values()} == {"spare"}
    net.kill(0)
    net.start(0)
    assert net.workers[0].standing().active == "spare"
    net.restart_control()
    assert net.standing.active == "spare"
    net.node.release("default", "chat-fo", "")
    net.settle()
    assert {w.standing().active for w in net.workers.values()} == {"openai"}
    net.node.force("default", "chat-fo", "spare", 2, "")
    net.wait(2.3)
    assert {w.standing().active for w in net.workers.values()} == {"openai"}


def test_a_control_process_that_comes_back_learns_what_workers_know() -> None:
    net = Net()
    net.workers[0].ask(BAD, 5)
    net.settle()
    net.restart_control()
    assert net.states() == {State.OPEN}
    assert net.standing.active == "spare"


def test_while_control_is_frozen_workers_act_alone_and_then_merge() -> None:
    net = Net()
    net.frozen = True
    net.wait(ALONE_S + 0.2)
    one, two = net.workers.values()
    one.ask(BAD, 5)
    assert (one.state(), two.state()) == (State.OPEN, State.CLOSED)
    assert net.told == []
    net.wait(5.3)
    assert one.state() is State.PROBING
    assert one.ask(DEAD) == 1  # it gave itself the permit
    assert one.state() is State.OPEN
    net.frozen = False
    net.wait(0.5)
    assert net.states() == {State.OPEN}
    assert net.changes() == ["open", "probing", "open"]
    now_ms = net.clock.now_ms()
    changes = [(each, at_ms) for each, at_ms in net.told if isinstance(each, StateChanged)]
    assert [now_ms - at_ms > 5000 for _, at_ms in changes] == [True, False, False]
    assert one.share.linked
    assert two.share.linked


def test_two_workers_that_tripped_alone_are_told_once() -> None:
    net = Net()
    net.frozen = True
    net.wait(ALONE_S + 0.2)
    for worker in net.workers.values():
        worker.ask(BAD, 5)
        net.wait(0.4)
    net.frozen = False
    net.wait(0.5)
    assert net.states() == {State.OPEN}
    assert net.changes() == ["open"]
    assert len(net.told_of(Switched)) == 1


def test_old_counts_are_not_told_after_a_freeze() -> None:
    net = Net()
    net.frozen = True
    net.wait(ALONE_S + 0.2)
    net.workers[0].ask(BAD, 4)
    net.frozen = False
    net.wait(0.5)
    assert net.standing.breakers["openai"].window.totals[fields.ERRORS] == 0
    assert net.states() == {State.CLOSED}


def test_what_is_behind_is_put_right() -> None:
    net = Net()
    net.workers[0].ask(BAD, 5)
    net.settle()
    behind = net.workers[1]
    behind.standing().breakers["openai"].version = 0
    behind.standing().breakers["openai"].state = State.CLOSED
    behind.share.lost()
    net.wait(0.5)
    assert net.states() == {State.OPEN}


def test_of_all_that_was_kept_nothing_is_lost_on_the_return() -> None:
    clock, sent = FakeClock(), list[Message]()
    share = WorkerShare(clock, lambda _, __: None)
    flights = Flights(clock, lambda: 0.5, share.tell)
    share.of(flights)
    share.to(sent.append)
    rules = world([OPENAI, SPARE], routes=ROUTES).gateway.rules()
    for name, said in zip(NAMES, POLICIES, strict=True):
        rules.workspaces["default"].routes[name].policy = said
    flights.keep(rules)
    now = clock.monotonic()
    for name in NAMES[: UNTOLD + 44]:
        standing = flights.of("default", f"p-{name}")
        assert standing is not None
        flights.told(standing, standing.limit("openai", now, now + 60, quota=False))
    share.heard({"t": "here"})
    changes = [each for message in sent for each in objects_of(message)]
    assert {str(each["policy_id"]) for each in changes} == {
        f"p-{name}" for name in NAMES[: UNTOLD + 44]
    }


def objects_of(message: Message) -> list[dict[str, Json]]:
    return list(objects(message, "of")) if message["t"] == "changes" else []
