"""Two workers and their control process, what each knows of endpoints, and when (§11)."""

import asyncio
import sys
from collections import deque
from typing import Any

import pytest

from proxy.app.sharing import ALONE_S, WorkerShare
from proxy.app.standings import TICK_S, NodeStandings
from proxy.gateway.flights import Flight, Flights
from proxy.link.frames import Message, pack
from proxy.model.failover import FailoverPolicy, Outcome
from proxy.model.tenancy import Route, SnapshotDoc, WorkspaceRules
from proxy.routing import window as fields
from proxy.routing.effects import Effect, Recovered, StateChanged, Switched
from proxy.routing.holds import Key
from proxy.routing.standing import Standing
from proxy.routing.states import State
from proxy.wire.jsonbody import loads
from tests.kit.builders import OPENAI, SPARE, policy, world
from tests.kit.fakes import FakeClock

BAD, DEAD, OK = Outcome.UPSTREAM_5XX, Outcome.CONNECT, Outcome.SUCCESS
ROUTES = [Route(id=name, endpoint="openai") for name in ("chat", "other")]


def of_route(route_id: str) -> FailoverPolicy:
    return policy("openai", "spare", route_id=route_id).model_copy(update={"id": f"{route_id}-fo"})


POLICIES = [of_route("chat"), of_route("other")]
RULES = WorkspaceRules(
    id="default", endpoints=[OPENAI, SPARE], routes=ROUTES, failover_policies=POLICIES
)


def through(message: Message) -> Message:
    """As it comes out of the socket."""
    found = loads(pack(message)[4:])
    assert isinstance(found, dict)
    return found


class Worker:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.sent: deque[Message] = deque()
        self.share = WorkerShare(clock)
        self.flights = Flights(clock, lambda: 0.5, self.share.tell)
        self.share.of(self.flights)
        self.share.to(lambda message: self.sent.append(through(message)))
        rules = world([OPENAI, SPARE], routes=ROUTES).gateway.rules()
        for route, said in zip(ROUTES, POLICIES, strict=True):
            rules.workspaces["default"].routes[route.id].policy = said
        self.flights.keep(rules)
        self.share.kept()

    def standing(self, route_id: str = "chat") -> Standing:
        standing = self.flights.of("default", f"{route_id}-fo")
        assert standing is not None
        return standing

    def fly(self, name: str = "openai", route_id: str = "chat") -> Flight | None:
        """A request takes off, if it may."""
        standing, now = self.standing(route_id), self.clock.monotonic()
        self.flights.asked(standing, now)
        permit = None
        if standing.refusal(name, 99):
            permit = standing.permit(name, now, 4.0)
            if permit is None:
                return None
        return self.flights.start(standing, name, "", "m", now, stream=True, permit=permit)

    def ask(
        self, outcome: Outcome, times: int = 1, name: str = "openai", route_id: str = "chat",
        **said: Any,
    ) -> int:  # fmt: skip
        """Requests, one after the other; how many were let in."""
        flights = [self.fly(name, route_id) for _ in range(times)]
        for flight in flights:
            if flight is not None:
                flight.ended(self.clock.monotonic(), outcome, **said)
        return sum(flight is not None for flight in flights)

    def state(self, name: str = "openai", route_id: str = "chat") -> State:
        return self.standing(route_id).breakers[name].state


class Net:
    """A control process and workers.  A process that is `frozen` hears nothing and says nothing;
    what is sent to it waits."""

    def __init__(self, workers: int = 2) -> None:
        self.clock = FakeClock()
        self.told: list[tuple[Effect, int]] = []
        self.frozen = False
        self.waiting: dict[int, deque[Message]] = {}
        self.workers: dict[int, Worker] = {}
        self.start_control()
        for slot in range(workers):
            self.start(slot)

    def start_control(self) -> None:
        self.node = NodeStandings(self.clock, self._tell, lambda: 0.5)
        self.node.workers = self
        self.node.keep(SnapshotDoc(version=1, sha256="", workspaces=[RULES]))

    def start(self, slot: int) -> None:
        self.workers[slot], self.waiting[slot] = Worker(FakeClock()), deque()
        self.workers[slot].clock.advance(1000.0 * slot)  # each has a clock of its own
        self.node.joined(slot)
        self.settle()

    def kill(self, slot: int) -> None:
        del self.workers[slot], self.waiting[slot]
        self.node.left(slot)
        self.settle()

    def restart_control(self) -> None:
        for slot, worker in self.workers.items():
            worker.share.lost()
            worker.sent.clear()
            self.waiting[slot].clear()
        self.start_control()
        for slot in self.workers:
            self.node.joined(slot)
        self.settle()

    def _tell(self, standing: Standing, effect: Effect, at_ms: int) -> None:
        self.told.append((effect, at_ms))

    def slots(self) -> list[int]:
        return list(self.workers)

    def send(self, slot: int, message: Message) -> None:
        self.waiting[slot].append(through(message))

    def settle(self) -> None:
        """Everything that was said arrives."""
        while True:
            said = False
            for slot, worker in list(self.workers.items()):
                if worker.sent and not self.frozen:
                    self.node.heard(slot, worker.sent.popleft())
                    said = True
                if self.waiting[slot]:
                    worker.share.heard(self.waiting[slot].popleft())
                    said = True
            if not said:
                return

    def wait(self, seconds: float) -> None:
        """Steps of 50 ms."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            for worker in self.workers.values():
                worker.clock.advance(0.05)
                worker.flights.sweep()
                worker.share.look()
            due = self.clock.monotonic() % TICK_S
            if not self.frozen and min(due, TICK_S - due) < 0.02:
                self.node.tick()
            self.settle()

    @property
    def standing(self) -> Standing:
        standing = self.node.of("default", "chat-fo")
        assert standing is not None
        return standing

    def states(self, name: str = "openai") -> set[State]:
        return {w.state(name) for w in self.workers.values()} | {self.standing.breakers[name].state}

    def told_of(self, kind: type[Effect]) -> list[Effect]:
        return [each for each, _ in self.told if isinstance(each, kind)]

    def changes(self, name: str = "openai") -> list[str]:
        return [
            str(each.change.after)
            for each, _ in self.told
            if isinstance(each, StateChanged) and each.endpoint_id == name
        ]


# --- trips


def test_one_workers_trip_is_the_nodes_trip_at_once_and_told_once() -> None:
    net = Net()
    net.workers[0].ask(BAD, 5)
    assert net.workers[0].standing().active == "spare"  # nobody was waited for
    net.settle()
    assert net.states() == {State.OPEN}
    assert {w.standing().active for w in net.workers.values()} == {"spare"}
    (switched,) = net.told_of(Switched)
    assert isinstance(switched, Switched)
    assert switched.reason.code == "consecutive_failures"
    assert net.changes() == ["open"]
    net.wait(1)
    assert net.changes() == ["open"]


def test_two_workers_that_trip_together_are_told_once() -> None:
    net = Net()
    net.workers[0].ask(BAD, 5)
    net.workers[1].ask(BAD, 5)
    net.wait(1)
    assert net.changes() == ["open"]
    assert len(net.told_of(Switched)) == 1
    assert {b.version for w in net.workers.values() for b in [w.standing().breakers["openai"]]} == {
        1
    }


def test_what_each_worker_counts_adds_up_to_a_trip_of_the_node() -> None:
    net = Net()
    for _ in range(3):
        net.workers[0].ask(BAD)
        net.workers[1].ask(BAD)
        net.wait(0.3)
    assert net.states() == {State.OPEN}
    assert net.changes() == ["open"]


def test_the_nodes_windows_hold_the_sums() -> None:
    net = Net()
    net.workers[0].ask(OK, 7)
    net.workers[1].ask(OK, 3)
    net.workers[1].ask(BAD)
    net.workers[1].ask(Outcome.CALLER, 2)
    net.wait(0.3)
    window = net.standing.breakers["openai"].window
    assert (window.totals[fields.OUTCOMES], window.totals[fields.ERRORS]) == (11, 1)
    assert window.excluded == {"caller": 2}
    assert net.standing.rate.per_s(net.clock.monotonic()) == 1.3
    assert net.workers[0].standing().breakers["openai"].window.totals[fields.OUTCOMES] == 7


def test_nothing_is_said_of_policies_without_requests() -> None:
    net = Net()
    net.workers[0].ask(OK, 2)
    net.wait(0.3)
    worker = net.workers[0]
    worker.share.report()
    assert not worker.sent


def test_an_endpoint_that_is_down_is_down_for_every_policy_of_every_worker() -> None:
    net = Net()
    net.workers[0].ask(DEAD, 3)
    assert net.workers[0].state(route_id="other") is State.OPEN
    net.settle()
    other = net.node.of("default", "other-fo")
    assert other is not None
    assert other.breakers["openai"].state is State.OPEN
    assert net.workers[1].state(route_id="other") is State.OPEN
    assert net.changes() == ["open", "open"]  # of two policies, once each
    left = [s.breakers["openai"].until - net.clock.monotonic() for s in (net.standing, other)]
    assert left[0] == pytest.approx(left[1], abs=0.01)


# --- recovery


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


def test_a_permit_that_is_not_used_moves_on() -> None:
    net = Net()
    net.workers[0].ask(BAD, 5)
    net.wait(5.3)
    seen = set()
    for _ in range(20):
        holders = [
            slot for slot, worker in net.workers.items()
            if worker.standing().breakers["openai"].may_probe(worker.clock.monotonic())
        ]  # fmt: skip
        assert len(holders) <= 1
        seen |= set(holders)
        net.wait(0.5)
    assert seen == {0, 1}


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


# --- holds


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


def test_an_endpoint_that_refuses_to_go_on_with_an_answer_is_asked_so_by_nobody() -> None:
    net = Net()
    first, other = net.workers[0], net.workers[1]
    first.flights.prefill_refused("default", "spare")
    net.settle()
    assert not other.flights.takes_prefill("default", "spare")
    assert other.flights.takes_prefill("other", "spare")
    assert list(net.node.of("default", "chat-fo").prefill_off) == ["spare"]  # type: ignore[union-attr]
    net.wait(601)
    assert other.flights.takes_prefill("default", "spare")


# --- somebody is away


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
    await Worker(clock).share.first_word()
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


# fmt: off
NONSENSE = [
    {"t": "unheard"},
    {"t": "counts"},
    {"t": "counts", "of": [1]},
    {"t": "changes", "of": [{"workspace_id": "default", "policy_id": "chat-fo"}]},
    {"t": "probing", "number": 1},
    {"t": "probed"},
    {"t": "hold"},
]
# fmt: on


@pytest.mark.parametrize("message", NONSENSE)
def test_nonsense_is_refused(message: Message) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the connection ends, whatever it was
        Net().node.heard(0, message)


def test_news_of_unknown_policies_change_nothing() -> None:
    net = Net()
    told = {"workspace_id": "default", "policy_id": "gone", "requests": 1, "on_fallback": 0}
    net.node.heard(0, {"t": "counts", "of": [{**told, "counts": []}]})
    net.workers[0].share.heard({"t": "standings", "of": [{**told, "states": [], "flap_ms": 0}]})
    net.workers[0].share.heard({"t": "grant", **told, "endpoint_id": "openai", "number": 1})
    assert net.told == []


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


def test_what_only_the_control_process_saw_go_and_come_back_starts_anew() -> None:
    """A worker that applies two changes at once has never known the policy to be paused."""
    net = Net()
    for _ in range(2):
        net.node.force("default", "chat-fo", "spare", 60, "drill")
        net.settle()
    net.node.keep(SnapshotDoc(version=2, sha256="", workspaces=[]))
    net.node.keep(SnapshotDoc(version=3, sha256="", workspaces=[RULES]))
    for slot in net.workers:
        net.node.joined(slot)  # it has applied the newest
    net.settle()
    assert net.states() == {State.CLOSED}
    net.node.force("default", "chat-fo", "spare", 60, "now")
    net.settle()
    assert net.states() == {State.FORCED_OPEN}
