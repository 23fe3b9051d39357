"""One endpoint of many policies goes: workers and events of all of them, a little at a time."""

from collections import Counter

import pytest

from proxy.app.pushing import MOST
from proxy.app.sharing import TOGETHER, WorkerShare
from proxy.app.standings import NodeStandings
from proxy.gateway.flights import CLOSED_AT_ONCE, Flights
from proxy.link.frames import Message
from proxy.model.failover import Outcome
from proxy.model.tenancy import Route, SnapshotDoc, WorkspaceRules
from proxy.routing.effects import Effect, StateChanged, Switched
from proxy.routing.standing import Standing
from proxy.routing.states import State
from tests.kit.builders import OPENAI, SPARE, policy, world
from tests.kit.fakes import FakeClock

MANY = 1_500
NAMES = [f"r{number}" for number in range(MANY)]
ROUTES = [Route(id=name, endpoint="openai") for name in NAMES]
POLICIES = [
    policy("openai", "spare", route_id=name).model_copy(update={"id": f"p-{name}"})
    for name in NAMES
]
RULES = WorkspaceRules(
    id="default", endpoints=[OPENAI, SPARE], routes=ROUTES, failover_policies=POLICIES
)


class Node:
    """A control process whose workers are lists of messages."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: list[tuple[str, Effect]] = []
        self.sent: dict[int, list[Message]] = {0: [], 1: []}
        self.standings = NodeStandings(self.clock, self._tell, lambda: 0.5)
        self.standings.workers = self
        self.standings.keep(SnapshotDoc(version=1, sha256="", workspaces=[RULES]))

    def _tell(self, standing: Standing, effect: Effect, at_ms: int) -> None:
        self.told.append((standing.policy.effective_id, effect))

    def slots(self) -> list[int]:
        return list(self.sent)

    def send(self, slot: int, message: Message) -> None:
        self.sent[slot].append(message)

    def goes(self, name: str = "p-r0", endpoint_id: str = "openai") -> None:
        """Nobody is there any more; a policy has found it."""
        standing, now = self.of(name), self.clock.monotonic()
        for _ in range(3):
            effects = standing.observe(endpoint_id, now, Outcome.CONNECT, began=now)
            if effects:
                self.standings.changed(standing, effects)

    def of(self, name: str) -> Standing:
        standing = self.standings.of("default", name)
        assert standing is not None
        return standing

    def open(self) -> int:
        return sum(each.breakers["openai"].state is State.OPEN for each in self.standings.all())

    def pushed(self, slot: int) -> list[list[str]]:
        """The policies of each message."""
        found = []
        for message in self.sent[slot]:
            docs = message.get("of")
            if message["t"] == "standings" and isinstance(docs, list):
                found.append([str(doc["policy_id"]) for doc in docs if isinstance(doc, dict)])
        return found


def test_each_change_is_told_once_and_none_is_lost() -> None:
    node = Node()
    node.goes()
    assert 1 < node.open() < MANY  # a part at once
    node.standings.finish()
    assert node.open() == MANY
    for kind in (StateChanged, Switched):
        told = Counter(name for name, effect in node.told if isinstance(effect, kind))
        assert told == dict.fromkeys((f"p-{name}" for name in NAMES), 1)


def test_workers_get_them_in_few_messages_of_bounded_size() -> None:
    node = Node()
    node.goes()
    node.standings.finish()
    for slot in (0, 1):
        messages = node.pushed(slot)
        assert Counter(name for message in messages for name in message) == dict.fromkeys(
            (f"p-{name}" for name in NAMES), 1
        )
        assert max(map(len, messages)) <= MOST
        assert len(messages) <= MANY / MOST + 5


def test_who_finds_it_too_starts_no_second_round() -> None:
    node = Node()
    node.goes()
    before = node.open()
    node.goes(f"p-{NAMES[-1]}")
    assert node.open() == before + 1
    node.standings.finish()
    assert len([effect for _, effect in node.told if isinstance(effect, StateChanged)]) == MANY


def test_other_changes_do_not_wait_for_it() -> None:
    node = Node()
    node.goes()
    assert node.standings.force("default", f"p-{NAMES[-1]}", "spare", 60, "maintenance")
    assert node.of(f"p-{NAMES[-1]}").state == "forced"
    assert node.pushed(1)[-1] == [f"p-{NAMES[-1]}"]


def test_a_policy_that_is_gone_meanwhile_is_not_told_of() -> None:
    node = Node()
    node.goes()
    opened = node.open()
    node.standings.keep(SnapshotDoc(version=2, sha256="", workspaces=[]))
    node.standings.finish()
    assert len([effect for _, effect in node.told if isinstance(effect, StateChanged)]) == opened


def test_an_edit_may_take_away_what_the_others_are_about_to_be_told_of() -> None:
    node = Node()
    node.goes()
    node.goes(endpoint_id="spare")
    edited = [policy("openai", "third", route_id="r0").model_copy(update={"id": "p-r0"})]
    rules = RULES.model_copy(update={"failover_policies": [*edited, *POLICIES[1:]]})
    node.standings.keep(SnapshotDoc(version=2, sha256="", workspaces=[rules]))
    node.standings.finish()
    others = [node.of(f"p-{name}").breakers["spare"].state for name in NAMES[1:]]
    assert set(others) == {State.OPEN}


def test_when_their_time_is_over_they_are_probed_and_permits_follow_the_news() -> None:
    node = Node()
    node.goes()
    node.standings.finish()
    node.sent = {0: []}
    node.clock.advance(6.0)
    node.standings.tick()
    node.standings.finish()
    assert {each.breakers["openai"].state for each in node.standings.all()} == {State.PROBING}
    known: set[str] = set()
    granted = []
    for message in node.sent[0]:
        if message["t"] == "grant":
            granted.append(str(message["policy_id"]))
            assert granted[-1] in known
        elif message["t"] == "standings" and isinstance(message["of"], list):
            known |= {str(doc["policy_id"]) for doc in message["of"] if isinstance(doc, dict)}
    assert len(granted) == len(set(granted)) == MANY


def test_a_tick_that_is_not_over_is_not_begun_again() -> None:
    node = Node()
    node.goes()
    node.standings.finish()
    node.clock.advance(6.0)
    for _ in range(50):
        node.standings.tick()
    node.standings.finish()
    changes = [e for _, e in node.told if isinstance(e, StateChanged)]
    assert len(changes) == 2 * MANY


def test_a_new_worker_is_told_all_of_it_before_it_serves() -> None:
    node = Node()
    node.goes()
    node.standings.finish()
    node.sent = {2: []}
    node.standings.joined(2)
    node.standings.finish()
    messages = [each for each in node.sent[2] if each["t"] == "standings"]
    assert sum(len(each) for each in node.pushed(2)) == MANY
    assert [each["more"] for each in messages] == [True] * (len(messages) - 1) + [False]


# --- a worker


class Worker:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sent: list[Message] = []
        self.share = WorkerShare(self.clock, lambda standing, name: None)
        self.flights = Flights(self.clock, lambda: 0.5, self.share.tell)
        self.share.of(self.flights)
        self.share.to(self.sent.append)
        rules = world([OPENAI, SPARE], routes=ROUTES).gateway.rules()
        for route, said in zip(ROUTES, POLICIES, strict=True):
            rules.workspaces["default"].routes[route.id].policy = said
        self.flights.keep(rules)
        self.share.kept()

    def goes(self, name: str, endpoint_id: str = "openai") -> None:
        standing, now = self.flights.of("default", name), self.clock.monotonic()
        assert standing is not None
        self.flights.asked(standing, now)
        for _ in range(3):
            flight = self.flights.start(
                standing, endpoint_id, "", "m", now, stream=True, permit=None
            )
            flight.ended(now, Outcome.CONNECT)

    def open(self) -> int:
        return sum(each.breakers["openai"].state is State.OPEN for each in self.flights.all())


@pytest.mark.parametrize("linked", [True, False])
def test_a_worker_closes_no_more_at_once_than_its_requests_can_wait_for(linked: bool) -> None:
    worker = Worker()
    if linked:
        worker.share.heard({"t": "here"})
    worker.goes("p-r0")
    worker.goes("p-r1499")
    assert CLOSED_AT_ONCE <= worker.open() <= 2 * CLOSED_AT_ONCE + 1
    for _ in range(-(-MANY // CLOSED_AT_ONCE)):
        worker.clock.advance(0.1)
        worker.flights.sweep()
    assert worker.open() == MANY


def test_an_edit_does_not_keep_a_worker_from_closing_what_is_left() -> None:
    worker = Worker()
    worker.goes("p-r0")
    worker.goes("p-r0", "spare")
    standing = worker.flights.of("default", "p-r0")
    assert standing is not None
    standing.edit(policy("openai", "third", route_id="r0"), worker.clock.monotonic())
    for _ in range(2 * -(-MANY // CLOSED_AT_ONCE)):
        worker.flights.sweep()
    others = [each.breakers["spare"].state for each in worker.flights.all() if each is not standing]
    assert set(others) == {State.OPEN}


def test_a_worker_tells_nothing_of_a_policy_that_is_gone_meanwhile() -> None:
    worker = Worker()
    worker.goes("p-r0")
    gone = list(worker.flights.all())
    opened = worker.open()
    worker.flights.keep(world([OPENAI, SPARE]).gateway.rules())
    for _ in range(-(-MANY // CLOSED_AT_ONCE)):
        worker.flights.sweep()
    assert len(worker.flights.awake) == 0
    worker.share.heard({"t": "here"})
    told = [each["of"] for each in worker.sent if each["t"] == "changes"]
    assert sum(len(each) for each in told if isinstance(each, list)) <= opened < len(gone)


def test_a_worker_tells_what_it_has_found_and_not_what_follows_of_that() -> None:
    worker = Worker()
    worker.share.heard({"t": "here"})
    worker.goes("p-r0")
    told = [each for each in worker.sent if each["t"] == "changes"]
    assert [len(each["of"]) for each in told if isinstance(each["of"], list)] == [1]


def test_what_a_worker_has_done_alone_it_tells_in_messages_of_bounded_size() -> None:
    worker = Worker()
    worker.goes("p-r0")
    for _ in range(-(-MANY // CLOSED_AT_ONCE)):
        worker.flights.sweep()
    worker.share.heard({"t": "here"})
    told = [each["of"] for each in worker.sent if each["t"] == "changes"]
    sizes = [len(each) for each in told if isinstance(each, list)]
    assert sum(sizes) >= MANY
    assert max(sizes) <= 256
    assert TOGETHER <= 256


def test_a_worker_waits_for_the_last_of_what_is_known() -> None:
    worker = Worker()
    worker.share.heard({"t": "standings", "of": [], "more": True})
    assert not worker.share._knows.is_set()
    worker.share.heard({"t": "standings", "of": [], "more": False})
    assert worker.share._knows.is_set()
