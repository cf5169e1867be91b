"""Means over seeds with Student's intervals. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean, and what lies within its interval; ``deviation`` is that of the single values."""

    mean: float
    low: float
    high: float
    deviation: float

    @property
    def sign(self) -> int:
        """1 where all of the interval is above 0, -1 where it is below, 0 where 0 is in it."""
        return (self.low > 0) - (self.high < 0)


def interval(values: Sequence[float], comparisons: int = 1) -> Interval:
    """Of two or more values; ``comparisons`` such intervals hold together with 95 % or more (Bonferroni)."""
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    quantile = float(stats.t.ppf(1 - ALPHA / (2 * comparisons), len(values) - 1))
    half = quantile * deviation / math.sqrt(len(values))
    return Interval(mean=mean, low=mean - half, high=mean + half, deviation=deviation)


def paired(values: Sequence[float], others: Sequence[float], comparisons: int = 1) -> Interval:
    """Of the differences between runs of the same seed, which start from the same weights and see the images in one order."""
    return interval([value - other for value, other in zip(values, others, strict=True)], comparisons)
