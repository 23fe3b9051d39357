"""Limits over nodes that tell each other once a second what they took."""

import random

from proxy.model.coord import NS
from proxy.routing.abroad import Abroad, Field, Sums
from proxy.routing.limits import Name
from proxy.routing.metering import NodeMeters

CHAT: Name = ("route", "default", "chat")
T = NS  # of one request, at 60 a minute
BEGAN_MS = 1_710_513_000_000 // 60_000 * 60_000


class Cluster:
    """Minutes of sums, as Redis has them."""

    def __init__(self, *names: str) -> None:
        self.minutes: dict[int, dict[Field, Sums]] = {}
        self.meters = {name: NodeMeters() for name in names}
        self.nodes = {name: Abroad(self.meters[name], name, "1") for name in names}
        self.seconds = 0.0

    def now(self, skew_s: float = 0.0) -> tuple[int, int]:
        at_s = self.seconds + skew_s
        return BEGAN_MS + int(at_s * 1000), int((5000 + at_s) * NS)

    def take(self, node: str, requests: int = 0, under_way: int = 0, run: str = "r") -> None:
        """A worker of that node reports: so many more, and so many under way."""
        _, now_ns = self.now()
        meter = self.meters[node].meter(CHAT)
        taken = meter.requests.total_ns + requests * T
        meter.take(0, run, [0, taken, taken, 0, 0, under_way, 0, 0], now_ns)

    def share(self, node: str, skew_s: float = 0.0) -> None:
        abroad = self.nodes[node]
        now_ms, now_ns = self.now(skew_s)
        minute, mine = abroad.mine(now_ms, now_ns)
        for name, sums in mine.items():
            self.minutes.setdefault(minute, {})[abroad.process, name] = sums
        abroad.settled(mine)
        found = {each: list(self.minutes.get(each, {}).items()) for each in abroad.minutes(now_ms)}
        abroad.hear(found, now_ms, now_ns)

    def used(self, node: str) -> float:
        """Requests of the minute, as that node knows it."""
        return self.meters[node].meter(CHAT).requests.used_ns(self.now()[1]) / T


def test_what_one_takes_the_other_knows() -> None:
    both = Cluster("a", "b")
    for name in "ab":
        both.take(name)
        both.share(name)
    both.take("a", 10)
    both.take("b", 5)
    for _ in range(3):  # and hearing it again changes nothing
        both.share("a")
        both.share("b")
    both.share("a")
    assert [both.used("a"), both.used("b")] == [15, 15]


def test_over_minutes_and_clocks_that_differ_nothing_is_lost_or_counted_twice() -> None:
    cluster, chance = Cluster("a", "b", "c"), random.Random(7)
    skews = {"a": 0.0, "b": 4.0, "c": -7.5}
    for name in skews:
        cluster.take(name)
        cluster.share(name, skews[name])
    taken = 0
    for _ in range(400):
        for name, skew_s in skews.items():
            count = chance.randrange(3)
            taken += count
            cluster.take(name, count)
            cluster.share(name, skew_s)
        cluster.seconds += 1
    for name, skew_s in skews.items():
        cluster.share(name, skew_s)
    left = taken - 400
    for name, skew_s in skews.items():
        assert abs(cluster.used(name) - left) <= abs(skew_s) + 8, name


def test_requests_under_way_elsewhere_come_and_go() -> None:
    both = Cluster("a", "b")
    both.take("a", 1, under_way=3)
    both.share("a")
    both.share("b")
    meter = both.meters["b"].meter(CHAT)
    assert meter.abroad == 3
    both.seconds += 61  # a new minute, and the other one still has to write
    both.share("b")
    both.take("a", 0, under_way=1)
    both.share("a")
    both.share("b")
    assert meter.abroad == 1
    both.seconds += 120  # it is gone
    both.share("b")
    assert meter.abroad == 0


def test_who_begins_anew_counts_once_what_its_workers_know() -> None:
    both = Cluster("a", "b")
    both.take("a", 10)
    both.take("b", 20)
    for name in "abab":
        both.share(name)
    assert both.used("a") == 30
    again = NodeMeters()
    again.meter(CHAT).take(0, "r", [1, 30 * T, 30 * T, 0, 0, 0, 0, 0], both.now()[1])
    both.meters["a"], both.nodes["a"] = again, Abroad(again, "a", "2")
    both.share("a")
    assert both.used("a") == 30
    both.take("b", 2)
    both.share("b")
    both.share("a")
    assert both.used("a") == 32


def test_a_node_that_joins_learns_what_the_minute_has_seen() -> None:
    both = Cluster("a", "b")
    both.take("a", 40)
    both.share("a")
    both.share("b")
    assert both.used("b") == 40
