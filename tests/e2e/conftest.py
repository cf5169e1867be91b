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

from model.bundle import ONNX, Floats, probabilities
from model.data import MnistData
from model.export import onnx_logits
from tests.e2e.cluster import NAMESPACE, Cluster
from tests.e2e.training import Registry, Training
from tests.processes import ROOT

_COUNT = 200

Images = tuple[Floats, npt.NDArray[np.int64]]


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
        training.complete(training.apply(seed=1))
    with cluster.forward("service/mlflow", 5000, NAMESPACE) as tracking_uri:
        found = Registry(tracking_uri)
        while len(found.versions) < 2:
            training.complete(training.apply(seed=len(found.versions) + 1))
        yield found


@pytest.fixture(scope="session")
def images() -> Images:
    """Test images (n, 28, 28) in [0, 1] and their labels."""
    split = MnistData(str(ROOT / "data" / "mnist")).split("test")
    return split.images[:_COUNT].numpy(), split.labels[:_COUNT].numpy()


@pytest.fixture(scope="session")
def expected(registry: Registry, images: Images, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Floats]:
    """What the first two versions answer: probabilities (n, 10) of the images."""
    found = {}
    for number in registry.versions[:2]:
        bundle = registry.bundle(str(registry.version(number).run_id), tmp_path_factory.mktemp(f"version-{number}"))
        found[str(number)] = probabilities(onnx_logits(bundle.directory / ONNX, images[0]), bundle.temperature)
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What begins with an empty cluster comes first, then training: it makes what the others serve."""
    order = ["test_readme.py", "test_train.py"]
    items.sort(key=lambda item: order.index(name) if (name := Path(item.path).name) in order else len(order))
