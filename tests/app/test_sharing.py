"""What workers and their control process tell each other of endpoints, and when (§11)."""

import pytest

from proxy.link.frames import Message
from proxy.model.failover import Outcome
from proxy.model.tenancy import SnapshotDoc
from proxy.routing import window as fields
from proxy.routing.effects import Switched
from proxy.routing.states import State
from tests.kit.net import BAD, DEAD, OK, RULES, Net


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


@pytest.mark.parametrize(("outcome", "in_a_row"), [(BAD, 5), (DEAD, 3)])
def test_a_run_over_both_workers_ends_where_one_workers_would(
    outcome: Outcome, in_a_row: int
) -> None:
    net = Net()
    for count in range(in_a_row):
        assert net.states() == {State.CLOSED}
        net.workers[count % 2].ask(outcome)
        net.settle()
        net.wait(0.05)
    assert net.states() == {State.OPEN}


def test_failures_are_told_at_once_but_not_each() -> None:
    net = Net()
    worker, breaker = net.workers[0], net.standing.breakers["openai"]
    net.wait(0.3)
    worker.ask(BAD, 3)
    assert len(worker.sent) == 1
    net.settle()
    assert breaker.errors_in_a_row == 1
    net.wait(0.05)
    assert breaker.errors_in_a_row == 3


def test_under_load_failures_wait_for_the_exchange() -> None:
    """What was good on the other worker meanwhile is not known yet, and ends the run."""
    net = Net()
    net.workers[0].ask(OK)
    net.wait(0.3)
    net.workers[0].ask(BAD)
    net.workers[1].ask(OK)
    assert not net.workers[0].sent
    net.wait(0.3)
    assert net.standing.breakers["openai"].errors_in_a_row == 0


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


# fmt: off
NONSENSE = [
    {"t": "unheard"},
    {"t": "counts"},
    {"t": "counts", "of": [1]},
    {"t": "changes", "of": [{"workspace_id": "default", "policy_id": "chat-fo"}]},
    {"t": "changes", "of": [{"workspace_id": "default", "policy_id": "chat-fo", "limit": {}}]},
    {"t": "changes", "of": [{"workspace_id": "default", "policy_id": "chat-fo",
                             "limit": {"ago_ms": 0, "left_ms": "1"}}]},
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
