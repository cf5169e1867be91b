"""The LightningModule: loss, figures, optimizer."""

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional

from model.network import Activation, Network
from model.optimizers import OptimizerName, ScheduleName, build_optimizer, build_schedule

NETWORK_ARGUMENTS = ("hidden_sizes", "dropout_rate", "batch_norm", "activation")


class DigitClassifier(pl.LightningModule):
    """A network, and how it is trained. Checkpoints hold these arguments as ``hyper_parameters``.

    Args:
        hidden_sizes: Width of each hidden layer; empty for a linear classifier.
        dropout_rate: Share of a hidden layer's outputs dropped in training, in [0, 1).
        batch_norm: Normalise each hidden layer over the batch.
        activation: What follows each hidden layer.
        optimizer: gd (the whole training set in one batch), sgd, rmsprop or adam.
        learning_rate: At its highest; each optimizer has its own default.
        momentum: Of sgd and rmsprop, in [0, 1).
        nesterov: Nesterov's look-ahead, for sgd with momentum.
        weight_decay: For each optimizer; decoupled for adam.
        schedule: How the learning rate goes over the run, step by step.
        warmup_fraction: Share of the run in which it rises to its highest, in [0, 1).
        label_smoothing: Share of a label's weight spread over all classes, in [0, 1) (Szegedy et al. 2016).

    Raises:
        ValueError: An argument out of range; the message names it.
    """

    def __init__(
        self,
        hidden_sizes: list[int] = [512],  # noqa: B006 -- a literal list is what the CLI shows as default; it is only read
        dropout_rate: float = 0.2,
        batch_norm: bool = False,
        activation: Activation = "relu",
        optimizer: OptimizerName = "adam",
        learning_rate: float | None = None,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        schedule: ScheduleName = "cosine",
        warmup_fraction: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for name in ("momentum", "warmup_fraction", "label_smoothing"):
            if not 0 <= self.hparams[name] < 1:
                message = f"{name}: expected a number in [0, 1), got {self.hparams[name]}"
                raise ValueError(message)
        if learning_rate is not None and learning_rate <= 0:
            message = f"learning_rate: expected a number above 0, got {learning_rate}"
            raise ValueError(message)
        if weight_decay < 0:
            message = f"weight_decay: expected a number of at least 0, got {weight_decay}"
            raise ValueError(message)
        if nesterov and not (optimizer == "sgd" and momentum):
            message = "nesterov: expected optimizer sgd with momentum above 0"
            raise ValueError(message)
        self.network = Network(hidden_sizes, dropout_rate, batch_norm, activation)
        # Dropout follows the seed of the run.
        self.seed = torch.initial_seed()
        # Of the epoch so far, in training and in evaluation.
        self._train_totals, self._totals = Totals(), Totals()

    @property
    def network_arguments(self) -> dict[str, Any]:
        """What builds this network again: ``Network(**network_arguments)``."""
        return {name: self.hparams[name] for name in NETWORK_ARGUMENTS}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 10) of images (n, 28, 28) in [0, 1]."""
        logits: Tensor = self.network(images)
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer and its schedule over the whole run."""
        hparams = self.hparams
        optimizer = build_optimizer(
            hparams["optimizer"],
            self.parameters(),
            learning_rate=hparams["learning_rate"],
            momentum=hparams["momentum"],
            nesterov=hparams["nesterov"],
            weight_decay=hparams["weight_decay"],
        )
        schedule = build_schedule(
            hparams["schedule"], optimizer, steps=self._planned_steps(), warmup_fraction=hparams["warmup_fraction"]
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _planned_steps(self) -> int:
        # Not trainer.estimated_stepping_batches: to ask for it loads the data before a checkpoint's place in it is restored.
        trainer = self.trainer
        if trainer.max_steps > 0:
            return trainer.max_steps
        limit = trainer.limit_train_batches
        batches: int = trainer.datamodule.train_batches  # type: ignore[attr-defined]  # attached by fit, not declared
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        return batches * (trainer.max_epochs or 1)

    def on_train_epoch_start(self) -> None:
        """Start the epoch's order and figures; a run resumed within an epoch takes both from its checkpoint instead."""
        self.trainer.train_dataloader.set_epoch(self.current_epoch)  # type: ignore[union-attr]  # it is our own loader
        self._train_totals = Totals()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed what is random in this step by the step, so that a resumed run repeats it without a saved generator."""
        del batch, batch_idx
        seed = step_seed(self.seed, self.global_step, self.global_rank)
        # Not torch.manual_seed, which formats a stack trace for devices that may be seeded later: a millisecond a step.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The mean loss of a batch."""
        del batch_idx
        images, labels = batch
        logits = self(images)
        loss = functional.cross_entropy(logits, labels, label_smoothing=self.hparams["label_smoothing"])
        with torch.no_grad():
            self._train_totals.add(loss * len(labels), logits, labels)
        return loss

    def on_train_epoch_end(self) -> None:
        """Report the epoch."""
        self._report("train", self._train_totals)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"], rank_zero_only=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the seed and the figures of the epoch so far."""
        checkpoint["seed"] = self.seed
        checkpoint["train_totals"] = self._train_totals.reduced(self.trainer.strategy)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with them."""
        self.seed = checkpoint["seed"]
        # The sum over all processes, so one of them takes it.
        if self.global_rank == 0:
            self._train_totals = Totals(*checkpoint["train_totals"])

    def on_validation_epoch_start(self) -> None:
        """Start the figures."""
        self._totals = Totals()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count a batch."""
        del batch_idx
        images, labels = batch
        logits = self(images)
        self._totals.add(functional.cross_entropy(logits, labels, reduction="sum"), logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Report ``val_loss`` and ``val_accuracy``."""
        self._report("val", self._totals)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        """Report ``test_loss`` and ``test_accuracy``."""
        self._report("test", self._totals)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Probabilities (n, 10), as the network gives them: calibration is the bundle's."""
        del batch_idx
        return functional.softmax(self(batch[0]), dim=1)

    def _report(self, stage: str, totals: "Totals") -> None:
        loss, correct, images = totals.reduced(self.trainer.strategy)
        self.log(f"{stage}_loss", loss / max(images, 1), prog_bar=True)
        self.log(f"{stage}_accuracy", correct / max(images, 1), prog_bar=True)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the current hook's name, which Lightning sets forty times a step, without torch's checks."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """What a process of a run seeds itself with before the step that follows ``step`` others."""
    # Odd multipliers keep the streams of steps and processes apart.
    return (seed + 0x9E3779B97F4A7C15 * (step + 1) + 0xD1B54A32D192ED03 * rank) % 2**63


@dataclass
class Totals:
    """Sum of losses, right answers and images; the first two stay on the device until they are asked for."""

    loss: Tensor | float = 0.0
    correct: Tensor | float = 0.0
    images: float = 0.0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: its summed loss (), its logits (n, 10), its labels (n,)."""
        self.loss = self.loss + loss.detach()
        self.correct = self.correct + (logits.argmax(dim=1) == labels).sum()
        self.images += len(labels)

    def reduced(self, strategy: Strategy) -> list[float]:
        """The three sums over all processes."""
        sums = torch.tensor([float(self.loss), float(self.correct), self.images], device=strategy.root_device)
        reduced: list[float] = strategy.reduce(sums, reduce_op="sum").tolist()
        return reduced
