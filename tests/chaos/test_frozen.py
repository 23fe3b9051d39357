"""What is told of a measurement with something frozen: `tests.chaos.frozen`."""

import pytest

from tests.chaos.frozen import Slice, found_of, p99, short_of, table


def turns(*p99_ms: float, failed: int = 0) -> list[Slice]:
    """Not frozen, frozen, and so on; `failed` requests in the last frozen one."""
    slices = [
        Slice("redis", "redis" if at % 2 else "", [1.0] * 98 + [each] * 2)
        for at, each in enumerate(p99_ms)
    ]
    slices[-2].failures += ["TimeoutError"] * failed
    return slices


@pytest.mark.parametrize(
    ("p99_ms", "failed", "added_ms", "noise_ms", "short"),
    [
        ((2, 2, 2),        0,  0.0, 0.0, ""),
        ((2, 2.5, 4),      0, -0.5, 2.0, ""),
        ((2, 5, 2),        0,  3.0, 0.0, "redis frozen: 3.00 ms added to the p99, not 1"),
        ((2, 9, 6),        0,  5.0, 4.0, "redis frozen: 5.00 ms added to the p99, not 1"),
        ((2, 6, 6),        0,  2.0, 4.0, ""),
        ((2, 9, 2, 2.1, 2, 2.1, 2), 0, 0.1, 0.0, ""),
        ((2, 2, 2),        1,  0.0, 0.0, "redis frozen: 1 requests failed"),
    ],
)  # fmt: skip
def test_each_frozen_slice_is_compared_with_its_neighbours(
    p99_ms: tuple[float, ...], failed: int, added_ms: float, noise_ms: float, short: str
) -> None:
    found = found_of("redis", turns(*p99_ms, failed=failed))
    assert (found.added_ms, found.noise_ms) == (pytest.approx(added_ms), noise_ms)
    assert short_of(found) == short


def test_the_table_has_both_kinds_of_slices() -> None:
    rows = [line.split() for line in table(turns(2, 3, 4)).splitlines()[2:4]]
    assert rows == [
        ["redis", "not", "frozen", "200", "0", "1.00", "4.00"],
        ["redis", "frozen", "100", "0", "1.00", "3.00"],
    ]


def test_p99() -> None:
    assert p99([]) == 0
    assert p99([float(each) for each in range(1, 101)]) == 100
