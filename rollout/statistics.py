"""Intervals that a verdict stands on; docs/rollout.md says what each is for. numpy and the standard library only."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

_BISECTIONS = 50
# Alternatives that a failure rate is held against, as multiples of it.
_LOWER, _HIGHER = 0.1, (3.0, 10.0, 30.0)
_LEAST_RATE = 1e-12
_QUANTILE = 0.95
# A ratio needs more than nothing.
_LEAST_MS = 1e-3
_TINY = 1e-300


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate between its bounds."""

    estimate: float
    low: float
    high: float


def normal_quantile(alpha: float) -> float:
    """How many standard errors are exceeded with probability ``alpha``, on one side."""
    return NormalDist().inv_cdf(1 - alpha)


def paired_difference(gained: int, lost: int, count: int, *, low_alpha: float, high_alpha: float) -> Interval:
    """The difference of two shares of the same ``count`` things, of which ``gained`` and ``lost`` are what differs.

    Score interval of Tango 1998, Statistics in Medicine 17:891. Each bound fails with its own probability. The score falls as the
    difference grows, so that halving finds the one whose score is as far from 0 as that allows.
    """

    def bound(score: float) -> float:
        low, high = -1.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if paired_score(gained, lost, count, middle) > score else (low, middle)
        return (low + high) / 2

    low, high = bound(normal_quantile(low_alpha)), bound(-normal_quantile(high_alpha))
    return Interval(estimate=(gained - lost) / count, low=low, high=high)


def paired_score(gained: int, lost: int, count: int, difference: float) -> float:
    """Tango's score of a ``difference`` in (-1, 1): standard normal where that is the true one.

    Its standard error is that of the most likely shares among those that differ by ``difference``.
    """
    linear = (2 * count - gained + lost) * difference - gained - lost
    root = math.sqrt(max(linear**2 + 8 * count * lost * difference * (1 - difference), 0))
    variance = count * ((root - linear) / (2 * count) + difference * (1 - difference))
    # Without variance only the difference that was seen is possible.
    return (gained - lost - count * difference) / math.sqrt(max(variance, _TINY))


def wilson(hits: int, count: int, *, alpha: float) -> Interval:
    """The two-sided interval of a share, each bound of which fails with probability ``alpha`` / 2. Wilson 1927."""
    z = normal_quantile(alpha / 2)
    share = hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return Interval(estimate=share, low=max(middle - half, 0.0), high=min(middle + half, 1.0))


def failure_rate(failed: int, requests: int, *, low_alpha: float, high_alpha: float) -> Interval:
    """The rate at which requests fail, with bounds that hold at all times at once, however often they are looked at.

    A rate is out once the data are 1 / alpha times as likely under an alternative to it, which by Ville's inequality happens
    to the true one with probability alpha at most: Wald's sequential test, 1945, Annals of Mathematical Statistics 16:117. The
    upper bound's alternative is a tenth of the rate, so 0 of n bounds about 3.3 / n (alpha 5 %); the lower bound's are
    several of its multiples, in equal parts.
    """

    def too_high(rate: float) -> bool:
        return _advantage(failed, requests, rate, (_LOWER,)) >= -math.log(high_alpha)

    def too_low(rate: float) -> bool:
        return _advantage(failed, requests, rate, _HIGHER) >= -math.log(low_alpha)

    high = _threshold(too_high) if failed < requests else 1.0
    low = _threshold(lambda rate: not too_low(rate)) if failed and too_low(_LEAST_RATE) else 0.0
    return Interval(estimate=failed / requests if requests else 0.0, low=low, high=high)


def requests_needed(failed: int, rate: float, *, alpha: float) -> int:
    """Of how many requests with ``failed`` failures the upper bound is at most ``rate``."""
    survival = (_LOWER - 1) * math.log1p(-rate)
    return failed + math.ceil((-math.log(alpha) - failed * _gain(rate, _LOWER)) / survival)


def _advantage(failed: int, requests: int, rate: float, multiples: tuple[float, ...]) -> float:
    """Logarithm of how much more likely the data are at ``multiples`` of ``rate``, on average.

    The multiple c is 1 - (1 - rate)^c, which stays below 1. What is returned grows with ``rate`` for a multiple below 1, and
    falls for those above.
    """
    survival = math.log1p(-rate)
    each = [failed * _gain(rate, multiple) + (requests - failed) * (multiple - 1) * survival for multiple in multiples]
    largest = max(each)
    return largest + math.log(math.fsum(math.exp(value - largest) for value in each) / len(each))


def _gain(rate: float, multiple: float) -> float:
    """What one failure adds to it."""
    return math.log(-math.expm1(multiple * math.log1p(-rate)) / rate)


def _threshold(holds: Callable[[float], bool]) -> float:
    """The rate from which on ``holds`` does."""
    low, high = _LEAST_RATE, 1 - _LEAST_RATE
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@dataclass(frozen=True, kw_only=True)
class Tails:
    """95th percentiles of two series, and of ``resamples`` that their like could have been, (n,) each."""

    champion: float
    challenger: float
    champions: Array
    challengers: Array

    def ratio(self, *, low_alpha: float, high_alpha: float) -> Interval:
        """The challenger's over the champion's."""
        return _percentiles(self.challenger / self.champion, self.challengers / self.champions, low_alpha, high_alpha)

    def difference(self, *, low_alpha: float, high_alpha: float) -> Interval:
        """By how much the challenger's is more."""
        return _percentiles(self.challenger - self.champion, self.challengers - self.champions, low_alpha, high_alpha)


def _percentiles(estimate: float, resampled: Array, low_alpha: float, high_alpha: float) -> Interval:
    low, high = np.quantile(resampled, [low_alpha, 1 - high_alpha])
    return Interval(estimate=estimate, low=float(low), high=float(high))


def tails(champion: Array, challenger: Array, *, resamples: int = 2000, seed: int = 0) -> Tails:
    """95th percentiles of latencies (n,) that were taken in turns, with a bootstrap over blocks of them.

    A machine's noise comes in bursts that last over many requests and hit both: whole blocks are drawn, sqrt(n) of about as many
    requests each (Carlstein 1986, Annals of Statistics 14:1171; Künsch 1989, 17:1217), and the same ones of both series.
    """
    assert champion.shape == challenger.shape
    blocks = math.isqrt(len(champion))
    length = len(champion) // blocks
    times = _draw(blocks, resamples, seed)
    first, second = (
        _weighted_tail(np.maximum(series[-blocks * length :], _LEAST_MS), times) for series in (champion, challenger)
    )
    return Tails(champion=float(first[0]), challenger=float(second[0]), champions=first[1:], challengers=second[1:])


@cache
def _draw(blocks: int, resamples: int, seed: int) -> Floats:
    """How often each of ``blocks`` is drawn: (1 + resamples, blocks), the first row being the data as they are."""
    drawn = np.random.default_rng(seed).integers(blocks, size=(resamples, blocks)) + blocks * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * blocks).reshape(resamples, blocks)
    return np.concatenate([np.ones((1, blocks)), counts]).astype(np.float32)


def _weighted_tail(values: Array, times: Floats) -> Array:
    """The 95th percentile of ``values`` (n,) when their blocks count ``times`` (resamples, blocks) each: (resamples,).

    Counted from the largest value downwards, by halving. The counts are small enough to be exact.
    """
    count, blocks = len(values), times.shape[1]
    largest = np.argsort(-values, kind="stable")
    of_blocks = (largest[:, None] // (count // blocks) == np.arange(blocks)).astype(np.float32).cumsum(axis=0)
    low, high = np.zeros(len(times), int), np.full(len(times), count - 1)
    for _ in range(count.bit_length()):
        middle = (low + high) // 2
        over = np.einsum("rb,rb->r", times, of_blocks[middle]) > count * (1 - _QUANTILE)
        low, high = np.where(over, low, middle + 1), np.where(over, middle, high)
    tail: Array = values[largest[high]]
    return tail
