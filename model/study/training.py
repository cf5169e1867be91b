"""One training run of the study: what `python -m model fit` does, at the cost of a bare loop.

The network, the optimizer, the order of the batches and the draws of dropout are those of `DigitClassifier` under Lightning: a
test trains both ways and finds the same losses, to the last bit. The loop is bare since the study has over a hundred runs, whose
times it compares: what Lightning's hooks cost a step would weigh the more the smaller the batch.

A step of more images than `CHUNK` adds up the gradients of parts, which is the gradient of the whole but for rounding (and the
masks of dropout are the same, which are drawn in order): several times as fast as one pass over 50,000 images, and it needs a
tenth of the memory, as `model.study.memory` measures.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from model.data import Batches, MnistData, Split
from model.module import step_seed
from model.network import Network
from model.optimizers import build_optimizer
from model.study.plan import METHODS, SEEN_IMAGES, Settings, Trial

CHUNK = 5_000


@dataclass(frozen=True, kw_only=True)
class Data:
    """The images of a study; ``seen`` are some of ``train``."""

    train: Split
    seen: Split
    validation: Split
    test: Split

    @classmethod
    def read(cls, data_dir: str, settings: Settings) -> "Data":
        """The project's split of MNIST. Raises `DataError`."""
        mnist = MnistData(data_dir)
        train = mnist.split("train").take(torch.arange(settings.train_images))
        seen = train.take(torch.arange(min(SEEN_IMAGES, settings.train_images)))
        return cls(train=train, seen=seen, validation=mnist.split("validation"), test=mnist.split("test"))


@dataclass(frozen=True, kw_only=True)
class Point:
    """An evaluation after ``step`` steps. Seconds are of training alone: wall time, and processor time of the process."""

    step: int
    epoch: float
    wall_seconds: float
    processor_seconds: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a trial came to; ``has_diverged`` where a loss was not a number, after which it was not trained further."""

    points: tuple[Point, ...]
    test_accuracy: float | None
    has_diverged: bool


class Clock:
    """Wall and processor seconds of the parts of a run that it is told of."""

    def __init__(self) -> None:
        self.wall = self.processor = 0.0
        self._started = (0.0, 0.0)

    def __enter__(self) -> Self:
        self._started = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall += time.perf_counter() - self._started[0]
        self.processor += time.process_time() - self._started[1]


def train(trial: Trial, settings: Settings, data: Data) -> Result:
    """Train and evaluate as ``trial`` says."""
    method = METHODS[trial.method]
    torch.manual_seed(trial.seed)
    network = Network([settings.hidden_size], trial.dropout_rate)
    optimizer = build_optimizer(method.optimizer, network.parameters(), learning_rate=trial.learning_rate, **method.options)
    clock, done = Clock(), 0
    points = [_evaluate(network, data, 0, 0.0, clock)]
    batches = _batches(trial, data.train)
    for step in evaluation_steps(trial, settings):
        with clock:
            network.train()
            for before in range(done, step):
                train_step(network, optimizer, next(batches), seed=trial.seed, step=before)
        done = step
        points.append(_evaluate(network, data, step, trial.epochs * step / settings.steps(trial), clock))
        if not is_finite(points[-1]):
            break
    accuracy = figures(network, data.test)[1] if trial.is_tested else None
    diverged = not is_finite(points[-1])
    return Result(points=tuple(points[:-1] if diverged else points), test_accuracy=accuracy, has_diverged=diverged)


def train_step(
    network: Network, optimizer: Optimizer, batch: tuple[Tensor, Tensor], *, seed: int, step: int, chunk: int = CHUNK
) -> None:
    """One optimizer step on ``batch``, images (n, 28, 28) and labels (n,); ``step`` are those before it."""
    torch.default_generator.manual_seed(step_seed(seed, step))
    optimizer.zero_grad()
    images, labels = batch
    for part, truth in zip(images.split(chunk), labels.split(chunk), strict=True):
        loss = functional.cross_entropy(network(part), truth)
        (loss if len(truth) == len(labels) else loss * (len(truth) / len(labels))).backward()
    optimizer.step()


def evaluation_steps(trial: Trial, settings: Settings) -> list[int]:
    """After how many steps to evaluate: so often an epoch, evenly, as far as an epoch has as many steps."""
    steps = settings.steps(trial)
    count = trial.epochs * trial.evaluations
    return sorted({max(1, round(index * steps / count)) for index in range(1, count + 1)})


def figures(network: Network, split: Split) -> tuple[float, float]:
    """Mean loss and accuracy on ``split``, without dropout."""
    network.eval()
    loss = correct = 0.0
    with torch.inference_mode():
        for images, labels in zip(split.images.split(CHUNK), split.labels.split(CHUNK), strict=True):
            logits = network(images)
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            correct += int((logits.argmax(dim=1) == labels).sum())
    return loss / len(split), correct / len(split)


def is_finite(point: Point) -> bool:
    """Whether training may go on."""
    return math.isfinite(point.train_loss) and math.isfinite(point.validation_loss)


def _evaluate(network: Network, data: Data, step: int, epoch: float, clock: Clock) -> Point:
    train_loss, train_accuracy = figures(network, data.seen)
    validation_loss, validation_accuracy = figures(network, data.validation)
    return Point(
        step=step,
        epoch=epoch,
        wall_seconds=clock.wall,
        processor_seconds=clock.processor,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        validation_loss=validation_loss,
        validation_accuracy=validation_accuracy,
    )


def _batches(trial: Trial, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Those of all epochs, in the order in which `fit` would take them."""
    batches = Batches(split, batch_size=trial.batch_size, seed=trial.seed)
    for epoch in range(trial.epochs):
        batches.set_epoch(epoch)
        yield from batches
