"""The learning rates of a study: one grid for each method and for each batch size, all searched at once."""

import math
from collections.abc import Callable, Mapping, Sequence

from model.study.grid import Grid, rate_at
from model.study.plan import BATCH_SIZE, METHODS, Kind, Settings, Trial, grid_trial, grids
from model.study.training import Result


def middle(kind: Kind) -> int:
    """Where a grid starts: the method's own rung, half a decade lower or higher for each decade of the batch size from 128.

    That is the square-root rule (Krizhevsky 2014); where it is wrong, the grid is extended.
    """
    method = METHODS[kind.method]
    return method.middle if method.optimizer == "gd" else method.middle + int(math.log10(kind.batch_size / BATCH_SIZE))


def search(run: Callable[[Sequence[Trial]], Mapping[Trial, Result]], settings: Settings) -> dict[Kind, Grid]:
    """All grids, extended until their best rates have neighbours or the extensions are used up; ``run`` gives trials' results."""
    found = {kind: Grid(middle=middle(kind), losses={}) for kind in grids(settings)}
    while trials := {
        (kind, rung): grid_trial(settings, kind, rate_at(rung)) for kind, grid in found.items() for rung in grid.missing()
    }:
        results = run(list(trials.values()))
        for (kind, rung), trial in trials.items():
            losses = {**found[kind].losses, rung: loss_of(results[trial])}
            found[kind] = Grid(middle=found[kind].middle, losses=losses)
    return found


def loss_of(result: Result) -> float:
    """What a rate is judged by: the validation loss at the end."""
    return math.inf if result.has_diverged else result.points[-1].validation_loss


def trials_of(settings: Settings, searched: Mapping[Kind, Grid]) -> list[Trial]:
    """All runs that the grids consist of."""
    trials = [grid_trial(settings, kind, rate_at(rung)) for kind, grid in searched.items() for rung in sorted(grid.losses)]
    return list(dict.fromkeys(trials))
