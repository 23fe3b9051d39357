"""The median of answers in constant memory."""

import random
from itertools import pairwise

import pytest

from proxy.routing.latencies import Latencies, middle_of, place_of


def told(*ms: float, at: float = 1000.0, later: float = 0.0) -> float | None:
    latencies = Latencies(60)
    for each in ms:
        latencies.add(at, each / 1000)
    return latencies.median_ms(at + later)


def test_without_any_there_is_none() -> None:
    assert told() is None
    assert Latencies(60).median_ms(1.0) is None


@pytest.mark.parametrize("ms", [1, 3, 17, 250, 1999, 2001, 9_000, 120_000, 3_600_000])
def test_one_is_told_within_six_percent(ms: float) -> None:
    assert told(ms) == pytest.approx(ms, rel=0.065)


def test_half_took_no_longer() -> None:
    chance = random.Random(7)
    seen = [chance.lognormvariate(6, 1) for _ in range(1001)]
    assert told(*seen) == pytest.approx(sorted(seen)[500], rel=0.065)


@pytest.mark.parametrize(("ms", "place"), [(-1, 0), (0, 0), (0.99, 0), (1, 0), (2, 8), (1e12, 191)])
def test_what_is_out_of_range_is_at_the_end(ms: float, place: int) -> None:
    assert place_of(ms) == place


def test_buckets_touch() -> None:
    places = [place_of(ms / 16) for ms in range(16, 160_000)]
    assert all(after - before in (0, 1) for before, after in pairwise(places))
    assert all(place_of(middle_of(place)) == place for place in range(192))


@pytest.mark.parametrize(
    ("later", "median"), [(59, 100), (61, 100), (119, 100), (121, None), (1e6, None)]
)
def test_what_is_older_than_two_windows_is_forgotten(later: float, median: float | None) -> None:
    found = told(100, later=later)
    assert found is None if median is None else found == pytest.approx(median, rel=0.065)


def test_new_ones_outweigh_the_window_before() -> None:
    latencies = Latencies(60)
    latencies.add(0.0, 0.1)
    latencies.add(61.0, 5.0)
    assert latencies.median_ms(61.0) == pytest.approx(100, rel=0.065), "one of each: the lower one"
    latencies.add(62.0, 5.0)
    assert latencies.median_ms(62.0) == pytest.approx(5000, rel=0.065)
    latencies.add(300.0, 1.0)
    assert latencies.median_ms(300.0) == pytest.approx(1000, rel=0.065)


def test_what_others_have_counted_is_added() -> None:
    latencies = Latencies(60)
    latencies.add_counts(5.0, {place_of(400): 3, 9999: 1, -1: 1})
    assert latencies.median_ms(5.0) == pytest.approx(400, rel=0.065)
