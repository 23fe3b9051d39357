"""Several workers under one limit, each deciding by itself: how exact it is, who begins anew."""

import random

import pytest

from proxy.model.coord import NS
from proxy.model.exchange import Json
from proxy.model.tenancy import Limits
from proxy.routing.limits import DAY_MS, Hold, Limiter, Moment, Name
from proxy.routing.metering import EXCHANGE_S, NodeMeters, WorkerMeters

ROUTE: Name = ("route", "default", "chat")
NOON_MS = 19_797 * DAY_MS + DAY_MS // 2


class Node:
    """Workers and a control process, and a clock."""

    def __init__(self, workers: int, said: Limits) -> None:
        self.said = said
        self.seconds = 1000.0
        self.control: NodeMeters | None = NodeMeters()
        self.limiters = [Limiter() for _ in range(workers)]
        self.ends = [WorkerMeters(each, f"run-{n}") for n, each in enumerate(self.limiters)]
        self.admitted = 0

    @property
    def moment(self) -> Moment:
        return Moment(int(self.seconds * NS), NOON_MS + int((self.seconds - 1000) * 1000))

    def ask(self, slot: int, tokens: int = 0) -> Hold | None:
        found = self.limiters[slot].claim([(ROUTE, self.said)], self.moment, tokens, tokens)
        if not isinstance(found, Hold):
            return None
        self.admitted += 1
        return found

    def drained(self, slot: int) -> int:
        count = 0
        while (hold := self.ask(slot)) is not None:
            hold.release()
            count += 1
        return count

    def exchange(self) -> None:
        for slot, end in enumerate(self.ends):
            report = end.report(self.moment)
            if report is not None and self.control is not None:
                workers = len(self.ends)
                end.hear(self.control.take(slot, report, workers, self.moment.now_ns), self.moment)

    def restart_worker(self, slot: int) -> None:
        self.limiters[slot] = Limiter()
        self.ends[slot] = WorkerMeters(self.limiters[slot], f"again-{slot}-{self.seconds}")


@pytest.mark.parametrize("workers", [2, 4])
def test_one_alone_may_take_the_whole_limit(workers: int) -> None:
    node = Node(workers, Limits(rpm=60))
    assert node.drained(0) == 60
    node.exchange()
    assert node.drained(0) == 0


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize(
    "rpm", [2, 7, *(pytest.param(rpm, marks=pytest.mark.thorough) for rpm in (60, 600, 6000))]
)
def test_under_load_the_rate_holds(workers: int, rpm: int) -> None:
    """Callers press on all workers for five minutes: in all it is one burst and five minutes, and
    one request more for each worker; the first burst of workers that were idle is owed back."""
    node, chance = Node(workers, Limits(rpm=rpm)), random.Random(workers * rpm)
    after_four_minutes = 0
    for _ in range(int(300 / EXCHANGE_S)):
        for slot in chance.sample(range(workers), workers):
            node.drained(slot)
        node.exchange()
        node.seconds += EXCHANGE_S
        if node.seconds == 1240:
            after_four_minutes = node.admitted
    assert rpm * 5 - workers <= node.admitted <= rpm * 6 + workers
    last_minute = node.admitted - after_four_minutes
    assert rpm * 0.95 - workers <= last_minute <= rpm * 1.01 + workers


@pytest.mark.parametrize("workers", [2, 4])
def test_idle_workers_struck_at_once_owe_what_they_took_too_much(workers: int) -> None:
    node = Node(workers, Limits(rpm=60))
    for slot in range(workers):
        assert node.drained(slot) == 60
    node.exchange()
    node.exchange()
    for _ in range(int((workers - 1) * 60 / EXCHANGE_S) - 1):
        node.seconds += EXCHANGE_S
        node.exchange()
        assert sum(node.drained(slot) for slot in range(workers)) == 0


def test_those_who_compete_share_what_is_free() -> None:
    node = Node(2, Limits(rpm=60))
    for slot in (0, 1):
        node.ask(slot)
    node.exchange()
    node.exchange()
    assert [node.drained(0), node.drained(1)] == [29, 29]
    node.seconds += 11
    node.exchange()
    node.seconds += 60
    node.exchange()
    assert node.drained(0) == 60  # the other one rests


def test_tokens_given_back_are_free_for_the_others() -> None:
    node = Node(2, Limits(tpm=1000))
    node.ask(1, 1)
    hold = node.ask(0, 900)
    assert hold is not None
    node.exchange()
    node.exchange()
    assert node.ask(1, 500) is None
    hold.settle(node.moment, 100, 0)
    node.exchange()
    node.exchange()
    assert node.ask(1, 440) is not None


def test_requests_under_way_elsewhere_count() -> None:
    node = Node(2, Limits(concurrency=2))
    holds = [node.ask(0), node.ask(0)]
    node.ask(1)
    node.exchange()
    node.exchange()
    assert node.ask(1) is None
    for hold in holds:
        assert hold is not None
        hold.release()
    node.exchange()
    assert node.ask(1) is not None


def test_what_a_dead_worker_had_under_way_is_free_again() -> None:
    node = Node(2, Limits(concurrency=2))
    node.ask(0)
    node.ask(0)
    node.ask(1)
    node.exchange()
    node.exchange()
    node.restart_worker(0)
    node.seconds += 6
    node.exchange()
    assert node.ask(1) is not None


def test_a_worker_that_begins_anew_learns_what_was_used() -> None:
    node = Node(2, Limits(rpm=60))
    assert node.drained(0) == 60
    node.exchange()
    node.restart_worker(0)
    assert node.ask(0) is not None  # not yet told
    node.exchange()
    assert node.ask(0) is None


def test_a_control_process_that_begins_anew_forgets_nothing() -> None:
    node = Node(2, Limits(rpm=60))
    node.ask(1)
    assert node.drained(0) == 60
    node.exchange()
    node.exchange()
    node.control = NodeMeters()
    node.exchange()
    node.exchange()
    assert [node.drained(0), node.drained(1)] == [0, 0]
    node.seconds += 5
    node.exchange()
    assert sum([node.drained(0), node.drained(1)]) in (4, 5)  # and owes nothing twice


def test_without_a_control_process_each_acts_alone_with_its_part() -> None:
    node = Node(4, Limits(rpm=60))
    for slot in range(4):
        node.ask(slot)
    node.exchange()
    node.control = None
    for _ in range(int(64 / EXCHANGE_S)):
        node.seconds += EXCHANGE_S
        node.exchange()
    for limiter in node.limiters:
        limiter.meter(ROUTE, node.moment)
    for _ in range(int(4 / EXCHANGE_S)):
        node.seconds += EXCHANGE_S
        node.exchange()
    assert [node.drained(slot) for slot in range(4)] == [15] * 4
    node.control = NodeMeters()
    node.exchange()
    assert [limiter.divisor for limiter in node.limiters] == [1] * 4


# --- a day's cost


def spend(node: Node, slot: int, nano: int) -> None:
    hold = node.ask(slot)
    assert hold is not None
    hold.settle(node.moment, 0, nano)
    hold.release()


def test_a_budget_is_one_for_all() -> None:
    node = Node(2, Limits(daily_cost_usd=1))
    spend(node, 0, 600_000_000)
    spend(node, 1, 600_000_000)
    node.exchange()
    node.exchange()
    assert node.ask(0) is None
    assert node.ask(1) is None
    node.seconds += 43_200
    assert node.ask(0) is not None
    node.exchange()
    assert node.ask(0) is not None


def test_a_restart_of_everything_knows_the_day_from_the_store() -> None:
    node = Node(1, Limits(daily_cost_usd=1))
    spend(node, 0, 10_000_000)
    node.exchange()
    assert node.control is not None
    day = node.moment.day
    node.control.meter(ROUTE).stored(day, 999_000_000 + 10_000_000)  # with what was just reported
    node.exchange()
    assert node.ask(0) is None
    node.control.meter(ROUTE).stored(day - 1, 5)
    node.exchange()
    assert node.ask(0) is None


def test_what_is_reported_counts_before_the_store_has_it_and_once() -> None:
    node = Node(1, Limits(daily_cost_usd=1))
    node.ask(0)
    node.exchange()
    assert node.control is not None
    meter, day = node.control.meter(ROUTE), node.moment.day
    meter.stored(day, 500_000_000)
    spend(node, 0, 300_000_000)
    node.exchange()
    assert meter.spent_nano == 800_000_000
    meter.stored(day, 800_000_000)
    assert meter.spent_nano == 800_000_000
    node.control = NodeMeters()  # it begins anew, and the worker goes on
    node.exchange()
    node.control.meter(ROUTE).stored(day, 800_000_000)
    assert node.control.meter(ROUTE).spent_nano == 800_000_000


def test_a_meter_that_a_worker_made_anew_gives_nothing_back() -> None:
    node = Node(2, Limits(rpm=60, daily_cost_usd=1))
    for _ in range(30):
        spend(node, 0, 10_000_000)
    node.exchange()
    node.exchange()
    node.limiters[0].keep(set())  # the limit is taken away, and is there again
    spend(node, 0, 10_000_000)
    node.exchange()
    assert node.control is not None
    meter = node.control.meter(ROUTE)
    assert meter.requests.used_ns(node.moment.now_ns) == 31 * NS
    assert (meter.requests.total_ns, meter.spent_nano) == (31 * NS, 310_000_000)
    assert node.drained(0) == 29


# --- hostile messages

ROW: list[Json] = ["route", "default", "chat", False, 1, 1, 0, 0, 0, 19_797, 0]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"run": 1, "rows": []},
        {"run": "r", "rows": {}},
        {"run": "r", "rows": [[]]},
        {"run": "r", "rows": [ROW[:-1]]},
        {"run": "r", "rows": [["other", *ROW[1:]]]},
        {"run": "r", "rows": [["route", 5, *ROW[2:]]]},
        {"run": "r", "rows": [[*ROW[:-1], "x"]]},
        {"run": "r", "rows": [[*ROW[:-1], 1.5]]},
    ],
)
def test_what_is_no_report_changes_nothing(said: dict[str, Json]) -> None:
    control = NodeMeters()
    with pytest.raises(ValueError, match="limits"):
        control.take(0, said, 1, NS)
    assert not control.meters
    with pytest.raises(ValueError, match="limits"):
        WorkerMeters(Limiter(), "r").hear(said, Moment(NS, NOON_MS))


def test_the_meters_of_a_node_have_a_bound() -> None:
    control = NodeMeters(most=2)
    for number in range(5):
        control.meter(("key", "", f"k{number}"))
    assert len(control.meters) == 2
