"""What the study trains: the methods, the budgets, and one `Trial` for each training run. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from model.errors import ConfigError
from model.mnist import TRAIN_SIZE
from model.optimizers import OptimizerName

# Of all studies but that of dropout, and of all but that of batch sizes: those of the default configuration.
DROPOUT_RATE, BATCH_SIZE = 0.2, 128
# Learning rates are chosen by a run of its own seed, which no reported figure comes from.
GRID_SEED = 0
# Images that tell training loss and accuracy at each evaluation, without dropout: as many as validation has.
SEEN_IMAGES = 5_000


@dataclass(frozen=True, kw_only=True)
class Method:
    """An optimizer as the study compares it; ``middle`` is the rung of the `model.study.grid` ladder its grid starts around."""

    name: str
    label: str
    optimizer: OptimizerName
    middle: int
    momentum: float = 0.0
    nesterov: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """What `build_optimizer` is given beside name and rate."""
        return {"momentum": self.momentum, "nesterov": self.nesterov}


METHODS = {
    method.name: method
    for method in (
        Method(name="gd", label="gradient descent", optimizer="gd", middle=0),
        Method(name="sgd", label="SGD", optimizer="sgd", middle=-2),
        Method(name="momentum", label="momentum", optimizer="sgd", middle=-3, momentum=0.9),
        Method(name="nesterov", label="Nesterov", optimizer="sgd", middle=-3, momentum=0.9, nesterov=True),
        Method(name="rmsprop", label="RMSprop", optimizer="rmsprop", middle=-7),
        Method(name="adam", label="Adam", optimizer="adam", middle=-6),
    )
}
# Batch sizes are compared with the method that has no memory of earlier steps, dropout with the default one.
BATCH_METHOD, DROPOUT_METHOD = "sgd", "adam"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The budgets of a study. Raises `ConfigError`.

    Args:
        seeds: Runs of each kind, with the seeds 1, 2, ...; two or more, so that there are intervals.
        epochs: Of each optimizer and dropout rate.
        hidden_size: Width of the one hidden layer.
        gd_factor: How many times as many epochs gradient descent gets, since an epoch of it is one step.
        batch_epochs: Of each batch size.
        batch_sizes: Without the whole training set, which is the last one.
        dropout_rates: Which are compared.
        train_images: How many of the training images are trained on.
    """

    seeds: int = 5
    epochs: int = 10
    # A quarter of the default network's, whose hundred and more runs would take hours of two cores.
    hidden_size: int = 128
    gd_factor: int = 4
    batch_epochs: int = 2
    batch_sizes: tuple[int, ...] = (1, 8, 32, 128, 512, 4096)
    dropout_rates: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    train_images: int = TRAIN_SIZE

    def __post_init__(self) -> None:
        for name, least in (("seeds", 2), ("epochs", 1), ("hidden_size", 1)):
            if getattr(self, name) < least:
                message = f"{name}: expected {least} or more, got {getattr(self, name)}"
                raise ConfigError(message)

    @property
    def all_batch_sizes(self) -> tuple[int, ...]:
        """From the smallest to the whole training set."""
        return (*self.batch_sizes, self.train_images)

    def steps(self, trial: "Trial") -> int:
        """Optimizer steps of a trial."""
        return trial.epochs * math.ceil(self.train_images / trial.batch_size)


def quick_settings() -> Settings:
    """Seconds instead of figures: to see that all parts of a study work together."""
    return Settings(
        seeds=2,
        epochs=2,
        hidden_size=16,
        gd_factor=2,
        batch_epochs=1,
        batch_sizes=(32, 128),
        dropout_rates=(0.0, 0.2, 0.5),
        train_images=2_000,
    )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run. Two that are equal are run once, whichever part of the study asks for them.

    Args:
        method: A key of `METHODS`.
        learning_rate: Constant over the run.
        batch_size: Images a step.
        dropout_rate: The network's.
        epochs: Over the training images.
        seed: Of weights, order of images and dropout.
        evaluations: How often an epoch is evaluated; steps in between where an epoch has fewer.
        is_tested: Whether it is asked for the test images at its end: reported figures are, chosen ones are not.
    """

    method: str
    learning_rate: float
    batch_size: int
    dropout_rate: float
    epochs: int
    seed: int
    evaluations: int
    is_tested: bool

    @property
    def key(self) -> str:
        """Names the trial within a study; a file's name."""
        kind = "test" if self.is_tested else "grid"
        return (
            f"{self.method}-rate{self.learning_rate:g}-batch{self.batch_size}-dropout{self.dropout_rate:g}"
            f"-epochs{self.epochs}-by{self.evaluations}-seed{self.seed}-{kind}"
        )


class Kind(NamedTuple):
    """What a learning rate is chosen for."""

    part: Literal["optimizers", "batches"]
    method: str
    batch_size: int


def method_kind(settings: Settings, method: str) -> Kind:
    """The comparison of optimizers, and dropout rates at the rate that was best for their method in it."""
    return Kind("optimizers", method, settings.train_images if METHODS[method].optimizer == "gd" else BATCH_SIZE)


def batch_kind(batch_size: int) -> Kind:
    """The comparison of batch sizes."""
    return Kind("batches", BATCH_METHOD, batch_size)


def grids(settings: Settings) -> list[Kind]:
    """All that a learning rate is searched for."""
    return [method_kind(settings, method) for method in METHODS] + [batch_kind(size) for size in settings.all_batch_sizes]


def grid_trial(settings: Settings, kind: Kind, rate: float) -> Trial:
    """The run that a learning rate is judged by: as long as those it is chosen for, since in shorter ones higher rates win.

    An epoch of single images takes as long as ten others; there the first has to do.
    """
    if kind.part == "optimizers":
        epochs = method_epochs(settings, kind.method)
    else:
        epochs = 1 if kind.batch_size == 1 else settings.batch_epochs
    return Trial(
        method=kind.method,
        learning_rate=rate,
        batch_size=kind.batch_size,
        dropout_rate=DROPOUT_RATE,
        epochs=epochs,
        seed=GRID_SEED,
        evaluations=1,
        is_tested=False,
    )


def method_epochs(settings: Settings, method: str) -> int:
    """How many a method gets."""
    return settings.epochs * (settings.gd_factor if METHODS[method].optimizer == "gd" else 1)


def optimizer_trial(settings: Settings, method: str, rate: float, seed: int) -> Trial:
    """A run of the comparison of optimizers, at its chosen rate."""
    return Trial(
        method=method,
        learning_rate=rate,
        batch_size=method_kind(settings, method).batch_size,
        dropout_rate=DROPOUT_RATE,
        epochs=method_epochs(settings, method),
        seed=seed,
        evaluations=2,
        is_tested=True,
    )


def batch_trial(settings: Settings, batch_size: int, rate: float, seed: int) -> Trial:
    """A run of the comparison of batch sizes; evaluated often, since their times differ by far."""
    return Trial(
        method=BATCH_METHOD,
        learning_rate=rate,
        batch_size=batch_size,
        dropout_rate=DROPOUT_RATE,
        epochs=settings.batch_epochs,
        seed=seed,
        evaluations=10,
        is_tested=True,
    )


def dropout_trial(settings: Settings, dropout_rate: float, rate: float, seed: int) -> Trial:
    """A run of the comparison of dropout rates; at 0.2 it is one of the comparison of optimizers."""
    return Trial(
        method=DROPOUT_METHOD,
        learning_rate=rate,
        batch_size=BATCH_SIZE,
        dropout_rate=dropout_rate,
        epochs=settings.epochs,
        seed=seed,
        evaluations=2,
        is_tested=True,
    )


def seeds(settings: Settings) -> range:
    """Those of reported figures."""
    return range(GRID_SEED + 1, GRID_SEED + 1 + settings.seeds)


def reported_trials(settings: Settings, rates: Mapping[Kind, float]) -> list[Trial]:
    """All runs at the chosen ``rates``, each once."""
    dropout_method_rate = rates[method_kind(settings, DROPOUT_METHOD)]
    trials: list[Trial] = []
    for seed in seeds(settings):
        trials += [optimizer_trial(settings, name, rates[method_kind(settings, name)], seed) for name in METHODS]
        trials += [batch_trial(settings, size, rates[batch_kind(size)], seed) for size in settings.all_batch_sizes]
        trials += [dropout_trial(settings, share, dropout_method_rate, seed) for share in settings.dropout_rates]
    return list(dict.fromkeys(trials))
