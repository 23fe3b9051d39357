"""Wilson's bound at the figures of failover.md T-FO-14, and a window that forgets."""

import pytest

from proxy.routing.window import ATTEMPTS, ERRORS, OUTCOMES, VERDICTS, Window, lower_bound

# fmt: off
BOUNDS = [
    # n,  k,  bound, over 0.1
    (10,  2,  .0686, False), (10,  3,  .1269, True),
    (20,  4,  .0931, False), (20,  5,  .1274, True),
    (30,  3,  .0407, False), (30,  6,  .1071, True),
    (100, 15, .1005, True),
    (300, 38, .0984, False), (300, 39, .1013, True),
]
SLOW = [
    # n, k,  bound, at least 0.5
    (10, 7,  .4417, False), (10, 8,  .5408, True), (10, 10, .7870, True),
    (70, 41, .4874, False), (70, 42, .5017, True),
]
LEAST = {10: 3, 20: 5, 30: 6, 50: 9, 100: 15, 200: 27, 300: 39, 600: 73, 1000: 116}
# fmt: on


@pytest.mark.parametrize(("n", "k", "bound", "over"), BOUNDS)
def test_t_fo_14_errors(n: int, k: int, bound: float, over: bool) -> None:
    assert lower_bound(k, n, 0.95) == pytest.approx(bound, abs=1e-4)
    assert (lower_bound(k, n, 0.95) > 0.1) is over


@pytest.mark.parametrize(("n", "k", "bound", "over"), SLOW)
def test_t_fo_14_slow(n: int, k: int, bound: float, over: bool) -> None:
    assert lower_bound(k, n, 0.95) == pytest.approx(bound, abs=1e-4)
    assert (lower_bound(k, n, 0.95) >= 0.5) is over


@pytest.mark.parametrize(("n", "k"), LEAST.items())
def test_t_fo_14_the_least_that_trips(n: int, k: int) -> None:
    over = [each for each in range(n + 1) if lower_bound(each, n, 0.95) > 0.1]
    assert over[0] == k


def test_t_fo_18_without_confidence_it_is_the_ratio() -> None:
    assert lower_bound(11, 100, 0) == 0.11
    assert lower_bound(10, 100, 0) == 0.1
    assert lower_bound(0, 0, 0.95) == 0


def test_t_fo_17_what_is_too_old_is_forgotten() -> None:
    window = Window(60)
    for second in range(100):
        window.add(1000.5 + second, ATTEMPTS, OUTCOMES)
        window.add(1000.6 + second, ATTEMPTS, OUTCOMES, ERRORS)
    assert (window.totals[OUTCOMES], window.totals[ERRORS]) == (120, 60)
    window.advance(1099.9 + 30)
    assert (window.totals[OUTCOMES], window.totals[ERRORS]) == (60, 30)
    window.advance(1099.5 + 61)
    assert not any(window.totals)


def test_a_clock_that_stands_still_or_jumps_far() -> None:
    window = Window(10)
    window.add(5.0, ATTEMPTS)
    window.add(4.0, ATTEMPTS)
    assert window.totals[ATTEMPTS] == 2
    window.add(1e9, ATTEMPTS)
    assert window.totals[ATTEMPTS] == 1


@pytest.mark.parametrize("quick", [True, False])
def test_a_good_sample_counts_like_any_other(quick: bool) -> None:
    short, long = Window(10), Window(10)
    told = [ATTEMPTS, OUTCOMES, *([VERDICTS] if quick else [])]
    for now in (5.0, 5.5, 6.0, 14.9, 15.0, 16.2, 40.0, 40.1):
        short.add_good(now, quick)
        long.add(now, *told)
        assert short.totals == long.totals
    short.add(41.0, ERRORS)
    assert not short.is_clean
    short.advance(60.0)
    assert short.is_clean
    assert short.is_empty
    short.add_good(61.0, quick)
    assert short.totals[OUTCOMES] == 1
