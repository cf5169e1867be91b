"""Checkpoints: the best, the last, and one where a signal stopped the run."""

import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from model.signals import FLUSH_SECONDS
from model.tracking import MlflowLogger

BEST, LAST = "best.ckpt", "last.ckpt"

_MONITOR = "val_accuracy"


def checkpoint_dir(directory: Path) -> Path:
    """Where a run in ``directory`` keeps its checkpoints."""
    return directory / "checkpoints"


class Checkpoints(Checkpoint):
    """``last.ckpt`` after each epoch, and ``best.ckpt`` by validation accuracy, in ``checkpoints/`` of the root directory.

    Lightning's own ModelCheckpoint writes the last one only where it is the best as well, forgets the best score when the
    directory is moved, and serialises twice what is copied here.

    SIGINT and SIGTERM end the run after the step it is in, with ``last.ckpt`` written there and exit code 128 + signal;
    a second SIGINT ends it at once. In a distributed run, all processes stop at the same step.
    """

    def __init__(self) -> None:
        self._best: float | None = None
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self._best = state_dict["best"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals, after Lightning took SIGTERM: its way out returns 0, and a Job would not run again."""
        del trainer, pl_module
        self._handlers = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number
        print(f"\n{signal.Signals(number).name}: stopping after this step", flush=True)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Stop here if a signal came, unless the epoch is over: then validation and its checkpoint come first."""
        del pl_module, args
        if (self._signal is not None or trainer.world_size > 1) and not trainer.is_last_batch and self._is_stopping(trainer):
            self._save_last(trainer)
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last, which is the best too where its score is."""
        del pl_module
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # set where its class does not declare it
            return
        metric = trainer.callback_metrics.get(_MONITOR)
        score = None if metric is None else float(metric)
        best = self._path(trainer, BEST)
        is_best = score is None or self._best is None or score > self._best or not best.exists()
        if is_best:
            self._best = score
        self._save_last(trainer)
        if is_best and trainer.is_global_zero:
            scratch = best.with_suffix(".new")
            shutil.copyfile(self._path(trainer, LAST), scratch)
            scratch.replace(best)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if a signal came since the last batch: the checkpoint of the epoch is written, and its figures are logged."""
        del pl_module
        if self._is_stopping(trainer):
            self._stop(trainer)

    def _is_stopping(self, trainer: pl.Trainer) -> bool:
        stop = self._signal is not None
        return trainer.strategy.reduce_boolean_decision(stop, all=False) if trainer.world_size > 1 else stop

    def _stop(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            print(f"stopped at step {trainer.global_step}; go on with: --ckpt_path last", flush=True)
        if isinstance(trainer.logger, MlflowLogger):
            trainer.logger.close("KILLED", FLUSH_SECONDS)
        raise SystemExit(128 + (self._signal or signal.SIGTERM))

    def _save_last(self, trainer: pl.Trainer) -> None:
        last = self._path(trainer, LAST)
        scratch = last.with_suffix(".new")
        # Lightning copies it here from another folder: what there is to go on from must not be cut short meanwhile.
        trainer.save_checkpoint(scratch, weights_only=False)
        if trainer.is_global_zero:
            scratch.replace(last)

    @staticmethod
    def _path(trainer: pl.Trainer, name: str) -> Path:
        return checkpoint_dir(Path(trainer.default_root_dir)) / name

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand the signals back."""
        del trainer, pl_module
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Hand the signals back."""
        del trainer, pl_module, exception
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
