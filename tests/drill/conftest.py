"""What the drill has: the cluster with a registry that knows its models, and a release under load."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.drill.challengers import Models, enrol, make_models
from tests.drill.release import Release
from tests.e2e.cluster import NAMESPACE, Cluster
from tests.e2e.conftest import cluster, images
from tests.e2e.training import Registry
from tests.processes import ROOT

__all__ = ["cluster", "images"]

IS_FULL = bool(os.environ.get("FULL"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    made = make_models(tmp_path_factory.mktemp("models"), is_full=IS_FULL)
    for name, accuracy in made.golden_accuracy.items():
        print(f"{name}: {accuracy:.2%} of the golden images", flush=True)
    return made


@pytest.fixture(scope="session")
def registry(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """MLflow in the cluster; where it was not there, it goes in the end."""
    is_there = bool(cluster.pods(NAMESPACE, "app.kubernetes.io/name=mlflow"))
    if not is_there:
        deploy_mlflow(cluster, tmp_path_factory.mktemp("overlay"))
    with cluster.forward("service/mlflow", 5000, NAMESPACE) as tracking_uri:
        yield Registry(tracking_uri)
    if not is_there and not os.environ.get("KEEP"):
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s", timeout=200)


def deploy_mlflow(cluster: Cluster, folder: Path) -> None:
    """Bring it as k8s/ has it, without a training Job."""
    name, tag = cluster.image("train").rsplit(":", 1)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": [os.path.relpath(ROOT / "k8s" / "mlflow", folder)],
        "images": [{"name": "chiffre-train", "newName": name, "newTag": tag}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    cluster.kubectl("apply", "-f", str(ROOT / "k8s" / "base" / "namespace.yaml"))
    cluster.kubectl("apply", "-k", str(folder))
    cluster.kubectl("rollout", "status", "--namespace", NAMESPACE, "deployment/mlflow", "--timeout=240s", timeout=260)


@pytest.fixture(scope="session")
def versions(models: Models, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The version of each model, by its name."""
    folder = tmp_path_factory.mktemp("enrolled")
    bundles = [("champion", models.champion), *models.challengers.items()]
    return {name: enrol(registry.client, bundle, folder / name) for name, bundle in bundles}


@pytest.fixture(scope="session")
def release(cluster: Cluster, registry: Registry, versions: dict[str, str]) -> Iterator[Release]:
    """It serves the champion in the beginning."""
    found = Release("drill", cluster, registry)
    found.remove()
    found.install(versions["champion"])
    yield found
    found.remove()
