"""How often ChiffreFeedbackAccuracyLow errs, simulated with the figures of its rule; docs/feedback.md states what comes out."""

import re

import numpy as np
import pytest
import yaml

from tests.processes import ROOT

VALIDATION, DAYS, MONTHS = 0.98, 30, 300
RULES = {
    rule.get("alert") or rule["record"]: rule["expr"]
    for rule in yaml.safe_load((ROOT / "helm" / "chiffre" / "rules" / "feedback.yaml").read_text())["rules"]
}


def number(pattern: str, rule: str) -> float:
    (found,) = re.findall(pattern, RULES[rule])
    return float(found)


MARGIN = number(r"- (0\.\d+)$", "chiffre:feedback_accuracy_floor")
LEAST = number(r">= (\d+)$", "ChiffreFeedbackAccuracyLow")
Z = number(r"([\d.]+) \* sqrt", "chiffre:feedback_accuracy_upper")


def first_alarm(random: np.random.Generator, accuracy: float, answers_a_day: int) -> float:
    """The day of the first alarm in a month of answers that come at any time, looked at with each; infinity for none."""
    times = np.cumsum(random.exponential(1 / answers_a_day, int(answers_a_day * DAYS * 1.5)))
    times = times[times < DAYS]
    right = np.concatenate([[0], np.cumsum(random.random(len(times)) < accuracy)])
    stop = np.arange(1, len(times) + 1)
    start = np.searchsorted(times, times - 1)
    images = stop - start
    share = (right[stop] - right[start]) / images
    spread = Z * np.sqrt(share * (1 - share) / images + Z**2 / 4 / images**2)
    upper = (share + Z**2 / 2 / images + spread) / (1 + Z**2 / images)
    alarms = times[(images >= LEAST) & (upper < VALIDATION - MARGIN)]
    return float(alarms[0]) if len(alarms) else np.inf


@pytest.mark.parametrize(
    ("answers_a_day", "accuracy", "least", "most"),
    [(50, 0.98, 0, 0.1), (100, 0.98, 0, 0.05), (300, 0.98, 0, 0.01), (100, 0.95, 0.9, 1), (50, 0.9, 1, 1), (100, 0.9, 1, 1)],
)
def test_a_month_has_an_alarm_where_there_is_cause(answers_a_day: int, accuracy: float, least: float, most: float) -> None:
    random = np.random.default_rng(8)
    days = [first_alarm(random, accuracy, answers_a_day) for _ in range(MONTHS)]
    assert least <= np.isfinite(days).mean() <= most, np.isfinite(days).mean()
    if accuracy < VALIDATION - MARGIN:
        assert np.median(days) < 2
