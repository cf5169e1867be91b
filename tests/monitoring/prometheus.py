"""Debian's Prometheus, which scrapes real servers often and evaluates the chart's rules."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests import prometheus
from tests.chart.rendering import NAMESPACE, RELEASE
from tests.rules.groups import groups

# Everything is this many times as fast as by the chart's values, and alerts wait as much shorter.
SPEED = 7.5
_INTERVAL = f"{15 / SPEED:.0f}s"
EXPOSITIONS = Path(__file__).parent / "expositions"
# When the pod of the recording was made and was ready.
_CREATED, _READY = "1.795615369e+09", "1.795615383e+09"
_NAMES = ("kube-state-metrics", "cadvisor", "knative")
_DURATION = {"s": 1, "m": 60, "h": 3600}


class Cluster:
    """kube-state-metrics, the kubelet and Knative: what was recorded of them, on one port; `has_pods` may be taken away."""

    def __init__(self) -> None:
        self.has_pods, self._since = True, time.time()
        self._recorded = "".join((EXPOSITIONS / f"{name}.txt").read_text() for name in _NAMES)
        handler = type("Handler", (_Handler,), {"cluster": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def text(self) -> str:
        found = self._recorded
        if not self.has_pods:
            found = "".join(line for line in found.splitlines(keepends=True) if 'pod="' not in line)
            found = found.replace("pods_desired{", "pods_desired_{").replace("pods_count{", "pods_count_{")
            # Those of others stay.
            found += 'kube_pod_info{namespace="kube-system",pod="coredns",uid="1"} 1\n'
        return found.replace(_CREATED, str(self._since)).replace(_READY, str(self._since + 2))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_GET(self) -> None:
        body = self.cluster.text().encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Prometheus(prometheus.Prometheus):
    """With the rules of the release digits. Targets are pods by their name, given by `watch`."""

    def __init__(self, directory: Path, cluster: Cluster, *, waits: bool = True) -> None:
        super().__init__(directory)
        self._rules(waits)
        self.watch({})
        config = {
            "global": {"scrape_interval": _INTERVAL, "scrape_timeout": _INTERVAL, "evaluation_interval": _INTERVAL},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {"job_name": "pods", "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}]},
                {"job_name": "cluster", "honor_labels": True, "static_configs": [{"targets": [cluster.address]}]},
            ],
        }
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))

    def _rules(self, waits: bool) -> None:
        found = list(groups().values())
        for group in found:
            group["interval"] = _INTERVAL
            for rule in group["rules"]:
                wait = rule.pop("for", None)
                if wait and waits:
                    rule["for"] = f"{int(wait[:-1]) * _DURATION[wait[-1]] / SPEED:.0f}s"
        (self._directory / "rules.yaml").write_text(yaml.safe_dump({"groups": found}))

    def watch(self, pods: dict[str, str]) -> None:
        """Scrape the pods, addresses by name, as a PodMonitor would label them, and no others."""
        targets = [
            {"targets": [address], "labels": {"namespace": NAMESPACE, "pod": name, "inferenceservice": RELEASE}}
            for name, address in pods.items()
        ]
        scratch = self._directory / "targets.new"
        scratch.write_text(json.dumps(targets))
        scratch.rename(self._directory / "targets.json")
