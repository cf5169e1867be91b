"""The study's bare loop beside Lightning's: the same weights."""

import pytest
import pytorch_lightning as pl
import torch

from model.data import MnistData
from model.module import DigitClassifier
from model.study.plan import METHODS, Settings, Trial, method_batch_size, optimizer_trial
from model.study.training import Data, figures, train
from tests.processes import ROOT

SETTINGS = Settings(hidden_size=16, epochs=2, gd_factor=1, train_images=1_000)


@pytest.fixture(scope="module")
def data(mnist: MnistData) -> Data:
    train_images = mnist.split("train").take(torch.arange(SETTINGS.train_images))
    return Data(train=train_images, seen=train_images, validation=mnist.split("validation"), test=mnist.split("test"))


class FirstImages(MnistData):
    """MNIST with the study's few training images."""

    def split(self, name: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
        found = super().split(name)
        return found.take(torch.arange(SETTINGS.train_images)) if name == "train" else found


def lightning(trial: Trial) -> DigitClassifier:
    """What `fit` makes of a trial."""
    method = METHODS[trial.method]
    pl.seed_everything(trial.seed, verbose=False)
    module = DigitClassifier(
        hidden_sizes=[SETTINGS.hidden_size],
        dropout_rate=trial.dropout_rate,
        optimizer=method.optimizer,
        learning_rate=trial.learning_rate,
        schedule="constant",
        **method.options,
    )
    trainer = pl.Trainer(
        max_epochs=trial.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, FirstImages(str(ROOT / "data" / "mnist"), batch_size=trial.batch_size))
    return module


@pytest.mark.filterwarnings("ignore:The number of training batches", "ignore:It is recommended to use")
@pytest.mark.parametrize("method", METHODS)
def test_the_bare_loop_gives_the_losses_that_lightning_gives(method: str, data: Data) -> None:
    trial = optimizer_trial(SETTINGS, method, 0.01, seed=3)
    assert trial.batch_size == method_batch_size(SETTINGS, method)
    last = train(trial, SETTINGS, data).points[-1]
    module = lightning(trial)
    assert (last.train_loss, last.train_accuracy) == figures(module.network, data.train)
    assert (last.validation_loss, last.validation_accuracy) == figures(module.network, data.validation)
