"""Medians, quartiles, percentiles, slopes: the arithmetic of the tables, and nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @property
    def iqr(self) -> float:
        return self.high - self.low


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below or at which `percent` of all stand, between neighbours in proportion."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def spread(values: Sequence[float]) -> Spread:
    return Spread(percentile(values, 50), percentile(values, 25), percentile(values, 75))


def paired(ours: dict[int, float], theirs: dict[int, float]) -> list[float]:
    """Our figure over theirs, round by round, where both ran."""
    return [ours[one] / theirs[one] for one in sorted(ours) if theirs.get(one)]


def deltas(ours: dict[int, float], theirs: dict[int, float]) -> list[float]:
    """Our figure less theirs, round by round, where both ran."""
    return [ours[one] - theirs[one] for one in sorted(ours) if one in theirs]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The rise per unit of the straight line through `points` that misses them least."""
    count = len(points)
    if count < 2:
        return math.nan
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    width = sum((x - mean_x) ** 2 for x, _ in points)
    if not width:
        return math.nan
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / width


def worst_residual(points: Sequence[tuple[float, float]]) -> float:
    """How far the worst point lies from the straight line, as a share of its own height."""
    rise = slope(points)
    base = sum(y - rise * x for x, y in points) / len(points)
    return max(abs(y - base - rise * x) / y for x, y in points)
