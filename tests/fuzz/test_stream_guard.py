"""T-GR-01, 02, 03, 06: a stream equals its whole text, however it is cut, and nothing leaks early.

Over 100,000 cases in `make test-compiled`, the first of each sort in `make check`; `make fuzz` goes
on for as long as it is told to.
"""

import pytest

from tests.fuzz.guard_cases import random_rules, shapes_of_secrets, shipped_packs
from tests.guardrails.texts import Maker


def seeds(count: int) -> list[object]:
    """The first in every run, the rest in the exhaustive one."""
    rest = [pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, count)]
    return [0, *rest]


def some(seed: int, cases: int) -> int:
    """A third of the cases in the run that everybody waits for."""
    return cases if seed else cases // 3


@pytest.mark.parametrize("seed", seeds(37))
def test_t_gr_01_random_rules(seed: int) -> None:
    seen = random_rules(Maker(seed), some(seed, 2_000))
    assert min(seen[end] for end in ("whole", "blocked", "overflow")) > 0, seen


@pytest.mark.parametrize("seed", seeds(15))
def test_t_gr_01_shapes_of_secrets(seed: int) -> None:
    seen = shapes_of_secrets(Maker(1_000 + seed), some(seed, 1_000))
    assert min(seen[end] for end in ("whole", "blocked", "overflow")) > 0, seen


@pytest.mark.thorough
@pytest.mark.parametrize("seed", seeds(15))
def test_t_gr_01_the_shipped_packs(seed: int) -> None:
    cases = some(seed, 1_000)
    seen = shipped_packs(Maker(2_000 + seed), cases)
    assert seen["whole"] > 0.6 * cases, seen
