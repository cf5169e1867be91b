"""The simulation's figures: run lengths and delays with their intervals, tables, and the bars that they are held against."""

from collections import Counter
from typing import Any

import numpy as np
from scipy.stats import chi2

from rollout.statistics import wilson

DAY_SECONDS = 86_400.0
MONTH_SECONDS = 30 * DAY_SECONDS

# Months of 30 days at a request a second until the alarm is wrongly on.
RUN_LENGTH_BARS = {"independent": 1.0, "writers of 3": 1.0}
# Within so many requests the alarm must be on, in at least such a share of cases.
_SOON_REQUESTS, _SOON_SHARE = 500, 0.95
SOON = ("rotation 20°", "polarity 1")
_ESTIMATE_BAR = 0.5


def run_length(months: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean months until the alarm, from months that end at the first one; with its 95 % interval, as of a Poisson process."""
    time, alarms = sum(month["months"] for month in months), sum(month["alarm"] for month in months)
    return {
        "months": len(months),
        "alarms": alarms,
        "estimate": time / alarms if alarms else None,
        "low": float(2 * time / chi2.ppf(0.975, 2 * alarms + 2)),
        "high": float(2 * time / chi2.ppf(0.025, 2 * alarms)) if alarms else None,
        "statistics": dict(Counter(month["statistic"] for month in months if month["alarm"])),
    }


def delays(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and 95th percentile of the requests until the alarm, None beyond a day; and the reference's median."""
    found = [np.inf if run["requests"] is None else run["requests"] for run in runs]
    theirs = [np.inf if run["reference"] is None else run["reference"] for run in runs]
    soon = wilson(int(np.sum(np.array(found) <= _SOON_REQUESTS)), len(runs), alpha=0.05)
    return {
        "runs": len(runs),
        "median": _finite(np.quantile(found, 0.5, method="higher")),
        "percentile_95": _finite(np.quantile(found, 0.95, method="higher")),
        "soon": {"estimate": soon.estimate, "low": soon.low, "high": soon.high},
        "statistics": dict(Counter(run["statistic"] for run in runs if run["statistic"])),
        "reference_median": _finite(np.quantile(theirs, 0.5, method="higher")),
    }


def _finite(requests: float) -> float | None:
    return float(requests) if np.isfinite(requests) else None


def missed(content: dict[str, Any]) -> list[str]:
    """The bars that surely do not hold, given the simulation's own error."""
    lines = []
    for name, bar in RUN_LENGTH_BARS.items():
        high = content["run_length"][name]["high"]
        if high is not None and high < bar:
            lines.append(f"{name}: an alarm every {content['run_length'][name]['estimate']:.2f} months, expected {bar:g} or more")
    for key, row in content["delays"].items():
        if key.split("|")[1] in SOON and row["soon"]["high"] < _SOON_SHARE:
            lines.append(f"{key}: found within {_SOON_REQUESTS} requests in {100 * row['soon']['estimate']:.0f} %, expected 95")
    errors = content["estimates"]["mean_absolute_error"]
    if errors["estimate"] > _ESTIMATE_BAR * errors["constant"]:
        lines.append(f"estimate: mean absolute error {errors['estimate']:.3f}, expected at most half of {errors['constant']:.3f}")
    return lines


def tables(content: dict[str, Any]) -> list[str]:
    """Run lengths, delays and estimates in Markdown."""
    rows = ["| traffic | months | alarms | months until an alarm (95 %) |", "|---|---:|---:|---:|"]
    for name, row in content["run_length"].items():
        mean = "none" if row["estimate"] is None else f"{row['estimate']:.1f}"
        high = "" if row["high"] is None else f" to {row['high']:.1f}"
        rows.append(f"| {name} | {row['months']} | {row['alarms']} | {mean} ({row['low']:.1f}{high}) |")
    rows += ["", "| shift | independent | writers of 3 | first | Kolmogorov-Smirnov |", "|---|---:|---:|---|---:|"]
    for key, row in content["delays"].items():
        name, shift = key.split("|")
        if name == "independent":
            other = content["delays"][f"writers of 3|{shift}"]
            first = max(other["statistics"], key=other["statistics"].get, default="")
            rows.append(f"| {shift} | {_spread(row)} | {_spread(other)} | {first} | {_requests(other['reference_median'])} |")
    rows += ["", "| shift | accuracy | estimate | sampling error | confidence alone |", "|---|---:|---:|---:|---:|"]
    found = content["estimates"]
    for shift, row in found["shifts"].items():
        rows.append(
            f"| {shift} | {row['truth']:.3f} | {row['estimate']:.3f} | {row['sampling_error']:.4f} | {row['plain']:.3f} |"
        )
    errors = found["mean_absolute_error"]
    ratio = errors["estimate"] / errors["constant"]
    rows += ["", ", ".join(f"{guess} {error:.4f}" for guess, error in errors.items()) + f": {ratio:.2f} of the constant's"]
    return rows


def _spread(row: dict[str, Any]) -> str:
    return f"{_requests(row['median'])} ({_requests(row['percentile_95'])})"


def _requests(count: float | None) -> str:
    return "beyond a day" if count is None else f"{count:,.0f}"
