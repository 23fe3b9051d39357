"""Some workers and their control process, what each knows of endpoints, without a socket: every
message goes through JSON, clocks stand until they are moved (failover.md §11)."""

from collections import deque
from collections.abc import Callable
from typing import Any

from proxy.app.sharing import ClaimOf, WorkerShare
from proxy.app.standings import TICK_S, NodeStandings
from proxy.gateway.flights import Flight, Flights
from proxy.link.frames import Message, pack
from proxy.model.failover import FailoverPolicy, Outcome
from proxy.model.tenancy import Route, SnapshotDoc, WorkspaceRules
from proxy.routing.effects import Effect, StateChanged
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


class Claims:
    """The kernel: who holds which endpoint, of all workers."""

    def __init__(self) -> None:
        self.holders: dict[tuple[str, ...], Claimed] = {}

    def of(self, worker: "Worker") -> ClaimOf:
        return lambda standing, name: Claimed(self, worker, standing.policy.effective_id, name)

    def died(self, worker: "Worker") -> None:
        """What it held is free."""
        for name, each in list(self.holders.items()):
            if each.worker is worker:
                del self.holders[name]


class Claimed:
    def __init__(self, claims: Claims, worker: "Worker", *name: str) -> None:
        self._holders, self._name = claims.holders, name
        self.worker = worker

    def take(self) -> bool:
        return self._holders.setdefault(self._name, self) is self

    def free(self) -> None:
        if self._holders.get(self._name) is self:
            del self._holders[self._name]


class Worker:
    def __init__(self, clock: FakeClock, claims: Claims) -> None:
        self.clock = clock
        self.sent: deque[Message] = deque()
        self.share = WorkerShare(clock, claims.of(self))
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

    def __init__(
        self,
        workers: int = 2,
        clock: Callable[[], FakeClock] = FakeClock,
        chance: Callable[[], float] = lambda: 0.5,
    ) -> None:
        self._clock_of, self._chance = clock, chance
        self.clock = clock()
        self.told: list[tuple[Effect, int]] = []
        self.frozen = False
        self.waiting: dict[int, deque[Message]] = {}
        self.workers: dict[int, Worker] = {}
        self.claims = Claims()
        self.start_control()
        for slot in range(workers):
            self.start(slot)

    def start_control(self) -> None:
        self.node = NodeStandings(self.clock, self._tell, self._chance)
        self.node.workers = self
        self.node.keep(SnapshotDoc(version=1, sha256="", workspaces=[RULES]))

    def start(self, slot: int) -> None:
        self.workers[slot], self.waiting[slot] = Worker(self._clock_of(), self.claims), deque()
        self.workers[slot].clock.advance(1000.0 * slot)  # each has a clock of its own
        self.node.joined(slot)
        self.settle()

    def kill(self, slot: int) -> None:
        self.claims.died(self.workers[slot])
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
