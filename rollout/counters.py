"""Users' requests and failures by revision, as the servers themselves count them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException
from prometheus_client.parser import text_string_to_metric_families
from urllib3.exceptions import HTTPError

_REVISION, _RELEASE = "serving.knative.dev/revision", "serving.kserve.io/inferenceservice"
_CONTAINER, _PORT = "kserve-container", 8080
_CALL_SECONDS = 10.0
_ROUTES = ("predict", "infer")
# Of gRPC and of HTTP; a client that goes away, 499 and CANCELLED, is not the server's failure.
_FAILURES = ("500", "503", "UNAVAILABLE", "INTERNAL")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Predictions that were asked for since a server started, and those of them that failed.

    Args:
        requests: Those that were answered, one way or another.
        failed: Those answered by a status that says so.
        deaths: Processes that died; each took at least one request along, which nobody counted.
    """

    requests: int = 0
    failed: int = 0
    deaths: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            requests=self.requests + other.requests, failed=self.failed + other.failed, deaths=self.deaths + other.deaths
        )


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What a pod's server counted since it started, and how many times before that it had died."""

    counts: Counts
    restarts: int = 0


# By revision and name of the pod; None for one that could not be read.
Reading = Mapping[str, Mapping[str, Pod | None]]


def count(text: str) -> Counts:
    """What the metrics of one server say. Raises ValueError for what are none."""
    requests = failed = deaths = 0.0
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if name == "chiffre_requests_total" and labels["route"] in _ROUTES:
                requests += value
                failed += value if labels["status"] in _FAILURES else 0
            elif name == "chiffre_worker_restarts_total":
                deaths += value
    return Counts(requests=int(requests), failed=int(failed), deaths=int(deaths))


def read(core: Any, namespace: str, release: str) -> Reading:
    """What the pods of a release say at this moment; those that are on their way, up or down, may be missing.

    ``core`` is the Kubernetes client's CoreV1Api. Raises its `ApiException` where the pods cannot be listed.
    """
    found: dict[str, dict[str, Pod | None]] = {}
    pods = core.list_namespaced_pod(namespace, label_selector=f"{_RELEASE}={release}", _request_timeout=_CALL_SECONDS)
    for pod in pods.items:
        statuses, counted = pod.status.container_statuses or [], _count(core, namespace, pod.metadata.name)
        restarts = sum(status.restart_count for status in statuses if status.name == _CONTAINER)
        read = Pod(counts=counted, restarts=restarts) if counted else None
        # Who is not ready yet was asked by nobody: it is left out, so that all that it will have counted is new.
        if read or (statuses and all(status.ready for status in statuses)):
            found.setdefault(pod.metadata.labels[_REVISION], {})[pod.metadata.name] = read
    return found


def _count(core: Any, namespace: str, pod: str) -> Counts | None:
    try:
        reply = core.connect_get_namespaced_pod_proxy_with_path(
            f"{pod}:{_PORT}", namespace, "metrics", _preload_content=False, _request_timeout=_CALL_SECONDS
        )
    except (ApiException, HTTPError):
        return None
    return count(reply.data.decode())


def since(before: Reading, after: Reading) -> dict[str, Counts]:
    """What came between two readings, by revision; at least that, where pods went away in between or could not be read."""
    found = {}
    for revision, pods in after.items():
        earlier = before.get(revision, {})
        # Nobody knows how much of what one has counted in all its life is new, if it could not be read before.
        pairs = ((earlier.get(name, _NEW), pod) for name, pod in pods.items())
        found[revision] = sum((_increase(first, last) for first, last in pairs if first and last), Counts())
    return found


_NEW = Pod(counts=Counts())


def _increase(before: Pod, after: Pod) -> Counts:
    # A server that started again counts from 0, and may do so before the cluster says that it did.
    is_same = after.restarts == before.restarts and after.counts.requests >= before.counts.requests
    start = before.counts if is_same else Counts()
    return Counts(
        requests=after.counts.requests - start.requests,
        failed=after.counts.failed - start.failed,
        deaths=after.counts.deaths - start.deaths + after.restarts - before.restarts,
    )
