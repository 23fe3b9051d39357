"""Who of a tier takes a request: shares, loads and keys, over many requests."""

from collections import Counter
from heapq import heappop, heappush
from random import Random

import pytest

from proxy.model.failover import Conditions, FailoverPolicy
from proxy.routing.balance import MOST_PINS, Balance, Load, digest_of, share_of, tiers_of

IDS = [f"req-{number}" for number in range(10_000)]


def balance(*tiers: str, seed: int = 1, **weights: int) -> Balance:
    made = Balance(Random(seed).random)
    made.edit([list(tier) for tier in tiers], weights)
    return made


def shares(counts: Counter[str]) -> dict[str, int]:
    return {name: round(100 * count / counts.total()) for name, count in counts.items()}


class Crowd:
    """Requests that come at random and are answered after so long."""

    def __init__(self, made: Balance, *, rps: float, seed: int = 7, **latency_s: float) -> None:
        self.balance = made
        self.random = Random(seed)
        self.rps = rps
        self.latency_s = latency_s
        self.now = 1000.0
        self._ends: list[tuple[float, float, str]] = []
        self.failing: set[str] = set()

    def run(self, seconds: float) -> Counter[str]:
        """Who got how many."""
        sent: Counter[str] = Counter()
        until = self.now + seconds
        while self.now < until:
            self.now += self.random.expovariate(self.rps)
            while self._ends and self._ends[0][0] <= self.now:
                at, took, name = heappop(self._ends)
                load = self.balance.loads[name]
                if name in self.failing:
                    load.failed(at, took)
                else:
                    load.answered(at, took)
                load.over()
            first = self.balance.order(self.now, ())[0]
            took = self.latency_s[first] * self.random.uniform(0.7, 1.3)
            self.balance.loads[first].began(self.now)
            heappush(self._ends, (self.now + took, took, first))
            sent[first] += 1
        return sent


# --- tiers


def test_tiers_of_a_policy() -> None:
    said = FailoverPolicy(
        route_id="chat", primary_endpoint="a", fallback_endpoints=["b", "c"],
        conditions=Conditions(latency_threshold_ms=2000),
    )  # fmt: skip
    assert tiers_of(said) == [["a"], ["b"], ["c"]]
    assert tiers_of(said.model_copy(update={"tiers": [["b", "a"], ["c"]]})) == [["b", "a"], ["c"]]


def test_the_rest_of_a_tier_comes_before_the_next_tier() -> None:
    made = balance("ab", "c", "de")
    for _ in range(50):
        order = made.order(0.0, ())
        assert (set(order[:2]), order[2], set(order[3:])) == ({"a", "b"}, "c", {"d", "e"})


def test_who_does_not_admit_comes_last_in_its_tier() -> None:
    made = balance("abc", "d")
    for _ in range(50):
        assert made.order(0.0, {"b"})[2:] == ["b", "d"]


# --- by weight and load


@pytest.mark.thorough
@pytest.mark.parametrize("rps", [0.5, 5, 50, 500])
@pytest.mark.parametrize("weights", [(3, 1), (10, 1), (1, 1, 1), (3, 2, 5)])
def test_members_of_one_speed_share_by_weight(rps: float, weights: tuple[int, ...]) -> None:
    said = dict(zip("abc", weights, strict=False))
    made = balance("".join(said), **said)
    told = shares(Crowd(made, rps=rps, a=0.5, b=0.5, c=0.5).run(8000 / rps))
    for name, weight in said.items():
        assert told[name] == pytest.approx(100 * weight / sum(weights), abs=3)


def test_a_slow_member_gets_little() -> None:
    made = balance("ab")
    told = shares(Crowd(made, rps=50, a=0.2, b=3.0).run(120))
    assert told["a"] >= 85


def test_one_that_becomes_slow_is_left_before_it_has_answered() -> None:
    made = balance("ab")
    crowd = Crowd(made, rps=50, a=0.2, b=0.2)
    crowd.run(20)
    crowd.latency_s["b"] = 30.0
    told = crowd.run(10)
    assert shares(told)["a"] >= 90
    assert made.loads["b"].in_flight <= 30


def test_one_that_is_quick_again_gets_its_share_back() -> None:
    made = balance("ab")
    crowd = Crowd(made, rps=50, a=0.2, b=3.0)
    crowd.run(60)
    crowd.latency_s["b"] = 0.2
    crowd.run(90)
    assert shares(crowd.run(60))["b"] == pytest.approx(50, abs=10)


def test_a_failure_makes_nobody_look_quick() -> None:
    load = Load()
    load.failed(100.0, 0.001)
    assert not load.known
    load.answered(100.0, 1.0)
    load.failed(100.0, 0.001)
    assert load.peak_s(100.0) == 1.0
    load.failed(100.0, 9.0)
    assert load.peak_s(100.0) == 9.0


def test_the_peak_jumps_up_and_sinks() -> None:
    load = Load()
    load.answered(100.0, 0.2)
    load.answered(100.0, 2.0)
    assert load.peak_s(100.0) == 2.0
    load.answered(101.0, 0.2)
    assert 1.7 < load.peak_s(101.0) < 2.0
    assert load.peak_s(111.0) < 0.8


def test_silence_counts_as_latency() -> None:
    load = Load()
    load.answered(100.0, 0.1)
    assert load.cost(100.0, 0.0, 0.0) == 0.1
    load.began(100.0)
    assert load.cost(105.0, 0.0, 0.0) == 10.0


# --- by key


def test_a_key_stays_and_keys_share_by_weight() -> None:
    made = balance("ab", a=3, b=1)
    first = {key: made.order(0.0, (), digest_of(key), 300)[0] for key in IDS}
    assert shares(Counter(first.values())) == {
        "a": pytest.approx(75, abs=3), "b": pytest.approx(25, abs=3),
    }  # fmt: skip
    other = balance("ab", seed=9, a=3, b=1)  # another worker
    assert all(other.order(0.0, (), digest_of(key))[0] == name for key, name in first.items())


def test_only_the_keys_of_who_is_gone_move() -> None:
    made, other = balance("abc"), balance("abc")
    for key in IDS[:500]:
        before = made.order(0.0, (), digest_of(key))[0]
        after = next(n for n in other.order(0.0, {"b"}, digest_of(key)) if n != "b")
        assert before in ("b", after)


def test_a_key_that_has_moved_does_not_move_back_at_once() -> None:
    made = balance("ab")
    key = next(digest_of(each) for each in IDS if made.order(0.0, (), digest_of(each))[0] == "a")
    assert made.order(1.0, {"a"}, key, 300) == ["a", "b"]  # who does not admit is skipped
    assert made.order(2.0, (), key, 300)[0] == "b"
    assert made.order(303.0, (), key, 300)[0] == "a"


def test_no_more_keys_are_kept_than_fit() -> None:
    made = balance("ab")
    for number in range(MOST_PINS + 500):
        made.order(0.0, (), digest_of(str(number)), 300)
    assert len(made._pins) == MOST_PINS


def test_what_is_known_outlives_an_edit() -> None:
    made = balance("ab")
    made.loads["a"].answered(0.0, 1.0)
    made.edit([["a", "c"]], {"a": 2})
    assert made.loads["a"].known
    assert made.loads["a"].weight == 2
    assert set(made.loads) == {"a", "c"}


# --- the ramp


@pytest.mark.parametrize("percent", [10, 25, 50, 75])
def test_t_fo_26_a_ramp_lets_in_its_share_and_a_key_stays_on_its_side(percent: int) -> None:
    within = [key for key in IDS if share_of(key) < percent]
    assert 100 * len(within) / len(IDS) == pytest.approx(percent, abs=3)
    assert {share_of("user-7") for _ in range(100)} == {share_of("user-7")}
