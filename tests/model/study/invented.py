"""Findings that no run has made, to see what is said of them."""

from collections.abc import Callable
from typing import Any

from model.study.findings import Findings
from model.study.gradients import Gradient
from model.study.grid import rate_at
from model.study.memory import Memory
from model.study.plan import Kind, Settings, Trial, reported_trials
from model.study.search import middle, search, trials_of
from model.study.training import Point, Result, evaluation_steps

SETTINGS = Settings(seeds=5, epochs=4, batch_sizes=(1, 128), dropout_rates=(0.0, 0.2, 0.5))
FACTS = {
    "command": "python -m model compare",
    "date": "2026-11-25",
    "elapsed_minutes": 12.3,
    "processor_minutes": 20.1,
    "core_share": 0.8,
    "jobs": 2,
    "processors": 2,
    "processor": "a processor",
    "torch": "2.13.0",
    "revisions": ["0123456789abcdef"],
    "data_digest": "ab" * 32,
}

Share = Callable[[Trial], float]


def by_method(trial: Trial) -> float:
    """All ends apart, and further than seeds scatter."""
    return {"gd": 0.91, "sgd": 0.95, "momentum": 0.96, "nesterov": 0.97, "rmsprop": 0.975, "adam": 0.98}[trial.method]


def result(trial: Trial, end: float, *, seconds: float, rise: float) -> Result:
    """Accuracies that approach ``end``, scattered by seed, and losses of which that on validation images rises by ``rise``."""
    steps = [0, *evaluation_steps(trial, SETTINGS)]
    accuracies = [end + 0.0001 * trial.seed - 0.3 * (1 - index / (len(steps) - 1)) for index in range(len(steps))]
    points = tuple(
        Point(
            step=step,
            epoch=trial.epochs * step / steps[-1],
            wall_seconds=seconds * index / (len(steps) - 1),
            processor_seconds=seconds * index / (len(steps) - 1),
            train_loss=1 - accuracy + 0.001,
            train_accuracy=accuracy + 0.01,
            validation_loss=1 - accuracy + 0.01 + (rise if step == steps[-1] else 0),
            validation_accuracy=accuracy,
        )
        for index, (step, accuracy) in enumerate(zip(steps, accuracies, strict=True))
    )
    return Result(points=points, test_accuracy=accuracies[-1] if trial.is_tested else None, has_diverged=False)


def findings(end: Share = by_method, *, seconds: Share = lambda _: 10.0, rise: float = 0.0, **other: Any) -> Findings:
    """Of runs that end at ``end`` accuracy; grids are best in their middles."""

    def tried(trials: Any) -> dict[Trial, Result]:
        rates = {trial: rate_at(middle(Kind("optimizers", trial.method, trial.batch_size))) for trial in trials}
        return {
            trial: result(trial, 0.9 if trial.learning_rate == rate else 0.8, seconds=1, rise=0) for trial, rate in rates.items()
        }

    searched = search(tried, SETTINGS)
    results = tried(trials_of(SETTINGS, searched))
    rates = {kind: rate_at(grid.best) for kind, grid in searched.items()}
    for trial in reported_trials(SETTINGS, rates):
        results[trial] = result(trial, end(trial), seconds=seconds(trial), rise=rise)
    gradients = [
        Gradient(
            images=size,
            vectorised_ms=1.0,
            loop_ms=float(size),
            ratio=float(size),
            least_ratio=1.0,
            greatest_ratio=40.0,
            difference=1e-7,
        )
        for size in (1, 32)
    ]
    memory = [
        Memory(batch_size=size, chunk=chunk, baseline_mib=400.0, median_mib=peak, least_mib=peak, greatest_mib=peak + 1, rounds=3)
        for size, chunk, peak in ((128, 128, 10.0), (50_000, 5_000, 40.0), (50_000, 50_000, 400.0))
    ]
    found = {"settings": SETTINGS, "facts": FACTS, "results": results, "gradients": gradients, "memory": memory}
    return Findings(**{**found, **other})
