import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from rollout.scenarios import latencies
from rollout.statistics import failure_rate, paired_difference, paired_score, requests_needed, tails, wilson


@pytest.mark.parametrize(
    ("gained", "lost", "count", "alpha", "low", "high", "digits"),
    [
        # Airway hyper-responsiveness, Bentur et al. 2009, in Fagerland, Lydersen and Laake 2014.
        (1, 7, 21, 0.025, -0.517, -0.026, 3),
        # scoreci.mp(25, 28, 618) at 90 % of R's PropCIs.
        (28, 25, 618, 0.05, -0.0148, 0.0247, 4),
    ],
)
def test_tango_as_published(gained: int, lost: int, count: int, alpha: float, low: float, high: float, digits: int) -> None:
    found = paired_difference(gained, lost, count, low_alpha=alpha, high_alpha=alpha)
    assert (round(found.low, digits), round(found.high, digits)) == (low, high)


def test_tango_own_example() -> None:
    """Disinfection of contact lenses, Tango 1998: Z = 1.709 at a margin of 0.1."""
    assert paired_score(0, 1, 44, -0.1) == pytest.approx(1.709, abs=5e-4)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 400), st.floats(-0.9, 0.9))
@settings(max_examples=60, deadline=None)
def test_the_score_has_the_most_likely_variance(gained: int, lost: int, same: int, difference: float) -> None:
    count = gained + lost + same

    def unlikely(share_lost: float) -> float:
        share_gained = share_lost + difference
        shares = ((gained, share_gained), (lost, share_lost), (same, 1 - share_gained - share_lost))
        return -sum(number * math.log(max(share, 1e-300)) for number, share in shares if number)

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    best = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    variance = count * (2 * best + difference - difference**2)
    wanted = (gained - lost - count * difference) / math.sqrt(variance)
    assert paired_score(gained, lost, count, difference) == pytest.approx(wanted, rel=1e-3, abs=1e-3)


COUNTS = st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(0, 5000)).filter(any)


@given(COUNTS, st.floats(1e-4, 0.4), st.floats(1e-4, 0.4))
@settings(deadline=None)
def test_paired_difference_is_symmetric_and_ordered(counts: tuple[int, int, int], low_alpha: float, high_alpha: float) -> None:
    gained, lost, count = counts[0], counts[1], sum(counts)
    found = paired_difference(gained, lost, count, low_alpha=low_alpha, high_alpha=high_alpha)
    mirrored = paired_difference(lost, gained, count, low_alpha=high_alpha, high_alpha=low_alpha)
    assert found.low <= found.estimate + 1e-9
    assert found.estimate <= found.high + 1e-9
    assert (found.low, found.high) == pytest.approx((-mirrored.high, -mirrored.low), abs=1e-9)


@given(COUNTS)
@settings(deadline=None)
def test_paired_difference_grows_with_what_is_gained(counts: tuple[int, int, int]) -> None:
    gained, lost, same = counts
    count = gained + lost + same + 1
    fewer = paired_difference(gained, lost, count, low_alpha=0.05, high_alpha=0.01)
    more = paired_difference(gained + 1, lost, count, low_alpha=0.05, high_alpha=0.01)
    assert more.low > fewer.low - 1e-9
    assert more.high > fewer.high - 1e-9


def test_paired_difference_covers_as_promised() -> None:
    """All outcomes of 200 pairs, each with its probability."""
    count, gained_share, lost_share, alpha = 200, 0.04, 0.09, 0.05
    gained, lost = (grid.ravel() for grid in np.mgrid[:41, :61])
    weights = stats.multinomial.pmf(
        np.stack([gained, lost, count - gained - lost], axis=1), count, [gained_share, lost_share, 1 - gained_share - lost_share]
    )
    likely = weights > 1e-9
    found = [
        paired_difference(int(g), int(n), count, low_alpha=alpha, high_alpha=alpha)
        for g, n in zip(gained[likely], lost[likely], strict=True)
    ]
    true = gained_share - lost_share
    for misses in ([interval.low > true for interval in found], [interval.high < true for interval in found]):
        assert weights[likely][misses].sum() == pytest.approx(alpha, abs=0.012)


@pytest.mark.parametrize(("hits", "count"), [(0, 20), (1, 20), (37, 400), (20, 20)])
def test_wilson_as_scipy_has_it(hits: int, count: int) -> None:
    wanted = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    found = wilson(hits, count, alpha=0.05)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_no_failure_of_n_bounds_a_tenth_more_than_the_fixed_test(alpha: float) -> None:
    """Where one look bounds -log(alpha) / n: 3 / n at 5 %."""
    assert failure_rate(0, 10_000, low_alpha=0.005, high_alpha=alpha).high == pytest.approx(
        -math.log(alpha) / 0.9 / 10_000, rel=1e-3
    )


@given(st.integers(0, 5000), st.integers(0, 5000))
@settings(deadline=None)
def test_failure_rate_is_ordered_and_grows(failed: int, answered: int) -> None:
    requests = failed + answered
    found = failure_rate(failed, requests, low_alpha=0.005, high_alpha=0.05)
    more = failure_rate(failed + 1, requests + 1, low_alpha=0.005, high_alpha=0.05)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.low <= more.low
    assert found.high <= more.high
    assert failure_rate(failed, requests + 100, low_alpha=0.005, high_alpha=0.05).high <= found.high


@pytest.mark.parametrize("failed", [0, 1, 5])
def test_requests_needed_is_the_least(failed: int) -> None:
    wanted = requests_needed(failed, 0.001, alpha=0.05)
    assert failure_rate(failed, wanted, low_alpha=0.005, high_alpha=0.05).high <= 0.001
    assert failure_rate(failed, wanted - 1, low_alpha=0.005, high_alpha=0.05).high > 0.001


def test_failure_rate_holds_at_all_times_at_once() -> None:
    """Looked at every 40 requests, which an interval for one look does not survive."""
    generator, rate, alpha, misses, naive = np.random.default_rng(28), 0.02, 0.1, np.zeros(2), 0
    trials, looks = 100, np.arange(40, 801, 40)
    for _ in range(trials):
        failed = (generator.random(800) < rate).cumsum()[looks - 1]
        found = [
            failure_rate(int(number), int(requests), low_alpha=alpha, high_alpha=alpha)
            for number, requests in zip(failed, looks, strict=True)
        ]
        misses += [any(one.low > rate for one in found), any(one.high < rate for one in found)]
        naive += bool((stats.binom.sf(failed - 1, looks, rate) < alpha).any())
    assert (misses / trials <= alpha + 3 * math.sqrt(alpha / trials)).all()
    assert naive / trials > 1.5 * alpha


def test_tails_by_hand() -> None:
    """Each block holds the values 0 to 19 five times, so that every resample has the same 95th percentile."""
    values = np.tile(np.arange(1.0, 21.0), 500)
    found = tails(values, 3 * values)
    assert (found.champion, found.challenger) == (19, 57)
    assert set(found.champions) == {19}
    ratio = found.ratio(low_alpha=0.01, high_alpha=0.01)
    assert (ratio.low, ratio.estimate, ratio.high) == (3, 3, 3)


def test_tails_are_those_of_series_put_together_from_blocks() -> None:
    """The counting beside the plain way: draw, concatenate, sort."""
    generator = np.random.default_rng(1)
    champion, challenger = generator.lognormal(1, 0.5, (2, 2500))
    found = tails(champion, challenger, resamples=50, seed=3)
    drawn = np.random.default_rng(3).integers(50, size=(50, 50))
    for row, blocks in enumerate(drawn):
        for series, percentiles in ((champion, found.champions), (challenger, found.challengers)):
            assert np.sort(series.reshape(50, 50)[blocks].ravel())[-126] == percentiles[row]


def test_tails_cover_the_ratio_of_equals_on_a_busy_machine() -> None:
    """Where the requests of a burst are alike, and single ones drawn by themselves would promise too much."""
    trials, alpha = 100, 0.05
    missed = np.zeros(2)
    for trial in range(trials):
        found = tails(*latencies(2000, np.random.default_rng(trial)), resamples=400).ratio(low_alpha=alpha, high_alpha=alpha)
        missed += [found.low > 1, found.high < 1]
    assert (missed / trials < alpha + 3 * math.sqrt(alpha / trials)).all()
