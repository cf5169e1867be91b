"""Lightning's command line over the module and the data: fit, validate, test, predict."""

import logging
import shutil
import sys
import tempfile
import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from jsonargparse import DefaultHelpFormatter, Namespace
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from torch import Tensor

from model.bundle import Bundle
from model.checkpoints import BEST, LAST, Checkpoints, checkpoint_dir
from model.data import MnistData
from model.delivery import Run, sync_command
from model.errors import ConfigError
from model.export import build_bundle
from model.handover import first_process_file, is_shared
from model.mnist import TRAIN_SIZE
from model.module import DigitClassifier
from model.outbox import Outbox
from model.predictions import write_predictions
from model.progress import ProgressLines
from model.registry import Floors, publish
from model.signals import FLUSH_SECONDS
from model.tracking import MlflowLogger, Status, git_revision

BUNDLE = "bundle"
CONFIG = "config.yaml"
DEFAULT_SEED = 42


class TrainingCLI(LightningCLI):
    """`LightningCLI` with our defaults, resume by run directory, and a bundle at the end of ``fit``."""

    is_resumed: bool

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Our options of our own."""
        parser.add_argument("--overwrite", type=bool, default=False, help="let fit replace the run in trainer.default_root_dir")
        parser.add_argument(
            "--publish_as",
            type=str | None,
            default=None,
            help="let fit publish its bundle, as a version of the model of this name",
        )
        parser.add_argument("--floors", type=Floors, default=Floors(), help="what the model must reach to be published by fit")

    @property
    def directory(self) -> Path:
        """The run's: checkpoints, configuration, outbox, bundle."""
        return Path(self._get(self.config, "trainer")["default_root_dir"])

    def _parse_ckpt_path(self) -> None:
        """Turn ``last`` and ``best`` into files before Lightning reads the network's arguments from the checkpoint."""
        options = self.config[self.config.subcommand]
        folder = checkpoint_dir(Path(options.trainer.default_root_dir))
        is_fit = self.config.subcommand == "fit"
        path = options.ckpt_path or ("" if is_fit else "best")
        if path in ("last", "best"):
            path = str(folder / {"last": LAST, "best": BEST}[path])
        self.is_resumed = is_fit and bool(path) and Path(path).resolve().parent == folder.resolve()
        options.ckpt_path = self._find(Path(path)) if path else None
        asked = options.model.as_dict()
        super()._parse_ckpt_path()
        found = self.config[self.config.subcommand].model.as_dict()
        if taken := [f"model.{name} {value}" for name, value in found.items() if value != asked[name]]:
            print("from the checkpoint:", ", ".join(taken), flush=True)

    def _find(self, path: Path) -> str | None:
        if self.config.subcommand == "fit" and is_shared():
            self._scratch = tempfile.TemporaryDirectory()
            found = first_process_file(path, Path(self._scratch.name))
        else:
            found = path if path.is_file() else None
        if found:
            return str(found)
        if not (self.is_resumed and path.name == LAST):
            message = f"ckpt_path: expected a checkpoint, {path} does not exist"
            raise ConfigError(message)
        # A Job that always says `last` may have been stopped before there was one.
        print(f"no {path} yet: starting from the beginning", flush=True)
        return None

    def before_instantiate_classes(self) -> None:
        """Gradient descent takes the whole training set in each step."""
        options = self.config[self.config.subcommand]
        if options.model.optimizer == "gd" and options.data.batch_size != TRAIN_SIZE:
            print(f"optimizer gd: data.batch_size is {TRAIN_SIZE:,}, the whole training set", flush=True)
            options.data.batch_size = TRAIN_SIZE

    def instantiate_classes(self) -> None:
        """Make the module, the data and the trainer; what they refuse is the configuration's fault."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def before_fit(self) -> None:
        """Refuse to mix two runs in one directory; then begin or resume the tracked run."""
        self.datamodule.split("train")
        if self.trainer.is_global_zero:
            self._claim_directory()
            if isinstance(self.trainer.logger, MlflowLogger):
                self._open_run(self.trainer.logger)

    def _claim_directory(self) -> None:
        last = checkpoint_dir(self.directory) / LAST
        if self.is_resumed or not (Run.find(self.directory) or last.exists()):
            return
        if not self.config["fit"].overwrite:
            message = (
                f"trainer.default_root_dir: {self.directory} holds a run already; go on with it (--ckpt_path last), "
                "choose another directory, or replace it (--overwrite true)"
            )
            raise ConfigError(message)
        outbox = Outbox(self.directory)
        if left := outbox.pending():
            message = (
                f"overwrite: {len(left)} entries of the run were never sent; send them ({sync_command(self.directory)}), "
                f"or give them up by removing {outbox.path}"
            )
            raise ConfigError(message)
        # All that a resumed or served run would read, so that nothing of the old one is taken for the new one's.
        outbox.remove()
        Run.forget(self.directory)
        for folder in (checkpoint_dir(self.directory), self.directory / BUNDLE):
            shutil.rmtree(folder, ignore_errors=True)

    def _open_run(self, logger: MlflowLogger) -> None:
        is_known = Run.find(self.directory) is not None
        logger.open(self.directory, resume=self.is_resumed)
        if not is_known:
            logger.log_hyperparams(self._parameters())

    def _parameters(self) -> dict[str, Any]:
        model = {name: value for name, value in self.model.hparams.items() if not name.startswith("_")}
        return {
            **model,
            "epochs": self.trainer.max_epochs,
            "batch_size": self.datamodule.batch_size,
            "augmentation": self.datamodule.augmentation,
            "augment_validation": self.datamodule.augment_validation,
            "split_seed": self.datamodule.split_seed,
            "seed": self.model.seed,
            "data_digest": self.datamodule.digest,
            "git_revision": git_revision(),
        }

    def fit(self, model: pl.LightningModule, **options: Any) -> None:
        """Train; checkpoints are read without unpickling anything."""
        self.trainer.fit(model, **{**options, "weights_only": True})

    def predict(self, model: pl.LightningModule, **options: Any) -> None:
        """Answer each image and write the answers down."""
        batches = self.trainer.predict(model, **{**options, "weights_only": True})
        if self.trainer.is_global_zero:
            path = write_predictions(self.directory, torch.cat([cast("Tensor", batch) for batch in batches or []]))
            print(f"answers in {path}", flush=True)

    def after_fit(self) -> None:
        """Make the bundle of the best checkpoint, end the tracked run, and publish the bundle where that is asked for."""
        if not self.trainer.is_global_zero:
            return
        logger = self.trainer.logger if isinstance(self.trainer.logger, MlflowLogger) else None
        status: Status = "FAILED"
        try:
            self._bundle(logger)
            status = "FINISHED"
        except SystemExit:
            status = "KILLED"
            raise
        finally:
            if logger:
                logger.close(status, FLUSH_SECONDS if status == "KILLED" else None)
        options = self.config["fit"]
        if options.publish_as and (bundle := self.directory / BUNDLE).exists():
            uri = logger.run.tracking_uri if logger and logger.run else None
            publish(bundle, options.publish_as, options.data.data_dir, uri, self._get(self.config_init, "floors"))

    def _bundle(self, logger: MlflowLogger | None) -> None:
        best = checkpoint_dir(self.directory) / BEST
        if not best.exists():
            print("no checkpoint was written, as with fast_dev_run, so there is no bundle", flush=True)
            return
        print(f"bundling {best}", flush=True)
        run_id = logger.version if logger else None
        bundle = build_bundle(self.directory / BUNDLE, checkpoint=best, data=self.datamodule, run_id=run_id)
        if logger:
            logger.log_metrics(bundle.metrics | {"temperature": bundle.temperature}, step=self.trainer.global_step)
            logger.log_artifact(BUNDLE, folder=BUNDLE)
            logger.log_artifact(CONFIG)
        print(_summary(bundle), flush=True)


def _summary(bundle: Bundle) -> str:
    figures = bundle.metrics
    return (
        f"{bundle.directory}: accuracy {figures['test_accuracy']:.2%} on test images, {figures['validation_accuracy']:.2%} on "
        f"validation images; temperature {bundle.temperature:.3f} brings the calibration error from "
        f"{figures['validation_calibration_error_before']:.4f} to {figures['validation_calibration_error']:.4f}; "
        f"ONNX and torch differ by at most {bundle.onnx_max_abs_difference:.1g}"
    )


class ResolvedConfig(SaveConfigCallback):
    """Prints the whole configuration of a fit and keeps it beside the checkpoints."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **options: Any) -> None:
        super().__init__(parser, config, **{**options, "save_to_log_dir": False})

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Called once, by the first process."""
        del pl_module
        if stage != "fit":
            return
        path = Path(trainer.default_root_dir, CONFIG)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.parser.dump(self.config, skip_none=False))
        print(f"configuration, in full in {path}:\n{self.parser.dump(self.config)}", flush=True)


class Help(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help whose last part keeps its lines."""


def run_lightning(others: Mapping[str, str] | None = None) -> None:
    """Run ``fit``, ``validate``, ``test`` or ``predict`` as the program's arguments say; the help lists ``others``, too."""
    # Lightning's own use of torch and its advertisement, and MLflow's news of its database, are of no use to who trains.
    warnings.filterwarnings("ignore", category=FutureWarning, module="pytorch_lightning")
    warnings.filterwarnings("ignore", message="The number of training batches")  # its figures are logged by epoch
    warnings.filterwarnings("ignore", message="It is recommended to use .*sync_dist")  # they are sums over all processes
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(lambda record: "litlogger" not in record.getMessage())
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    interactive = sys.stderr.isatty()
    progress: Callback = TQDMProgressBar(refresh_rate=20) if interactive else ProgressLines()
    TrainingCLI(
        DigitClassifier,
        MnistData,
        save_config_callback=ResolvedConfig,
        seed_everything_default=DEFAULT_SEED,
        trainer_defaults={
            "max_epochs": 5,
            "default_root_dir": "build",
            "logger": {"class_path": "model.tracking.MlflowLogger"},
            "callbacks": [Checkpoints(), progress],
            "enable_progress_bar": interactive,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        },
        auto_configure_optimizers=False,
        parser_kwargs={"prog": "python -m model", "epilog": _listed(others or {}), "formatter_class": Help},
    )


def _listed(commands: Mapping[str, str]) -> str:
    return "\n".join(
        [
            "other commands, each with its own --help:",
            *(f"    {name:<19} {does.replace('``', '')}" for name, does in commands.items()),
        ]
    )
