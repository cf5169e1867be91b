"""Progress of a run where no terminal can draw a bar: a line an epoch, and one every few seconds within long ones."""

import time
from typing import Any

import pytorch_lightning as pl

_LINE_SECONDS = 10.0


class ProgressLines(pl.Callback):
    """Prints ``epoch 1/5 ...`` lines, for logs and CI."""

    def __init__(self) -> None:
        self._epoch_start = self._last_line = 0.0
        self._finished = ""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what the last epoch brought, and start the clock."""
        self.on_train_end(trainer, pl_module)
        self._epoch_start = self._last_line = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say where a long epoch stands."""
        del pl_module, outputs, batch
        now = time.monotonic()
        if trainer.is_global_zero and now - self._last_line > _LINE_SECONDS:
            self._last_line = now
            print(f"{_epoch(trainer)}  step {batch_idx + 1}/{trainer.num_training_batches}", flush=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the epoch; its training figures are not there before all of these hooks have run."""
        del pl_module
        self._finished = f"{_epoch(trainer)}  {time.monotonic() - self._epoch_start:.1f} s"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what the last epoch brought."""
        del pl_module
        if trainer.is_global_zero and self._finished:
            figures = trainer.callback_metrics
            names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
            print(self._finished, *(f" {name} {float(figures[name]):.4f}" for name in names if name in figures), flush=True)
        self._finished = ""


def _epoch(trainer: pl.Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
