"""The ladder of learning rates, and how far it is climbed."""

import math

import pytest

from model.study.grid import MOST_EXTENSIONS, Grid, rate_at
from model.study.plan import METHODS, Settings, Trial, grid_trial, grids, reported_trials
from model.study.search import search, trials_of
from model.study.training import Point, Result


def test_rungs_are_half_decades() -> None:
    assert [rate_at(rung) for rung in range(-4, 3)] == [0.01, 0.03, 0.1, 0.3, 1, 3, 10]


def test_a_new_grid_tries_three_rates_around_its_middle() -> None:
    assert Grid(middle=-2, losses={}).missing() == [-3, -2, -1]


@pytest.mark.parametrize(
    ("losses", "missing"),
    [
        ({-3: 0.3, -2: 0.2, -1: 0.3}, []),
        ({-3: 0.1, -2: 0.2, -1: 0.3}, [-4]),
        ({-3: 0.3, -2: 0.2, -1: 0.1}, [0]),
        ({-3: 0.3, -2: math.inf, -1: math.inf}, [-4]),
        # The lower one of two equals.
        ({-3: 0.1, -2: 0.1, -1: 0.3}, [-4]),
    ],
)
def test_an_optimum_at_an_edge_extends_the_grid(losses: dict[int, float], missing: list[int]) -> None:
    assert Grid(middle=-2, losses=losses).missing() == missing


def results(settings: Settings, trials: list[Trial], best: float) -> dict[Trial, Result]:
    """Losses that are least at the learning rate ``best``, and infinite far above it."""
    found = {}
    for trial in trials:
        distance = abs(math.log10(trial.learning_rate / best))
        point = Point(
            step=settings.steps(trial), epoch=1, wall_seconds=1, processor_seconds=1, train_loss=distance, train_accuracy=0,
            validation_loss=distance, validation_accuracy=0,
        )  # fmt: skip
        found[trial] = Result(points=(point,), test_accuracy=None, has_diverged=trial.learning_rate > 30 * best)
    return found


@pytest.mark.parametrize("best", [0.003, 0.1, 1.0])
def test_a_search_finds_the_best_rate_of_every_grid(best: float) -> None:
    settings = Settings()
    searched = search(lambda trials: results(settings, list(trials), best), settings)
    assert set(searched) == set(grids(settings))
    reachable = {kind: grid for kind, grid in searched.items() if abs(grid.middle - 2 * math.log10(best)) <= MOST_EXTENSIONS}
    assert all(rate_at(grid.best) == best and not grid.is_edge for grid in reachable.values())
    assert all(len(grid.losses) <= 3 + MOST_EXTENSIONS for grid in searched.values())
    asked = trials_of(settings, searched)
    assert len(asked) == len(set(asked)) == sum(len(grid.losses) for grid in searched.values())


def test_an_optimum_far_away_ends_at_the_bound_and_is_known_to_be_at_an_edge() -> None:
    settings = Settings()
    searched = search(lambda trials: results(settings, list(trials), 1e-12), settings)
    assert all(grid.is_edge and len(grid.losses) == 3 + MOST_EXTENSIONS for grid in searched.values())


def test_no_run_is_trained_twice_and_reported_ones_have_other_seeds_than_grids() -> None:
    settings = Settings()
    rates = dict.fromkeys(grids(settings), 0.1)
    reported = reported_trials(settings, rates)
    # Dropout 0.2 is one of the optimizers' runs.
    kinds = len(METHODS) + len(settings.all_batch_sizes) + len(settings.dropout_rates) - 1
    assert len(reported) == len({trial.key for trial in reported}) == kinds * settings.seeds
    assert all(trial.is_tested for trial in reported)
    tried = [grid_trial(settings, kind, 0.1) for kind in grids(settings)]
    assert not any(trial.is_tested for trial in tried)
    assert not {trial.seed for trial in tried} & {trial.seed for trial in reported}
