"""What is started from zero, by KServe and Knative: the chart's release, the stock KServe SDK with torch, and a floor."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.cluster import CHART, Cluster

NAMESPACE, VOLUME_URI = "chiffre-cold", "pvc://bundle/digits"
HERE = Path(__file__).parent
_RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
_START_SECONDS = 180.0


@dataclass(frozen=True, kw_only=True)
class Images:
    """References of the images."""

    serve: str
    stock: str
    floor: str


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A release; ``uri`` is empty where there is no model, and ``kind`` says what serves it."""

    name: str
    kind: str
    uri: str = ""


def contestants(uri: str) -> tuple[Contestant, ...]:
    """All of them, with the model at ``uri`` and the same on a volume."""
    return (
        Contestant(name="chiffre-mlflow", kind="chiffre", uri=uri),
        Contestant(name="stock-mlflow", kind="stock", uri=uri),
        Contestant(name="chiffre-pvc", kind="chiffre", uri=VOLUME_URI),
        Contestant(name="stock-pvc", kind="stock", uri=VOLUME_URI),
        Contestant(name="floor", kind="floor"),
    )


class Field:
    """A namespace with the contestants in it."""

    def __init__(self, cluster: Cluster, images: Images, *, uri: str, tracking_uri: str) -> None:
        self._cluster, self._images, self._uri, self._tracking_uri = cluster, images, uri, tracking_uri

    @contextmanager
    def deployed(self, wanted: tuple[Contestant, ...]) -> Iterator[None]:
        """All of ``wanted``, ready; everything goes in the end."""
        self._apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
        try:
            self._fill()
            for contestant in wanted:
                self._deploy(contestant)
            for contestant in wanted:
                what = f"{contestant.name} to be ready"
                self._cluster.wait(what, lambda name=contestant.name: self._is_ready(name), _START_SECONDS, NAMESPACE)  # type: ignore[misc]
            yield
        finally:
            for release in self._cluster.helm("list", "--short", "--namespace", NAMESPACE).split():
                self._cluster.helm("uninstall", release, "--namespace", NAMESPACE)
            where = ("--namespace", NAMESPACE, "--timeout=100s")
            # Pods first: a volume goes after those that have it, and a namespace looks again ever more rarely.
            self._cluster.kubectl("delete", "inferenceservices.serving.kserve.io,pods", "--all", *where, timeout=110)
            self._cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=170s", timeout=180)

    def _apply(self, manifests: list[dict[str, Any]]) -> None:
        text = yaml.safe_dump_all(manifests)
        self._cluster.kubectl("apply", "--namespace", NAMESPACE, "--filename=-", stdin=text)

    def _fill(self) -> None:
        claim, pod = yaml.safe_load_all((HERE / "volume.yaml").read_text())
        container = pod["spec"]["containers"][0]
        container |= {"image": self._images.serve, "args": [self._uri, "/bundle/digits"]}
        container["env"] = [{"name": "MLFLOW_TRACKING_URI", "value": self._tracking_uri}]
        self._apply([claim, pod])
        self._cluster.wait("the bundle on its volume", lambda: self._phase("fill") == "Succeeded", 90, NAMESPACE)

    def _phase(self, pod: str) -> str:
        return str(self._cluster.core.read_namespaced_pod(pod, NAMESPACE).status.phase)

    def _is_ready(self, name: str) -> bool:
        found = self._cluster.inference_service(name, NAMESPACE).get("status", {}).get("conditions", [])
        return any(item["type"] == "Ready" and item["status"] == "True" for item in found)

    def _deploy(self, contestant: Contestant) -> None:
        deploy: dict[str, Callable[[Contestant], None]] = {"chiffre": self._install, "stock": self._peer, "floor": self._peer}
        deploy[contestant.kind](contestant)

    def _install(self, contestant: Contestant) -> None:
        repository, _, tag = self._images.serve.rpartition(":")
        values = {
            "model": {"uri": contestant.uri},
            "image": {"repository": repository, "tag": tag},
            "resources": _RESOURCES,
            "scale": {"max": 1, "window": "6s"},
            "mlflow": {"trackingUri": self._tracking_uri},
            "storageContainer": {"create": not self._cluster.storage_container_exists()},
        }
        where = ("--namespace", NAMESPACE, "--values", "-")
        self._cluster.helm("install", contestant.name, str(CHART), *where, stdin=json.dumps(values))

    def _peer(self, contestant: Contestant) -> None:
        runtime, service = yaml.safe_load_all((HERE / "peer.yaml").read_text())
        runtime["metadata"]["name"] = service["metadata"]["name"] = contestant.name
        container, model = runtime["spec"]["containers"][0], service["spec"]["predictor"]["model"]
        container["image"] = {"stock": self._images.stock, "floor": self._images.floor}[contestant.kind]
        model |= {"runtime": contestant.name, "resources": _RESOURCES}
        if contestant.uri:
            container["args"] = ["--model_name", "digits", "--model_dir", "/mnt/models"]
            model["storageUri"] = contestant.uri
        self._apply([runtime, service])
