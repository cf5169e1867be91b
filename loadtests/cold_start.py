"""From zero pods to the first right answer on a cluster, by phases, beside the stock KServe SDK with torch and a bare floor.

    docker build --file loadtests/cold/stock.Dockerfile --tag stock:1 .
    docker build --file loadtests/cold/floor.Dockerfile --tag floor:1 .
    IMG=chiffre TAG=0.1.0 GATEWAY=http://127.0.0.1:8080 .venv/bin/python loadtests/cold_start.py --stock stock:1 --floor floor:1

KUBECONFIG names a cluster with KServe, Knative and a registry that has ``--uri``; the images are where its nodes find them.
Contestants take turns, and each begins a round without pods. Ratios are taken within rounds. Phases are seen from here, so that
clocks of client and node have to agree. Exit code 1 where a bar is missed.
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
from kubernetes import watch

from loadtests.cold.contestants import NAMESPACE, Contestant, Field, Images, contestants
from loadtests.cold.moments import PHASES, Moments, lines, start
from loadtests.cold.report import judge, markdown
from model.data import MnistData
from tests.e2e.cluster import Cluster

_ANSWER_SECONDS, _ZERO_SECONDS = 120.0, 150.0
# What the watch has to be open for before the request, and how long a pod may be unready after it.
_WATCH_SECONDS, _READY_SECONDS = 0.5, 15
_SERVING = "serving.kserve.io/inferenceservice"


class Witness:
    """Sees when a new pod is scheduled and ready, in a thread of its own."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self._labels = cluster, f"{_SERVING}={name}"
        self._before = {pod.metadata.name for pod in cluster.pods(NAMESPACE, self._labels)}
        self.pod, self.seen = "", dict[str, float]()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()
        time.sleep(_WATCH_SECONDS)

    def _watch(self) -> None:
        seconds = int(_ANSWER_SECONDS + _READY_SECONDS)
        pods, watched = self._cluster.core.list_namespaced_pod, watch.Watch()
        options = {"label_selector": self._labels, "timeout_seconds": seconds, "_request_timeout": seconds}
        for event in watched.stream(pods, NAMESPACE, **options):
            now, pod = time.time(), event["object"]
            if pod.metadata.name in self._before:
                continue
            self.pod = pod.metadata.name
            for condition in pod.status.conditions or []:
                if condition.status == "True":
                    self.seen.setdefault(condition.type, now)
            if "Ready" in self.seen:
                return

    def wait(self) -> None:
        """Until the pod is ready. Raises `RuntimeError` where it is not."""
        self._thread.join(_READY_SECONDS)
        if "Ready" not in self.seen:
            message = f"{self._labels}: the pod {self.pod or 'that answered'} was not seen ready"
            raise RuntimeError(message)


def is_at_zero(cluster: Cluster, name: str) -> bool:
    """Whether all pods are gone or going, and the next request is one that Knative's activator holds."""
    pods = cluster.pods(NAMESPACE, f"{_SERVING}={name}")
    proxies = cluster.objects("networking.internal.knative.dev", "v1alpha1", "serverlessservices", NAMESPACE)
    mine = [found for found in proxies if found["metadata"]["name"].startswith(f"{name}-predictor-")]
    return all(pod.metadata.deletion_timestamp for pod in pods) and all(found["spec"]["mode"] == "Proxy" for found in mine)


def ask(cluster: Cluster, contestant: Contestant, host: str, image: list[list[float]], label: int) -> None:
    """A question and its right answer, on a new connection."""
    with httpx.Client(base_url=cluster.gateway, headers={"host": host}, timeout=_ANSWER_SECONDS) as client:
        if contestant.kind == "floor":
            assert client.get("/").raise_for_status().text == "floor\n"
            return
        answer = client.post("/v1/models/digits:predict", json={"instances": [image]}).raise_for_status().json()
        assert answer["predictions"][0]["label"] == label, "a wrong answer has no time"


def start_once(cluster: Cluster, contestant: Contestant, image: list[list[float]], label: int) -> Moments:
    """One start from zero."""
    name = contestant.name
    cluster.wait(f"{name} to have no pods", lambda: is_at_zero(cluster, name), _ZERO_SECONDS, NAMESPACE)
    host, witness = cluster.host(name, NAMESPACE), Witness(cluster, name)
    witness.start()
    asked = time.time()
    ask(cluster, contestant, host, image, label)
    answered = time.time()
    witness.wait()

    def log(container: str) -> list[tuple[float, str]]:
        return lines(cluster.core.read_namespaced_pod_log(witness.pod, NAMESPACE, container=container, timestamps=True))

    begun, listening = start(log("kserve-container"))
    return Moments(
        asked=asked,
        scheduled=witness.seen["PodScheduled"],
        fetched=log("storage-initializer")[-1][0] if contestant.uri.startswith("mlflow://") else None,
        begun=begun,
        listening=listening,
        ready=witness.seen["Ready"],
        answered=answered,
    )


def measure(cluster: Cluster, wanted: tuple[Contestant, ...], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Phases of each contestant, in turn; the first round only fills caches."""
    split = MnistData("data/mnist").split("test")
    image, label = split.images[0].tolist(), int(split.labels[0])
    figures: dict[str, list[dict[str, float]]] = {contestant.name: [] for contestant in wanted}
    for number in range(rounds + 1):
        for contestant in wanted:
            phases = start_once(cluster, contestant, image, label).phases
            figures[contestant.name] += [phases] if number else []
            print(
                f"{number} {contestant.name:16}",
                *(f"{name} {phases[name]:.2f}" for name in PHASES),
                f"{sum(phases.values()):.2f}",
            )
    return figures


def main() -> int:
    """Measure, write the figures and the table, and hold them against the bars."""
    parser = argparse.ArgumentParser(description="Time the start from zero pods.")
    parser.add_argument("--uri", default="mlflow://digits/1", help="The model.")
    parser.add_argument("--tracking-uri", default="http://mlflow.chiffre.svc.cluster.local:5000", help="Its registry, for pods.")
    parser.add_argument("--stock", required=True, help="Image of the stock SDK.")
    parser.add_argument("--floor", required=True, help="Image of the floor.")
    parser.add_argument("--rounds", type=int, default=10, help="Counted starts of each.")
    parser.add_argument("--only", nargs="+", default=[], help="Names of contestants; all of them otherwise.")
    parser.add_argument(
        "--output", type=Path, default=Path("build/cold_start"), help="Of the figures and the table, without suffix."
    )
    arguments = parser.parse_args()
    cluster = Cluster()
    images = Images(serve=cluster.image("serve"), stock=arguments.stock, floor=arguments.floor)
    wanted = tuple(each for each in contestants(arguments.uri) if not arguments.only or each.name in arguments.only)
    with Field(cluster, images, uri=arguments.uri, tracking_uri=arguments.tracking_uri).deployed(wanted):
        figures = measure(cluster, wanted, arguments.rounds)
        verdicts = judge(figures)
        write(arguments.output, {"rounds": figures, "verdicts": [vars(verdict) for verdict in verdicts]}, markdown(figures))
        print("\n".join(verdict.line for verdict in verdicts))
    cluster.close()
    return 0 if all(verdict.held for verdict in verdicts) else 1


def write(output: Path, figures: dict[str, Any], table: str) -> None:
    """The figures as JSON, and the table as Markdown."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    output.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    sys.exit(main())
