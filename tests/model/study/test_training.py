"""The study's bare loop beside Lightning's: the same losses."""

from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch

from model.data import MnistData, Split
from model.module import DigitClassifier
from model.network import Network
from model.optimizers import build_optimizer
from model.study.plan import METHODS, Settings, Trial, batch_trial, method_kind, optimizer_trial
from model.study.training import Data, evaluation_steps, figures, train, train_step
from tests.processes import ROOT

SETTINGS = Settings(hidden_size=16, epochs=2, gd_factor=1, train_images=1_000)


def first(split: Split) -> Split:
    return split.take(torch.arange(SETTINGS.train_images))


@pytest.fixture(scope="module")
def data(mnist: MnistData) -> Data:
    images = first(mnist.split("train"))
    return Data(train=images, seen=images, validation=first(mnist.split("validation")), test=first(mnist.split("test")))


class FirstImages(MnistData):
    """MNIST with the study's few training images."""

    def split(self, name: str) -> Split:
        return first(super().split(name))


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
    assert trial.batch_size == method_kind(SETTINGS, method).batch_size
    result = train(trial, SETTINGS, data)
    module = lightning(trial)
    last = result.points[-1]
    assert (last.train_loss, last.train_accuracy) == figures(module.network, data.train)
    assert (last.validation_loss, last.validation_accuracy) == figures(module.network, data.validation)
    assert result.test_accuracy == figures(module.network, data.test)[1]


def test_a_run_is_the_same_each_time_and_another_with_another_seed(data: Data) -> None:
    trial = optimizer_trial(SETTINGS, "adam", 0.01, seed=1)
    runs = [train(one, SETTINGS, data) for one in (trial, trial, replace(trial, seed=2))]
    losses = [[point.validation_loss for point in result.points] for result in runs]
    assert losses[0] == losses[1]
    assert set(losses[0]).isdisjoint(losses[2])


def test_parts_of_a_batch_add_up_to_its_step(data: Data) -> None:
    # Dropout too: its draws for the parts are, one after the other, those for the whole.
    weights = []
    for chunk in (SETTINGS.train_images, 100):
        torch.manual_seed(0)
        network = Network([16], 0.2).train()
        optimizer = build_optimizer("gd", network.parameters(), learning_rate=0.5)
        for step in range(3):
            train_step(network, optimizer, (data.train.images, data.train.labels), seed=0, step=step, chunk=chunk)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
    assert torch.allclose(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_evaluations_are_spread_over_the_steps_there_are() -> None:
    settings = Settings(train_images=1_000)
    trial = batch_trial(settings, 100, 0.1, seed=1)
    assert evaluation_steps(trial, settings) == list(range(1, 21))
    assert evaluation_steps(replace(trial, batch_size=1_000), settings) == [1, 2]
    assert evaluation_steps(replace(trial, batch_size=1), settings) == list(range(100, 2_001, 100))
    assert evaluation_steps(replace(trial, batch_size=300, evaluations=3), settings)[-1] == 8


def test_a_run_whose_loss_is_no_number_ends_there(data: Data) -> None:
    result = train(optimizer_trial(SETTINGS, "sgd", 1e30, seed=1), SETTINGS, data)
    assert result.has_diverged
    assert len(result.points) == 1
    assert result.test_accuracy is not None
