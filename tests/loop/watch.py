"""Prometheus beside a cluster: it finds a release's pods as the chart says, and asks them through the API server."""

import os
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client

from tests.e2e.cluster import NAMESPACE, Cluster
from tests.prometheus import Prometheus

_SECONDS = 5
_PORT = 8080


class Watch(Prometheus):
    """With the scrape configuration and the rules that ``release`` left in a ConfigMap, at a shorter interval."""

    def __init__(self, directory: Path, cluster: Cluster, release: str) -> None:
        super().__init__(directory)
        files = cluster.core.read_namespaced_config_map(f"{release}-prometheus", NAMESPACE).data
        (scrape,) = yaml.safe_load(files.pop("scrape.yaml"))["scrape_configs"]
        for name, text in files.items():
            content = yaml.safe_load(text)
            for group in content["groups"]:
                group["interval"] = f"{_SECONDS}s"
            (directory / name).write_text(yaml.safe_dump(content))
        config = {
            "global": {"scrape_interval": f"{_SECONDS}s", "evaluation_interval": f"{_SECONDS}s"},
            "rule_files": sorted(files),
            "scrape_configs": [_through_the_api_server(scrape)],
        }
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))


def _through_the_api_server(scrape: dict[str, Any]) -> dict[str, Any]:
    """The same pods, for who cannot reach their addresses."""
    server = client.Configuration.get_default_copy()
    scheme, _, address = server.host.partition("://")
    path = rf"/api/v1/namespaces/$1/pods/$2:{_PORT}/proxy/metrics"
    return {
        **scrape,
        "scrape_interval": f"{_SECONDS}s",
        "scheme": scheme,
        "tls_config": {"ca_file": server.ssl_ca_cert, "cert_file": server.cert_file, "key_file": server.key_file},
        "kubernetes_sd_configs": [
            {**found, "kubeconfig_file": os.environ["KUBECONFIG"]} for found in scrape["kubernetes_sd_configs"]
        ],
        "relabel_configs": [
            *scrape["relabel_configs"],
            {
                "source_labels": ["namespace", "pod"],
                "separator": ";",
                "regex": "(.+);(.+)",
                "target_label": "__metrics_path__",
                "replacement": path,
            },
            {"target_label": "__address__", "replacement": address},
        ],
    }
