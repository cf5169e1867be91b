"""All that a study has found, as plots and page look at it. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.study.gradients import Gradient
from model.study.grid import Grid, rate_at
from model.study.memory import Memory
from model.study.plan import (
    DROPOUT_METHOD,
    METHODS,
    Kind,
    Settings,
    Trial,
    batch_kind,
    batch_trial,
    dropout_trial,
    method_kind,
    optimizer_trial,
    seeds,
)
from model.study.search import search
from model.study.statistics import Interval, interval, paired
from model.study.training import Point, Result


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ in their seed alone, in its order."""

    label: str
    trial: Trial
    results: tuple[Result, ...]

    @property
    def test_accuracies(self) -> list[float]:
        """On the test images, at the end, in points of a hundred."""
        return [100 * (result.test_accuracy or 0.0) for result in self.results]

    @property
    def accuracy(self) -> Interval:
        """The mean of them."""
        return interval(self.test_accuracies)

    def minus(self, other: "Group", comparisons: int = 1) -> Interval:
        """By how many points it is better than another, seed by seed."""
        return paired(self.test_accuracies, other.test_accuracies, comparisons)

    def last(self, name: str) -> Interval:
        """A figure of the last evaluation."""
        return interval([getattr(result.points[-1], name) for result in self.results])

    def median(self, name: str, index: int = -1) -> float:
        """A figure of one of the evaluations, the median over seeds."""
        values: list[float] = [getattr(result.points[index], name) for result in self.results]
        return statistics.median(values)

    @property
    def evaluations(self) -> int:
        """How many all runs have; fewer where one diverged."""
        return min(len(result.points) for result in self.results)

    @property
    def diverged(self) -> int:
        """How many runs did."""
        return sum(result.has_diverged for result in self.results)

    def reaching(self, accuracy: float) -> list[Point | None]:
        """Each run's first evaluation with such a validation accuracy."""
        return [
            next((point for point in result.points if point.validation_accuracy >= accuracy), None) for result in self.results
        ]

    def within(self, processor_seconds: float) -> Interval:
        """Validation accuracy at the last evaluation within so much training."""
        return interval(
            [
                100 * [point for point in result.points if point.processor_seconds <= processor_seconds][-1].validation_accuracy
                for result in self.results
            ]
        )


@dataclass(frozen=True, kw_only=True)
class Findings:
    """``facts`` say when, where and by what the study was made."""

    settings: Settings
    facts: Mapping[str, Any]
    results: Mapping[Trial, Result]
    gradients: Sequence[Gradient]
    memory: Sequence[Memory]

    def grids(self) -> dict[Kind, Grid]:
        """The searches for a learning rate."""
        return search(lambda _: self.results, self.settings)

    def rates(self) -> dict[Kind, float]:
        """The chosen ones."""
        return {kind: rate_at(grid.best) for kind, grid in self.grids().items()}

    def _group(self, label: str, trials: Sequence[Trial]) -> Group:
        return Group(label=label, trial=trials[0], results=tuple(self.results[trial] for trial in trials))

    def optimizers(self) -> dict[str, Group]:
        """By method."""
        settings, rates = self.settings, self.rates()
        return {
            name: self._group(
                method.label,
                [optimizer_trial(settings, name, rates[method_kind(settings, name)], seed) for seed in seeds(settings)],
            )
            for name, method in METHODS.items()
        }

    def batches(self) -> dict[int, Group]:
        """By batch size."""
        rates = self.rates()
        return {
            size: self._group(
                f"{size:,}",
                [batch_trial(self.settings, size, rates[batch_kind(size)], seed) for seed in seeds(self.settings)],
            )
            for size in self.settings.all_batch_sizes
        }

    def dropouts(self) -> dict[float, Group]:
        """By dropout rate."""
        rate = self.rates()[method_kind(self.settings, DROPOUT_METHOD)]
        return {
            share: self._group(f"{share:g}", [dropout_trial(self.settings, share, rate, seed) for seed in seeds(self.settings)])
            for share in self.settings.dropout_rates
        }
