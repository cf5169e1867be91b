"""Intervals over seeds, beside scipy's own."""

import numpy as np
import pytest
from scipy import stats

from model.study.statistics import interval, paired

VALUES = [97.9, 98.1, 98.0, 98.3, 97.8]
OTHERS = [97.5, 97.9, 97.7, 97.9, 97.6]


def test_an_interval_is_student_s() -> None:
    found = interval(VALUES)
    expected = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(np.mean(VALUES))
    assert found.deviation == pytest.approx(np.std(VALUES, ddof=1))


def test_differences_are_taken_pair_by_pair() -> None:
    found = paired(VALUES, OTHERS)
    expected = stats.ttest_rel(VALUES, OTHERS).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.sign == 1
    assert paired(OTHERS, VALUES).sign == -1
    assert paired(VALUES, VALUES[::-1]).sign == 0


def test_intervals_that_hold_together_are_wider() -> None:
    expected = stats.ttest_1samp(VALUES, 0).confidence_interval(1 - 0.05 / 5)
    assert interval(VALUES, comparisons=5).high == pytest.approx(expected.high)


def test_five_intervals_hold_together_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    runs = rng.standard_normal((400, 5, 5))
    missed = sum(any(interval(list(values), comparisons=5).sign for values in run) for run in runs)
    assert missed <= 0.05 * len(runs) + 3 * (0.05 * 0.95 * len(runs)) ** 0.5
