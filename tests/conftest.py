"""Real parts for the tests: the MNIST files, a bundle trained from them, a server that serves it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.bundle import Bundle
from model.data import MnistData
from tests.processes import ROOT, Server

# Small enough for seconds, good enough to be right nearly always; `fit` of this is what the resume tests repeat.
FIT = ["fit", "--model.hidden_sizes", "[64]", "--model.learning_rate", "0.005", "--trainer.max_epochs", "3"]


@pytest.fixture(scope="session")
def mnist() -> MnistData:
    return MnistData(str(ROOT / "data" / "mnist"))


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Path:
    """What an undisturbed `fit` leaves."""
    directory = tmp_path_factory.mktemp("run")
    subprocess.run(
        [sys.executable, "-m", "model", *FIT, "--trainer.default_root_dir", str(directory)],
        cwd=ROOT,
        env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri},
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=True,
    )
    return directory


@pytest.fixture(scope="session")
def bundle(run_directory: Path) -> Bundle:
    return Bundle.load(run_directory / "bundle")


@pytest.fixture(scope="session")
def server(bundle: Bundle) -> Iterator[Server]:
    with Server("--model_dir", str(bundle.directory)) as running:
        yield running
