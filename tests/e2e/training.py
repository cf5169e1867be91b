"""Training on a cluster by `kubectl apply -k`, from an overlay of one's own over those of k8s/, and what comes of it."""

import os
from pathlib import Path
from typing import Any

import yaml
from mlflow.entities.model_registry import ModelVersion

from model.bundle import Bundle
from model.delivery import connect
from model.registry import MODEL_NAME
from tests.e2e.cluster import NAMESPACE, Cluster
from tests.processes import ROOT

JOB = "chiffre-train"
# Half a minute on two processors, and above the floors.
EPOCHS = 5
SHORT: dict[str, Any] = {"trainer": {"max_epochs": EPOCHS}}


class Registry:
    """The MLflow server of the cluster, at an address on this machine."""

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self.client = connect(tracking_uri)

    @property
    def versions(self) -> list[int]:
        """Of the model, in order."""
        return sorted(int(found.version) for found in self.client.search_model_versions(f"name='{MODEL_NAME}'"))

    def version(self, number: int) -> ModelVersion:
        return self.client.get_model_version(MODEL_NAME, str(number))

    def challenger(self) -> ModelVersion:
        return self.client.get_model_version_by_alias(MODEL_NAME, "challenger")

    def runs(self) -> set[str]:
        """All that ever began."""
        experiments = [found.experiment_id for found in self.client.search_experiments()]
        return {found.info.run_id for found in self.client.search_runs(experiments)}

    def losses(self, run_id: str) -> dict[str, list[tuple[int, float]]]:
        """What was logged, by figure: at which step, and what."""
        names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        logged = {name: self.client.get_metric_history(run_id, name) for name in names}
        return {name: sorted((entry.step, entry.value) for entry in logged[name]) for name in names}

    def bundle(self, run_id: str, folder: Path) -> Bundle:
        """What a run made, brought to ``folder``."""
        return Bundle.load(Path(self.client.download_artifacts(run_id, "bundle", str(folder))))


class Training:
    """Jobs in the namespace of k8s/, one after the other, which all have the same name."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    def is_deployed(self) -> bool:
        """Whether a Job has been here and MLflow with its versions still is."""
        return bool(self.cluster.pods(NAMESPACE, "app.kubernetes.io/name=mlflow"))

    def apply(self, *, overlay: str = "cpu", seed: int = 1, **changes: dict[str, Any]) -> str:
        """Bring an overlay with a short configuration, in the place of the Job before; the Job's name."""
        name, tag = self.cluster.image("train").rsplit(":", 1)
        config = {"seed_everything": seed, **SHORT, **changes}
        (self.folder / "short.yaml").write_text(yaml.safe_dump(config))
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(ROOT / "k8s" / "overlays" / overlay, self.folder)],
            "images": [{"name": "chiffre-train", "newName": name, "newTag": tag}],
            "configMapGenerator": [
                {"name": "chiffre-configs", "namespace": NAMESPACE, "behavior": "merge", "files": ["best.yaml=short.yaml"]}
            ],
        }
        (self.folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        self.remove()
        self.cluster.kubectl("apply", "-k", str(self.folder))
        return JOB

    def remove(self) -> None:
        """The Jobs, with their pods; MLflow stays."""
        labels = ("--selector", f"app.kubernetes.io/name={JOB}")
        self.cluster.kubectl(
            "delete", "job", "--namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s", *labels, timeout=100
        )
        self.cluster.wait("the training pods to go", lambda: not self.pods(), 60, NAMESPACE)

    def pods(self) -> list[Any]:
        """Of the Jobs, oldest first."""
        return self.cluster.pods(NAMESPACE, f"app.kubernetes.io/name={JOB}")

    def log(self) -> str:
        """Of the newest pod."""
        pods = self.pods()
        return self.cluster.log(pods[-1].metadata.name, NAMESPACE) if pods else ""

    def condition(self, job: str = JOB) -> tuple[str, str]:
        """How a Job ended and why: ``Complete`` or ``Failed``; nothing while it runs."""
        for found in self.cluster.batch.read_namespaced_job(job, NAMESPACE).status.conditions or []:
            if found.status == "True" and found.type in ("Complete", "Failed"):
                return found.type, f"{found.reason}: {found.message}"
        return "", ""

    def complete(self, job: str = JOB, seconds: float = 240) -> str:
        """Wait until a Job is complete; its log."""
        ended = self.cluster.wait(
            f"the Job {job} to end", lambda: found if any(found := self.condition(job)) else None, seconds, NAMESPACE
        )
        assert ended[0] == "Complete", f"{ended[1]}\n{self.log()}\n{self.cluster.report(NAMESPACE)}"
        return self.log()
