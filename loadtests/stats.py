"""Medians, percentiles, ratios and windows of time; nothing here knows of PostgreSQL."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds and how far they lie apart."""

    median: float
    low: float
    high: float
    count: int

    @property
    def noise(self) -> float:
        """(max - min) / median: 0.1 means that rounds differ by 10 %."""
        return (self.high - self.low) / self.median if self.median else 0.0


def spread(values: Sequence[float]) -> Spread | None:
    """Median, minimum and maximum; None of nothing."""
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def ratio(values: dict[int, float], base: dict[int, float]) -> Spread | None:
    """`values` in relation to `base`, both by round.

    The median is that of the medians (one bad round of one target does not move
    it); low and high are of the ratios within each round, whose two runs were
    neighbours in time.
    """
    common = sorted(set(values) & set(base))
    pairs = [values[n] / base[n] for n in common if base[n]]
    below = statistics.median(base.values()) if base else 0.0
    if not pairs or not below:
        return None
    return Spread(statistics.median(values.values()) / below, min(pairs), max(pairs), len(pairs))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` (0 … 1) of an ascending sequence lies (nearest rank)."""
    if not ordered:
        raise ValueError("percentile of nothing")
    # 0.07 * 100 is a little more than 7
    rank = math.ceil(share * len(ordered) - 1e-9)
    return ordered[max(1, min(len(ordered), rank)) - 1]


@dataclass(frozen=True, slots=True)
class Reading:
    """A counter read at a time (seconds since the epoch)."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two readings: how much the counter grew, how many events fell inside."""

    start: float
    end: float
    growth: float
    events: int

    @property
    def seconds(self) -> float:
        return self.end - self.start


def steady_window(readings: Sequence[Reading], events: Sequence[float], settle_s: float) -> Window | None:
    """The widest pair of readings within a run's steady part, and the events between them.

    `events` are times of completion, ascending.  The steady part begins `settle_s`
    after the first event, so that logins and first plans are not counted as work,
    and ends with the last.  None if no two readings lie in it.
    """
    if not events:
        return None
    inside = [r for r in readings if events[0] + settle_s <= r.at <= events[-1]]
    if len(inside) < 2:
        return None
    first, last = inside[0], inside[-1]
    count = bisect_right(events, last.at) - bisect_left(events, first.at)
    if not count:
        return None
    return Window(first.at, last.at, last.value - first.value, count)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least-squares growth of y per unit of x; 0 for fewer than two points."""
    if len(points) < 2:
        return 0.0
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    denominator = sum((x - mean_x) ** 2 for x, _ in points)
    if not denominator:
        return 0.0
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / denominator
