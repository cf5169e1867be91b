"""What the tests on a cluster share: the cluster, and a registry with two versions that were trained on it.

make e2e IMG=registry.example.com/chiffre GATEWAY=http://127.0.0.1:8080
make e2e KEEP=1 ARGS=tests/e2e/test_knative.py      # leaves the registry in the cluster, or uses the one that is there
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model.data import MnistData
from tests.e2e.cluster import NAMESPACE, Cluster
from tests.e2e.training import Registry, Training
from tests.processes import ROOT

Images = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    found = Cluster()
    yield found
    found.close()


@pytest.fixture(scope="session")
def training(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    """Brings Jobs to the namespace of k8s/, which goes in the end."""
    yield Training(cluster, tmp_path_factory.mktemp("overlay"))
    if not os.environ.get("KEEP"):
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s", timeout=200)


@pytest.fixture(scope="session")
def registry(cluster: Cluster, training: Training) -> Iterator[Registry]:
    """MLflow in the cluster, with two versions of the model that the Job trained, from different seeds."""
    if not training.is_deployed():
        for seed in (1, 2):
            training.complete(training.apply(seed=seed))
    with cluster.forward("service/mlflow", 5000, NAMESPACE) as tracking_uri:
        yield Registry(tracking_uri)


@pytest.fixture(scope="session")
def images() -> Images:
    """Test images, bytes (n, 28, 28), and their labels."""
    split = MnistData(str(ROOT / "data" / "mnist")).split("test")
    pixels = (split.images[:1000].numpy() * 255).round().astype(np.uint8)
    return pixels, split.labels[:1000].numpy()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Training comes first: it makes what the others serve."""
    items.sort(key=lambda item: Path(item.path).name != "test_train.py")
