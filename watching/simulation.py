"""How often the drift alarm errs, and how soon it is right: simulated months of traffic, and shifts in the middle of it.

    python -m watching.simulation --bundle build/bundle --output build/watching

The alarm is that of helm/chiffre/rules/drift.yaml, whose numbers are read there. Figures go to simulation.json, plots beside it.
"""

import argparse
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from model.bundle import Bundle
from model.shifts import SHIFTS
from watching import estimates, plots, report
from watching.alarm import draw, draw_references, first_alarm, watch
from watching.detector import SCRAPE_SECONDS
from watching.kolmogorov import LOOKS, look
from watching.populations import populate
from watching.report import DAY_SECONDS, MONTH_SECONDS
from watching.rules import read_rules
from watching.traffic import Population, Traffic

_PROGRESS_SECONDS = 10.0
# Independent images; the writers that the design effects are for; and writers who send more, which nothing is tuned to.
TRAFFIC = {"independent": Traffic(), "writers of 3": Traffic(session=3), "writers of 5": Traffic(session=5)}
# Months with which Kolmogorov and Smirnov's thresholds are found.
_REFERENCE_MONTHS = 6
# Six months of the alarm, as a share of months with one.
_ALARMS_A_MONTH = 1 / 6
_SHIFTS = {shift.name: shift for shift in SHIFTS}


@cache
def population(bundle: Path, shift: str) -> Population:
    """Computed once in each process."""
    return populate(Bundle.load(bundle), _SHIFTS.get(shift))


def generator_of(seed: int, name: str, trial: int) -> np.random.Generator:
    """Each trial has one of its own, so that it ends the same among others."""
    return np.random.default_rng((seed, zlib.crc32(name.encode()), trial))


def run_month(bundle: Path, name: str, trial: int, seed: int, seconds: float = MONTH_SECONDS) -> dict[str, Any]:
    """A month in which nothing changes: when the alarm is first on, and which statistic's it is."""
    generator, rules = generator_of(seed, name, trial), read_rules()
    one = population(bundle, "")
    references = draw_references(one, generator)
    found = watch(draw(TRAFFIC[name], [(one, seconds)], generator), rules, references)
    first, statistic = first_alarm(found, rules)
    until = seconds if first is None else first * rules.interval_seconds
    return {"alarm": first is not None, "months": until / MONTH_SECONDS, "statistic": statistic}


def run_reference(bundle: Path, name: str, trial: int, seed: int) -> dict[str, float]:
    """The largest of Kolmogorov and Smirnov's distances in a month, by statistic and window."""
    generator, rules = generator_of(seed, f"reference {name}", trial), read_rules()
    one = population(bundle, "")
    references = draw_references(one, generator)
    found = look(draw(TRAFFIC[name], [(one, MONTH_SECONDS)], generator), references, rules.windows)
    return {"|".join(test): float(distances.max()) for test, distances in found.items()}


def run_shift(
    bundle: Path, name: str, trial: int, seed: int, *, shift: str, thresholds: dict[str, float], seconds: float = DAY_SECONDS
) -> dict[str, Any]:
    """Requests until the alarm is on after ``shift`` begins, and until the reference is; none within a day is None."""
    generator, rules = generator_of(seed, f"{name} {shift}", trial), read_rules()
    before = max(rules.windows.values())
    parts = [(population(bundle, ""), before), (population(bundle, shift), seconds)]
    references = draw_references(parts[0][0], generator)
    drawn = draw(TRAFFIC[name], parts, generator)
    first, statistic = first_alarm(watch(drawn, rules, references), rules, start=before // rules.interval_seconds)
    usual = len(drawn[0].images)
    requests = None
    if first is not None:
        # The last scrape may be as old as the next one is far.
        scraped = first * rules.interval_seconds // SCRAPE_SECONDS + 1
        requests = int(np.searchsorted(drawn[1].counted, scraped))
    looks = []
    for test, distances in look(drawn, references, rules.windows).items():
        window = rules.windows[test[1]]
        asked = window + np.arange(len(distances)) * (window // LOOKS) - usual
        looks += asked[(asked > 0) & (distances > thresholds.get("|".join(test), np.inf))][:1].tolist()
    return {"requests": requests, "statistic": statistic, "reference": min(looks, default=None)}


def simulate(
    jobs: Sequence[tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]]], processes: int
) -> dict[str, list[Any]]:
    """What each function gives, in the order of ``jobs``, by their key."""
    shown = started = time.monotonic()
    results: list[Any] = [None] * len(jobs)
    with ProcessPoolExecutor(processes) as pool:
        running = {pool.submit(function, *words, **named): place for place, (_, function, words, named) in enumerate(jobs)}
        for done, job in enumerate(as_completed(running), 1):
            results[running[job]] = job.result()
            if time.monotonic() - shown > _PROGRESS_SECONDS or done == len(jobs):
                shown = time.monotonic()
                print(f"{100 * done / len(jobs):.0f} % after {shown - started:.0f} s", file=sys.stderr)
    found: dict[str, list[Any]] = {}
    for (key, *_), result in zip(jobs, results, strict=True):
        found.setdefault(key, []).append(result)
    return found


def reference_thresholds(maxima: list[dict[str, float]]) -> dict[str, float]:
    """Of each test, so that all together alarm in as many months; by Gumbel's law of largest values, fitted by its moments."""
    share = _ALARMS_A_MONTH / len(maxima[0])
    thresholds = {}
    for test in maxima[0]:
        values = np.array([month[test] for month in maxima])
        scale = values.std(ddof=1) * np.sqrt(6) / np.pi
        thresholds[test] = float(values.mean() - np.euler_gamma * scale - scale * np.log(-np.log1p(-share)))
    return thresholds


def find(bundle: Path, months: int, runs: int, seed: int, processes: int) -> dict[str, Any]:
    """All figures."""
    one = {"bundle": bundle, "seed": seed}
    lengths = {name: months // 4 if name == "writers of 5" else months for name in TRAFFIC}
    jobs: list[Any] = [
        (f"month|{name}", run_month, (), {**one, "name": name, "trial": trial})
        for name, n in lengths.items()
        for trial in range(n)
    ]
    worst = "writers of 3"
    jobs += [("reference", run_reference, (), {**one, "name": worst, "trial": trial}) for trial in range(_REFERENCE_MONTHS)]
    quiet = simulate(jobs, processes)
    thresholds = reference_thresholds(quiet.pop("reference"))
    jobs = [
        (f"{name}|{shift}", run_shift, (), {**one, "name": name, "trial": trial, "shift": shift, "thresholds": thresholds})
        for shift in _SHIFTS
        for name in ("independent", worst)
        for trial in range(runs)
    ]
    shifted = simulate(jobs, processes)
    return {
        "seed": seed,
        "run_length": {name: report.run_length(quiet[f"month|{name}"]) for name in TRAFFIC},
        "reference_thresholds": thresholds,
        "delays": {key: report.delays(found) for key, found in shifted.items()},
        "estimates": estimates.compare(Bundle.load(bundle)),
    }


def main() -> int:
    """Simulate, write, and hold the figures against the bars."""
    parser = argparse.ArgumentParser(description="Simulate the drift alarm.")
    parser.add_argument("--bundle", type=Path, default=Path("build/bundle"), help="The bundle's directory.")
    parser.add_argument("--months", type=int, default=120, help="Months of each traffic in which nothing changes.")
    parser.add_argument("--runs", type=int, default=20, help="Beginnings of each shift.")
    parser.add_argument("--seed", type=int, default=28, help="Of all that is drawn.")
    processors = len(os.sched_getaffinity(0))
    parser.add_argument("--processes", type=int, default=processors, help="That simulate at the same time.")
    parser.add_argument("--output", type=Path, default=Path("build/watching"), help="Directory of the figures and plots.")
    arguments = parser.parse_args()
    for name in ("months", "runs"):
        if getattr(arguments, name) < 4:
            parser.error(f"{name}: expected 4 or more, got {getattr(arguments, name)}")
    content = find(arguments.bundle, arguments.months, arguments.runs, arguments.seed, arguments.processes)
    arguments.output.mkdir(parents=True, exist_ok=True)
    Path(arguments.output, "simulation.json").write_text(json.dumps(content, indent=1) + "\n")
    plots.draw(content, arguments.output)
    missed = report.missed(content)
    print("\n".join([*report.tables(content), *missed]))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
