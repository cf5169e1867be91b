"""The loop as Prometheus saw it: estimate and truth, the drift score, who answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

Line = tuple[list[float], list[float]]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of the loop from ``begun``, seconds since 1970; ``truth`` is the share of right answers of each version in it."""

    name: str
    begun: float
    truth: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is drawn: lines by version of the estimate, the greatest score over its bound, and the share of answers."""

    phases: list[Phase]
    ended: float
    estimates: Mapping[str, Line]
    scores: Mapping[str, Line]
    shares: Mapping[str, Line]


def draw(course: Course, path: Path) -> None:
    """Write a PNG to ``path``."""
    start = course.phases[0].begun
    figure, (accuracy, drift, traffic) = plt.subplots(
        3, 1, figsize=(9, 7), sharex=True, height_ratios=[3, 2, 2], layout="constrained"
    )
    versions = sorted({*course.estimates, *course.scores, *course.shares}, key=int)
    colours = dict(zip(versions, mpl.color_sequences["tab10"], strict=False))
    for axes, lines in ((accuracy, course.estimates), (drift, course.scores), (traffic, course.shares)):
        for version, (times, values) in sorted(lines.items(), key=lambda item: int(item[0])):
            axes.plot(*_broken(times, values, start), color=colours[version], label=f"version {version}")
    for phase, end in zip(course.phases, [*(phase.begun for phase in course.phases[1:]), course.ended], strict=True):
        for version, truth in phase.truth.items():
            ends = [phase.begun - start, end - start]
            accuracy.plot(ends, [truth, truth], color=colours.get(version, "grey"), linestyle=":", linewidth=2)
    accuracy.plot([], [], color="grey", linestyle=":", linewidth=2, label="truth")
    accuracy.set(ylabel="accuracy", title="estimate of accuracy; none while the drift alarm is on", ylim=(None, 1.005))
    drift.axhline(1, color="black", linewidth=0.8)
    drift.set(ylabel="score / bound", yscale="log", title="greatest drift score over its bound; the alarm is on above 1")
    traffic.set(ylabel="share", ylim=(-0.03, 1.03), title="whose answers users got", xlabel="seconds")
    for axes in (accuracy, drift, traffic):
        axes.grid(alpha=0.3)
        for phase in course.phases:
            axes.axvline(phase.begun - start, color="black", linestyle="--", linewidth=0.8)
    for phase in course.phases:
        place = (phase.begun - start, 0.03)
        accuracy.annotate(
            phase.name, place, (3, 0), xycoords=("data", "axes fraction"), textcoords="offset points", rotation=90, va="bottom"
        )
    accuracy.legend(loc="lower right")
    began = datetime.fromtimestamp(start, UTC)
    figure.suptitle(f"From shifted images to a model that knows them, {began:%Y-%m-%d}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _broken(times: list[float], values: list[float], start: float) -> tuple[list[float], list[float]]:
    """Seconds since the start, and values; where there was none for a while, the line is broken."""
    if not times:
        return [], []
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    found_times, found_values, last = [], [], times[0]
    for time, value in zip(times, values, strict=True):
        if time - last > 1.5 * step:
            found_times.append(last - start)
            found_values.append(float("nan"))
        found_times.append(time - start)
        found_values.append(value)
        last = time
    return found_times, found_values
