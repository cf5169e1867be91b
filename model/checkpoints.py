"""Checkpoints: the best, the last, and one where a signal stopped the run."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from model.tracking import MlflowLogger

BEST, LAST = "best.ckpt", "last.ckpt"

# A preempted pod has 15 s on GKE Spot; what is not sent in these is kept for `sync` or the next pod.
_FLUSH_ON_SIGNAL_SECONDS = 4.0


def checkpoint_dir(directory: Path) -> Path:
    """Where a run in ``directory`` keeps its checkpoints."""
    return directory / "checkpoints"


class Checkpoints(ModelCheckpoint):
    """``best.ckpt`` by validation accuracy and ``last.ckpt`` after each epoch, in ``checkpoints/`` of the root directory.

    SIGINT and SIGTERM end the run after the step it is in, with ``last.ckpt`` written there and exit code 128 + signal;
    a second SIGINT ends it at once. In a distributed run, all processes stop at the same step.
    """

    def __init__(self) -> None:
        super().__init__(
            monitor="val_accuracy",
            mode="max",
            filename=Path(BEST).stem,
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle where checkpoints go."""
        self.dirpath = str(checkpoint_dir(Path(trainer.default_root_dir)))
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals, after Lightning took SIGTERM: its way out returns 0, and a Job would not run again."""
        super().on_train_start(trainer, pl_module)
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
        if (self._signal is not None or trainer.world_size > 1) and not trainer.is_last_batch:
            self._stop_on_signal(trainer, save=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if a signal came since the last batch: the checkpoint of the epoch is written, and its figures are logged."""
        super().on_train_epoch_start(trainer, pl_module)
        self._stop_on_signal(trainer, save=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the best score, also where the run's directory was moved or has another name in this pod."""
        if Path(str(self.dirpath), BEST).exists():

            def here(path: str) -> str:
                return str(Path(str(self.dirpath), Path(path).name)) if path else path

            names = ("best_model_path", "kth_best_model_path", "last_model_path")
            best = {here(path): score for path, score in state_dict["best_k_models"].items()}
            moved = {name: here(state_dict[name]) for name in names} | {"dirpath": self.dirpath, "best_k_models": best}
            state_dict = state_dict | moved
        super().load_state_dict(state_dict)

    def _stop_on_signal(self, trainer: pl.Trainer, *, save: bool) -> None:
        stop = self._signal is not None
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if not stop:
            return
        if save:
            trainer.save_checkpoint(Path(str(self.dirpath), LAST), weights_only=False)
        if trainer.is_global_zero:
            print(f"stopped at step {trainer.global_step}; go on with: --ckpt_path last", flush=True)
        if isinstance(trainer.logger, MlflowLogger):
            trainer.logger.close("KILLED", _FLUSH_ON_SIGNAL_SECONDS)
        raise SystemExit(128 + (self._signal or signal.SIGTERM))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand the signals back."""
        super().on_train_end(trainer, pl_module)
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Hand the signals back."""
        super().on_exception(trainer, pl_module, exception)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
