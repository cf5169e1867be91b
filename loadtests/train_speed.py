"""What an epoch of the default configuration costs beside a bare torch loop over the same tensors.

    python loadtests/train_speed.py --rounds 7

In one process and in turns, so that a noisy machine is noisy for all: an epoch of `python -m model fit` with its validation,
checkpoint and tracking; a bare torch loop that trains the same model with the same optimizer, schedule, figures and validation,
on a network of torch's own layers; that loop with our network, whose dropout is faster; and the first loop over the usual
DataLoader of a per-item Dataset. Exit code 1 where the first costs more than the bar allows.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from model.checkpoints import Checkpoints
from model.data import MnistData, Split
from model.module import DigitClassifier, Totals
from model.network import Network
from model.optimizers import build_optimizer, build_schedule
from model.progress import ProgressLines
from model.tracking import MlflowLogger

BAR = 1.15


class Items(Dataset[tuple[Tensor, Tensor]]):
    """One image at a time."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """An image (28, 28) and its label."""
        return self.split.images[index], self.split.labels[index]


class Baseline:
    """A bare torch loop over ``batches``, for ``steps`` optimizer steps in all."""

    def __init__(
        self, network: nn.Module, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]], validation: Split, steps: int
    ) -> None:
        self.network, self.batches, self.validation = network, batches, validation
        self.optimizer = build_optimizer("adam", self.network.parameters())
        self.schedule = build_schedule("cosine", self.optimizer, steps=steps)

    def epoch(self) -> float:
        """Train and validate for an epoch; the seconds it took."""
        start = time.perf_counter()
        totals = Totals()
        self.network.train()
        for images, labels in self.batches():
            logits = self.network(images)
            loss = functional.cross_entropy(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            totals.add(loss * len(labels), logits, labels)
        self.network.eval()
        with torch.inference_mode():
            self.network(self.validation.images).argmax(dim=1)
        return time.perf_counter() - start


class Rounds(pl.Callback):
    """Times each epoch of a fit from its start to the next one's, and runs the baselines in between."""

    def __init__(self, baselines: dict[str, Baseline]) -> None:
        self.baselines = baselines
        self.seconds: dict[str, list[float]] = {name: [] for name in ("fit", *baselines)}
        self._start = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """An epoch is over, with all that belongs to it."""
        self.on_train_end(trainer, pl_module)
        for name, baseline in self.baselines.items():
            self.seconds[name].append(baseline.epoch())
        self._start = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the last epoch."""
        del trainer, pl_module
        if self._start:
            self.seconds["fit"].append(time.perf_counter() - self._start)


def plain_network() -> nn.Module:
    """The default network, of torch's layers."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 10))


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds an epoch, for each way; a first round to warm up is not counted."""
    pl.seed_everything(0, verbose=False)
    data = MnistData()
    train, validation = data.split("train"), data.split("validation")

    def bare() -> Iterable[tuple[Tensor, Tensor]]:
        for chosen in torch.randperm(len(train)).split(data.batch_size):
            yield train.images[chosen], train.labels[chosen]

    loader = DataLoader(Items(train), batch_size=data.batch_size, shuffle=True)
    steps = data.train_batches * (rounds + 1)
    timing = Rounds(
        {
            "bare": Baseline(plain_network(), bare, validation, steps),
            "bare_our_network": Baseline(Network(), bare, validation, steps),
            "dataloader": Baseline(plain_network(), lambda: loader, validation, steps),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        logger = MlflowLogger(f"sqlite:///{folder}/mlflow.db")
        logger.open(Path(folder), resume=False)
        trainer = pl.Trainer(
            max_epochs=rounds + 1,
            default_root_dir=folder,
            logger=logger,
            callbacks=[timing, Checkpoints(), ProgressLines()],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(DigitClassifier(), data)
        logger.close("FINISHED")
    return {name: seconds[1:] for name, seconds in timing.seconds.items()}


def main() -> int:
    """Measure, print a JSON line, and hold the ratio against the bar."""
    parser = argparse.ArgumentParser(description="Time an epoch beside a bare torch loop.")
    parser.add_argument("--rounds", type=int, default=7, help="Counted epochs of each way.")
    seconds = measure(parser.parse_args().rounds)
    ratios = {
        name: statistics.median(one / bare for one, bare in zip(times, seconds["bare"], strict=True))
        for name, times in seconds.items()
    }
    medians = {name: round(statistics.median(times), 3) for name, times in seconds.items()}
    print(
        json.dumps(
            {"median_seconds": medians, "ratio_to_bare": {name: round(ratio, 3) for name, ratio in ratios.items()}, "bar": BAR}
        )
    )
    return 0 if ratios["fit"] <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
