"""The median of answers in constant memory."""

import random

import pytest

from proxy.routing.latencies import Latencies

WITHIN = 0.065


def told(*ms: float, at: float = 1000.0, later: float = 0.0) -> float | None:
    latencies = Latencies(60)
    for each in ms:
        latencies.add(at, each / 1000)
    return latencies.median_ms(at + later)


def test_without_any_there_is_none() -> None:
    assert told() is None
    assert Latencies(60).median_ms(1.0) is None


@pytest.mark.parametrize("ms", [8, 17, 250, 1999, 2001, 9_000, 120_000, 3_600_000, 16_000_000])
def test_one_is_told_within_six_percent(ms: float) -> None:
    assert told(ms) == pytest.approx(ms, rel=WITHIN)


@pytest.mark.parametrize("ms", [-1, 0, 0.4, 1, 2, 3, 5, 7])
def test_very_short_ones_are_told_within_a_millisecond(ms: float) -> None:
    assert told(ms) == pytest.approx(max(ms, 1), abs=1)


def test_what_is_out_of_range_is_at_the_end() -> None:
    assert told(1e12) == told(16_777_215.4)


def test_half_took_no_longer() -> None:
    chance = random.Random(7)
    seen = [chance.lognormvariate(6, 1) for _ in range(1001)]
    assert told(*seen) == pytest.approx(sorted(seen)[500], rel=WITHIN)


def test_longer_is_never_told_as_shorter() -> None:
    medians = [told(ms) or 0.0 for ms in range(1, 5000)]
    assert medians == sorted(medians)


@pytest.mark.parametrize(
    ("later", "median"), [(59, 100), (61, 100), (119, 100), (121, None), (1e6, None)]
)
def test_what_is_older_than_two_windows_is_forgotten(later: float, median: float | None) -> None:
    found = told(100, later=later)
    assert found is None if median is None else found == pytest.approx(median, rel=WITHIN)


def test_new_ones_outweigh_the_window_before() -> None:
    latencies = Latencies(60)
    latencies.add(0.0, 0.1)
    latencies.add(61.0, 5.0)
    assert latencies.median_ms(61.0) == pytest.approx(100, rel=WITHIN), "one of each: the lower one"
    latencies.add(62.0, 5.0)
    assert latencies.median_ms(62.0) == pytest.approx(5000, rel=WITHIN)
    latencies.add(300.0, 1.0)
    assert latencies.median_ms(300.0) == pytest.approx(1000, rel=WITHIN)


def test_a_worker_tells_each_once_and_another_process_adds_them() -> None:
    worker, node = Latencies(60), Latencies(60)
    for at in (1000.0, 1059.0, 1061.0):  # the last one in the next generation
        worker.add(at, 0.4)
    counts = worker.take()
    assert (list(counts.values()), worker.take()) == ([3], {})
    worker.add(1062.0, 0.4)
    assert list(worker.take().values()) == [1]
    node.put(5.0, {**counts, 9999: 1, -2: 1})
    assert node.median_ms(5.0) == pytest.approx(400, rel=WITHIN)
    assert node.take() == {}, "what was told is not told back"
    worker.wholes += 2
    node.put(5.0, worker.take())
    assert (node.wholes, worker.take(), node.take()) == (2, {}, {})
    node.add(6.0, 0.4)
    assert list(node.take().values()) == [1]
