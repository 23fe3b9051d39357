"""What the control process knows of the endpoints of every policy."""

import pytest

from proxy.app.standings import NodeStandings
from proxy.model.tenancy import Route, SnapshotDoc, WorkspaceRules
from proxy.routing.effects import Effect, Switched
from proxy.routing.standing import Standing
from proxy.routing.states import State
from tests.kit.builders import OPENAI, SPARE, policy
from tests.kit.fakes import FakeClock

ROUTE = Route(id="chat", endpoint="openai")


def snapshot(version: int = 1, **said: object) -> SnapshotDoc:
    rules = WorkspaceRules(
        id="default",
        endpoints=[OPENAI, SPARE],
        routes=[ROUTE],
        failover_policies=[policy("openai", "spare", **said)],
    )
    return SnapshotDoc(version=version, sha256="", workspaces=[rules])


class Node:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: list[Effect] = []
        self.standings = NodeStandings(self.clock, self._tell, lambda: 0.5)
        self.standings.keep(snapshot())

    def _tell(self, standing: Standing, effect: Effect, at_ms: int) -> None:
        self.told.append(effect)

    @property
    def standing(self) -> Standing:
        standing = self.standings.of("default", "test-failover")
        assert standing is not None
        return standing


def test_it_knows_the_policies_that_are_in_force() -> None:
    node = Node()
    before = node.standing
    assert before.workspace_id == "default"
    assert node.standings.of("default", "other") is None
    assert node.standings.of("other", "test-failover") is None
    node.standings.keep(snapshot(2, min_concurrency=7))
    assert node.standing is before
    assert before.policy.request_failover.min_concurrency == 7
    node.standings.keep(SnapshotDoc(version=3, sha256="", workspaces=[]))
    assert list(node.standings.all()) == []


def test_a_published_snapshot_is_known_before_workers_get_it() -> None:
    node, seen = Node(), list[bool]()
    publish = node.standings.before(
        lambda doc: seen.append(node.standings.of("default", "test-failover") is None)
    )
    publish(SnapshotDoc(version=2, sha256="", workspaces=[]))
    assert seen == [True]


def test_an_operator_moves_the_traffic_and_gives_it_back() -> None:
    node = Node()
    assert node.standings.force("default", "test-failover", "spare", 60, "maintenance")
    assert node.standing.active == "spare"
    (switched,) = [each for each in node.told if isinstance(each, Switched)]
    assert (switched.before, switched.after) == ("openai", "spare")
    assert (switched.reason.code, switched.reason.said) == ("manual", "maintenance")
    assert node.standings.release("default", "test-failover", "done")
    assert node.standing.active == "openai"
    assert {each.state for each in node.standing.breakers.values()} == {State.CLOSED}


@pytest.mark.parametrize(
    ("workspace_id", "policy_id", "endpoint_id"),
    [("default", "test-failover", "nobody"), ("default", "other", "spare"),
     ("other", "test-failover", "spare")],
)  # fmt: skip
def test_what_is_not_there_cannot_be_forced(
    workspace_id: str, policy_id: str, endpoint_id: str
) -> None:
    node = Node()
    assert not node.standings.force(workspace_id, policy_id, endpoint_id, 60, "")
    assert not node.standings.release(workspace_id, policy_id, "")
    assert node.told == []
