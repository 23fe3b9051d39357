"""Probes where requests are rare and come to any worker (failover.md §7.1, §11, §15)."""

import pytest

from tests.app.healing import Outage

BACK_S, ALL_BACK_S = 24.0, 50.0
MOST_TRIED = 10  # of S15


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("every_s", "seeds"),
    [
        (8.0, 1),
        (4.0, 2),
        (1.0, 1),
        pytest.param(8.0, 8, marks=pytest.mark.thorough),
        pytest.param(4.0, 20, marks=pytest.mark.thorough),
        pytest.param(1.0, 8, marks=pytest.mark.thorough),
    ],
)
def test_a_healed_primary_is_soon_asked_again(workers: int, every_s: float, seeds: int) -> None:
    for seed in range(seeds):
        found = Outage(workers, every_s, seed).run()
        assert found.tried <= MOST_TRIED, seed
        assert found.first_s <= BACK_S, seed
        assert found.back_s <= ALL_BACK_S, seed
        assert found.most == 1, seed


@pytest.mark.thorough
@pytest.mark.parametrize("workers", [2, 8])
def test_under_load_one_probe_at_a_time(workers: int) -> None:
    found = Outage(workers, 0.1, 1).run()
    assert found.most == 1
    assert found.first_s <= BACK_S
    assert found.back_s <= ALL_BACK_S
    assert max(found.waits_s) < 4
