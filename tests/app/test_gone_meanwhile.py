"""Policies that are edited or taken away while a long piece of work goes on over them."""

from proxy.app.sharing import WorkerShare
from proxy.gateway.flights import Flights
from proxy.model.failover import Outcome
from proxy.model.tenancy import SnapshotDoc
from proxy.routing.effects import StateChanged
from proxy.routing.states import State
from tests.app.test_many_policies import MANY, NAMES, POLICIES, ROUTES, RULES, Node
from tests.kit.builders import OPENAI, SPARE, policy, world
from tests.kit.fakes import FakeClock

ALONE = [policy("openai", "third", route_id=NAMES[1]).model_copy(update={"id": f"p-{NAMES[1]}"})]
EDITED = [POLICIES[0], *ALONE, *POLICIES[2:]]


def test_an_edit_takes_an_endpoint_from_the_policy_that_found_it_down() -> None:
    node = Node()
    node.goes()
    finder, now = node.of(f"p-{NAMES[1]}"), node.clock.monotonic()
    for _ in range(3):
        node.standings.changed(finder, finder.observe("spare", now, Outcome.CONNECT, began=now))
    edited = RULES.model_copy(update={"failover_policies": EDITED})
    node.standings.keep(SnapshotDoc(version=2, sha256="", workspaces=[edited]))
    node.standings.finish()
    for name in NAMES[2:]:
        assert {each.state for each in node.of(f"p-{name}").breakers.values()} == {State.OPEN}


def test_a_worker_looks_on_when_such_an_edit_comes() -> None:
    clock = FakeClock()
    share = WorkerShare(clock, lambda _, __: None)
    flights = Flights(clock, lambda: 0.5, share.tell)
    share.of(flights)
    rules = world([OPENAI, SPARE], routes=ROUTES).gateway.rules()
    for name, said in zip(NAMES, POLICIES, strict=True):
        rules.workspaces["default"].routes[name].policy = said
    flights.keep(rules)
    now = clock.monotonic()
    for name, endpoint in ((NAMES[0], "openai"), (NAMES[1], "spare")):
        standing = flights.of("default", f"p-{name}")
        assert standing is not None
        for _ in range(3):
            flights.start(
                standing, endpoint, "", "m", now, stream=True, permit=None
            ).ended(now, Outcome.CONNECT)  # fmt: skip
    rules.workspaces["default"].routes[NAMES[1]].policy = ALONE[0]
    flights.keep(rules)
    for _ in range(2 * MANY // 100):
        flights.sweep()
    for name in NAMES[2:]:
        other = flights.of("default", f"p-{name}")
        assert other is not None
        assert {each.state for each in other.breakers.values()} == {State.OPEN}


def test_time_says_nothing_of_what_is_gone() -> None:
    node = Node()
    node.goes()
    node.standings.finish()
    node.clock.advance(6.0)
    node.standings.tick()
    node.standings.keep(SnapshotDoc(version=2, sha256="", workspaces=[]))
    told, sent = len(node.told), len(node.sent[0])
    node.standings.finish()
    assert node.told[told:] == []
    assert [each["t"] for each in node.sent[0][sent:] if each["t"] != "here"] == []


def test_what_comes_back_is_lent_to_as_it_stands_now() -> None:
    node = Node()
    node.goes()
    node.standings.finish()
    node.clock.advance(6.0)
    node.standings.tick()
    node.standings.keep(SnapshotDoc(version=2, sha256="", workspaces=[]))
    node.standings.keep(SnapshotDoc(version=3, sha256="", workspaces=[RULES]))
    sent = len(node.sent[0])
    node.standings.finish()
    assert [each for each in node.sent[0][sent:] if each["t"] == "grant"] == []
    assert node.open() == 0
    assert len([each for _, each in node.told if isinstance(each, StateChanged)]) < 2 * MANY
