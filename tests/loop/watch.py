"""Prometheus beside a cluster: it asks a release's pods through the API server, since their addresses may lead nowhere."""

import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from kubernetes import client

from tests.e2e.cluster import NAMESPACE, Cluster
from tests.prometheus import Prometheus

_SECONDS = 5
_PORT = 8080
_RELEASE, _REVISION = "serving.kserve.io/inferenceservice", "serving.knative.dev/revision"


class Watch(Prometheus):
    """With the rules that ``release`` left in a ConfigMap, at a shorter interval; its pods are labelled as a PodMonitor would.

    Debian's Prometheus finds no pods by itself, so that they are listed for it while this is entered.
    """

    def __init__(self, directory: Path, cluster: Cluster, release: str) -> None:
        super().__init__(directory)
        self._cluster, self._release = cluster, release
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._find_pods, daemon=True)
        files = cluster.core.read_namespaced_config_map(f"{release}-prometheus", NAMESPACE).data
        rules = {name: yaml.safe_load(text) for name, text in files.items() if name.startswith("rules-")}
        for name, content in rules.items():
            for group in content["groups"]:
                group["interval"] = f"{_SECONDS}s"
            (directory / name).write_text(yaml.safe_dump(content))
        config = {
            "global": {"scrape_interval": f"{_SECONDS}s", "evaluation_interval": f"{_SECONDS}s"},
            "rule_files": sorted(rules),
            "scrape_configs": [_scrape()],
        }
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self._list_pods()

    def __enter__(self) -> Self:
        self._thread.start()
        return super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(60)
        super().__exit__(kind, error, trace)

    def _find_pods(self) -> None:
        """What goes wrong here ends the thread, and pytest lets the test fail for it."""
        while not self._stop.wait(1):
            self._list_pods()

    def _list_pods(self) -> None:
        address = client.Configuration.get_default_copy().host.partition("://")[2]
        pods = [pod for pod in self._cluster.pods(NAMESPACE, f"{_RELEASE}={self._release}") if pod.status.phase == "Running"]
        targets = [
            {
                "targets": [address],
                "labels": {
                    "namespace": NAMESPACE,
                    "pod": pod.metadata.name,
                    "inferenceservice": self._release,
                    "revision": pod.metadata.labels[_REVISION],
                    "__metrics_path__": f"/api/v1/namespaces/{NAMESPACE}/pods/{pod.metadata.name}:{_PORT}/proxy/metrics",
                },
            }
            for pod in pods
        ]
        scratch = self._directory / "pods.new"
        scratch.write_text(json.dumps(targets))
        scratch.rename(self._directory / "pods.json")


def _scrape() -> dict[str, Any]:
    server = client.Configuration.get_default_copy()
    return {
        "job_name": f"{NAMESPACE}/pods",
        "scheme": server.host.partition("://")[0],
        "tls_config": {"ca_file": server.ssl_ca_cert, "cert_file": server.cert_file, "key_file": server.key_file},
        "file_sd_configs": [{"files": ["pods.json"], "refresh_interval": "1s"}],
    }
