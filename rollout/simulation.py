"""How often the verdict errs, and how much it takes: many simulated roll-outs.

    python -m rollout.simulation --trials 2000 --output build/simulation

Nothing is asked of any server. The figures go to simulation.json, the plots of docs/rollout.md beside it.
"""

import argparse
import json
import os
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rollout import plots
from rollout.decision import Outcome
from rollout.evidence import GOLDEN
from rollout.scenarios import Ending, Scenario, roll_out
from rollout.statistics import wilson

_TRIALS_AT_ONCE = 25
_PROGRESS_SECONDS = 10.0

# What must hold of the whole verdict: scenario, outcome, and at most or at least which share.
BARS: tuple[tuple[str, Outcome, str, float], ...] = (
    ("equal", Outcome.ROLLBACK, "at most", 0.05),
    ("equal, busy machine", Outcome.ROLLBACK, "at most", 0.05),
    ("equal, both failing", Outcome.ROLLBACK, "at most", 0.05),
    ("equal", Outcome.PROMOTE, "at least", 0.9),
    ("equal, busy machine", Outcome.PROMOTE, "at least", 0.9),
    ("at the margin", Outcome.PROMOTE, "at most", 0.05),
    ("1 point beyond the margin", Outcome.PROMOTE, "at most", 0.05),
    ("at a slice's margin", Outcome.PROMOTE, "at most", 0.05),
    ("at the margin of latency", Outcome.PROMOTE, "at most", 0.05),
    ("at the margin of errors", Outcome.PROMOTE, "at most", 0.05),
    ("1.5 points worse", Outcome.ROLLBACK, "at least", 0.9),
    ("50 ms slower", Outcome.ROLLBACK, "at least", 0.9),
    ("failing 2 %", Outcome.ROLLBACK, "at least", 0.9),
)

# A single challenger each, whose slices are equal where nothing else is said: they neither help to find it out nor hinder.
NAMED = (
    Scenario(name="equal"),
    Scenario(name="equal, busy machine", median_ms=40),
    Scenario(name="equal, both failing", failing=0.002, champion_failing=0.002),
    Scenario(name="at the margin", difference_points={GOLDEN: -1.0}),
    Scenario(name="1 point beyond the margin", difference_points={GOLDEN: -2.0}),
    Scenario(name="at a slice's margin", difference_points={"rotated": -2.0}),
    Scenario(name="at the margin of latency", median_ms=40, ratio=1.25),
    Scenario(name="at the margin of errors", failing=0.001),
    Scenario(name="1.5 points worse", difference_points={GOLDEN: -1.5}),
    Scenario(name="50 ms slower", more_ms=50),
    Scenario(name="failing 2 %", failing=0.02),
)
_DIFFERENCES = (-2.0, -1.75, -1.5, -1.25, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5)
_FAILING = (0.0, 0.0003, 0.001, 0.002, 0.003, 0.005, 0.01, 0.03)
_MORE_MS = (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0)
# Each is one challenger after the other; its key is what changes.
CURVES: dict[str, dict[float, Scenario]] = {
    "difference": {x: Scenario(name=f"difference {x}", difference_points={GOLDEN: x}) for x in _DIFFERENCES},
    "fixed size": {x: Scenario(name=f"fixed {x}", difference_points={GOLDEN: x}, looks=(5000,)) for x in _DIFFERENCES},
    "failing": {x: Scenario(name=f"failing {x}", failing=x) for x in _FAILING},
    "slower": {x: Scenario(name=f"slower {x}", more_ms=x) for x in _MORE_MS},
}


def run(scenario: Scenario, trials: range, seed: int) -> list[Ending]:
    """Each trial has a generator of its own, so that it ends the same among others."""
    key = zlib.crc32(scenario.name.encode())
    return [roll_out(scenario, np.random.default_rng((seed, key, trial))) for trial in trials]


def simulate(scenarios: Sequence[Scenario], trials: int, seed: int) -> dict[str, list[Ending]]:
    """``trials`` of each by its name, on all processors."""
    endings: dict[str, list[Ending]] = {scenario.name: [] for scenario in scenarios}
    parts = [range(start, min(start + _TRIALS_AT_ONCE, trials)) for start in range(0, trials, _TRIALS_AT_ONCE)]
    shown = started = time.monotonic()
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = {pool.submit(run, scenario, part, seed): scenario.name for scenario in scenarios for part in parts}
        for done, job in enumerate(as_completed(jobs), 1):
            endings[jobs[job]] += job.result()
            if time.monotonic() - shown > _PROGRESS_SECONDS or done == len(jobs):
                shown = time.monotonic()
                print(f"{100 * done / len(jobs):.0f} % after {shown - started:.0f} s", file=sys.stderr)
    return endings


def summarise(endings: list[Ending]) -> dict[str, Any]:
    """Shares with their 95 % intervals, and means."""
    count, outcomes = len(endings), Counter(ending.outcome for ending in endings)
    return {
        "trials": count,
        "outcomes": {str(outcome): asdict(wilson(outcomes[outcome], count, alpha=0.05)) for outcome in Outcome},
        "reasons": {reason: times / count for reason, times in Counter(ending.reason for ending in endings).most_common()},
        "images": float(np.mean([ending.images for ending in endings])),
        "requests": float(np.mean([ending.requests for ending in endings])),
    }


def missed(named: dict[str, Any]) -> list[str]:
    """The bars that surely do not hold, given the simulation's own error."""
    lines = []
    for name, outcome, sense, bar in BARS:
        share = named[name]["outcomes"][outcome]
        if share["low"] > bar if sense == "at most" else share["high"] < bar:
            lines.append(f"{name}: {outcome} {100 * share['estimate']:.1f} %, expected {sense} {100 * bar:g} %")
    return lines


def table(named: dict[str, Any]) -> list[str]:
    """The named scenarios in Markdown."""
    rows = ["| challenger | promoted | rolled back | held | golden images |", "|---|---:|---:|---:|---:|"]
    for name, found in named.items():
        shares = (found["outcomes"][outcome] for outcome in Outcome)
        cells = " | ".join(
            f"{100 * share['estimate']:.1f} ({100 * share['low']:.1f} to {100 * share['high']:.1f})" for share in shares
        )
        rows.append(f"| {name} | {cells} | {found['images']:,.0f} |")
    return rows


def main() -> int:
    """Simulate, write, and hold the figures against the bars."""
    parser = argparse.ArgumentParser(description="Simulate whole roll-outs.")
    parser.add_argument("--trials", type=int, default=2000, help="Roll-outs of each named challenger; a quarter for the plots'.")
    parser.add_argument("--seed", type=int, default=28, help="Of all that is drawn.")
    parser.add_argument("--output", type=Path, default=Path("build/simulation"), help="Directory of the figures and plots.")
    arguments = parser.parse_args()
    if arguments.trials < 4:
        parser.error(f"trials: expected 4 or more, got {arguments.trials}")
    named = {name: summarise(found) for name, found in simulate(NAMED, arguments.trials, arguments.seed).items()}
    steps = [scenario for curve in CURVES.values() for scenario in curve.values()]
    found = simulate(steps, arguments.trials // 4, arguments.seed)
    curves = {
        name: [{"x": x, **summarise(found[scenario.name])} for x, scenario in curve.items()] for name, curve in CURVES.items()
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    content = {"seed": arguments.seed, "named": named, "curves": curves}
    Path(arguments.output, "simulation.json").write_text(json.dumps(content, indent=1) + "\n")
    plots.draw(curves, arguments.output)
    print("\n".join([*table(named), *missed(named)]))
    return 1 if missed(named) else 0


if __name__ == "__main__":
    sys.exit(main())
