"""A cluster as the tests use it: kubectl and Helm write to it, the Kubernetes client reads it, and each wait ends."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from tests.processes import ROOT
from tests.tools import HELM, KUBECTL

T = TypeVar("T")
Manifest = dict[str, Any]

NAMESPACE = "chiffre"
CHART = ROOT / "helm" / "chiffre"
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"

_POLL_SECONDS = 0.3
_CALL_SECONDS = 20.0


class _Client(client.ApiClient):
    """The API server's, with a timeout for each question."""

    def call_api(self, *arguments: Any, **options: Any) -> Any:
        options["_request_timeout"] = options.get("_request_timeout") or _CALL_SECONDS
        return super().call_api(*arguments, **options)


class Cluster:
    """The one that KUBECONFIG names, with its ingress gateway at GATEWAY, and the images IMG-serve:TAG and IMG-train:TAG."""

    def __init__(self) -> None:
        missing = [name for name in ("GATEWAY", "IMG", "TAG") if not os.environ.get(name)]
        assert not missing, f"{', '.join(missing)}: expected in the environment; `make e2e GATEWAY=http://...` sets the others"
        self.gateway = os.environ["GATEWAY"].rstrip("/")
        try:
            config.load_kube_config()
        except ConfigException as error:
            message = f"KUBECONFIG: {error}"
            raise AssertionError(message) from error
        self._client: Any = _Client()
        # In its types everything may be None.
        self.core: Any = client.CoreV1Api(self._client)
        self.batch: Any = client.BatchV1Api(self._client)
        self.apps: Any = client.AppsV1Api(self._client)
        self.networking: Any = client.NetworkingV1Api(self._client)
        self.custom: Any = client.CustomObjectsApi(self._client)

    def close(self) -> None:
        self._client.close()

    @staticmethod
    def image(target: str) -> str:
        """The reference of the image ``serve`` or ``train``."""
        return f"{os.environ['IMG']}-{target}:{os.environ['TAG']}"

    def image_values(self) -> list[str]:
        """The serving image as Helm's arguments."""
        repository, _, tag = self.image("serve").rpartition(":")
        return ["--set", f"image.repository={repository}", "--set-string", f"image.tag={tag}"]

    def kubectl(self, *arguments: str, stdin: str = "", timeout: float = 60) -> str:
        """Standard output. Raises AssertionError with what it says when it fails."""
        return _run([str(KUBECTL), *arguments], stdin, timeout)

    def helm(self, *arguments: str, stdin: str = "", timeout: float = 120) -> str:
        """The same for Helm."""
        return _run([str(HELM), *arguments], stdin, timeout)

    def wait(self, what: str, holds: Callable[[], T | None], seconds: float, namespace: str) -> T:
        """The first answer of ``holds`` that is true. Raises AssertionError with what the namespace says after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not (found := _answer(holds)):
            assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}\n{self.report(namespace)}"
            time.sleep(_POLL_SECONDS)
        return found

    def report(self, namespace: str) -> str:
        """What the cluster says about a namespace: pods, why containers ended, events, ends of logs."""
        lines = [f"{namespace}:"]
        for pod in self.core.list_namespaced_pod(namespace).items:
            states = (*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or []))
            lines.append(f"  pod {pod.metadata.name} {pod.status.phase} {pod.status.message or ''}")
            lines += [f"    {line}" for state in states if (line := _state(state))]
            if not all(state.ready for state in states):
                lines += [f"      {line}" for line in self.log(pod.metadata.name, namespace).splitlines()[-8:]]
        events = sorted(self.core.list_namespaced_event(namespace).items, key=_when)
        lines += [f"  event {event.involved_object.name}: {event.reason}: {event.message}" for event in events[-25:]]
        for service in self._inference_services(namespace):
            conditions = [f"{item['type']}={item['status']}" for item in service.get("status", {}).get("conditions", [])]
            status = service.get("status", {}).get("modelStatus")
            lines.append(f"  inferenceservice {service['metadata']['name']}: {' '.join(conditions)} {status}")
        return "\n".join(lines)

    def log(self, pod: str, namespace: str, *, container: str | None = None) -> str:
        """A pod's log; empty where there is none yet."""
        name = container or _main_container(self, pod, namespace)
        try:
            text: str = self.core.read_namespaced_pod_log(pod, namespace, container=name)
        except ApiException:
            return ""
        return text

    def pods(self, namespace: str, labels: str) -> list[Any]:
        """Those with ``labels``, oldest first."""
        found = self.core.list_namespaced_pod(namespace, label_selector=labels).items
        return sorted(found, key=lambda pod: pod.metadata.creation_timestamp)

    def _inference_services(self, namespace: str) -> list[Manifest]:
        return self.objects("serving.kserve.io", "v1beta1", "inferenceservices", namespace)

    def objects(self, group: str, version: str, plural: str, namespace: str) -> list[Manifest]:
        """All of a kind in a namespace; none where the kind is not known."""
        try:
            found: list[Manifest] = self.custom.list_namespaced_custom_object(group, version, namespace, plural)["items"]
        except ApiException as error:
            if error.status == 404:
                return []
            raise
        return found

    def serves(self, api_version: str) -> bool:
        """Whether the API server knows a group and version, such as ``apps/v1``."""
        return api_version in self.kubectl("api-versions").split()

    def revisions(self, release: str, namespace: str) -> list[str]:
        """The names of a release's revisions in Knative mode."""
        found = self.custom.list_namespaced_custom_object(
            "serving.knative.dev", "v1", namespace, "revisions", label_selector=f"serving.knative.dev/service={release}-predictor"
        )
        return [item["metadata"]["name"] for item in found["items"]]

    def inference_service(self, release: str, namespace: str) -> Manifest:
        """With its status. Raises ApiException."""
        found: Manifest = self.custom.get_namespaced_custom_object(
            "serving.kserve.io", "v1beta1", namespace, "inferenceservices", release
        )
        return found

    def host(self, release: str, namespace: str) -> str:
        """The host by which the gateway knows a release that is ready."""
        url: str = self.inference_service(release, namespace)["status"]["components"]["predictor"]["url"]
        return url.partition("://")[2]

    def ready(self, release: str, namespace: str, uri: str | None = None, seconds: float = 180) -> None:
        """Wait until a release is ready and all its traffic goes to pods of ``uri``, or of what its specification says."""

        def holds() -> bool:
            service = self.inference_service(release, namespace)
            expected = uri or service["spec"]["predictor"]["model"]["storageUri"]
            conditions = {item["type"]: item["status"] for item in service.get("status", {}).get("conditions", [])}
            if conditions.get("Ready") != "True":
                return False
            mode = service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
            serves = self._knative_serves if mode == "Knative" else self._standard_serves
            return serves(f"{release}-predictor", namespace, expected)

        self.wait(f"{namespace}/{release} to serve {uri or 'its model'}", holds, seconds, namespace)

    def _knative_serves(self, name: str, namespace: str, uri: str) -> bool:
        service = self.custom.get_namespaced_custom_object("serving.knative.dev", "v1", namespace, "services", name)
        status = service["status"]
        latest = status.get("latestCreatedRevisionName")
        routed = sum(target.get("percent") or 0 for target in status.get("traffic", []) if target.get("revisionName") == latest)
        conditions = {item["type"]: item["status"] for item in status.get("conditions", [])}
        # The traffic says what the gateway is told, the condition that it has said to have it.
        return bool(
            conditions.get("Ready") == "True"
            and service["spec"]["template"]["metadata"]["annotations"].get(SOURCE) == uri
            and status.get("observedGeneration") == service["metadata"]["generation"]
            and latest == status.get("latestReadyRevisionName")
            and routed == 100
        )

    def _standard_serves(self, name: str, namespace: str, uri: str) -> bool:
        deployment = self.apps.read_namespaced_deployment(name, namespace)
        status, wanted = deployment.status, deployment.spec.replicas
        return bool(
            deployment.spec.template.metadata.annotations.get(SOURCE) == uri
            and status.observed_generation == deployment.metadata.generation
            and status.replicas == status.updated_replicas == status.available_replicas == wanted
        )

    def storage_container_exists(self) -> bool:
        """Whether somebody in this cluster brings mlflow:// models."""
        found = self.custom.list_cluster_custom_object("serving.kserve.io", "v1alpha1", "clusterstoragecontainers")["items"]
        prefixes = [form.get("prefix") for item in found for form in item["spec"]["supportedUriFormats"]]
        return "mlflow://" in prefixes

    @contextmanager
    def forward(self, target: str, port: int, namespace: str) -> Iterator[str]:
        """The address, on this machine, of a port of a pod or service."""
        command = [str(KUBECTL), "port-forward", "--namespace", namespace, target, f":{port}"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        try:
            line = process.stdout.readline()
            found = re.search(r"from (127\.0\.0\.1:\d+) ", line)
            assert found, f"{target}: no port was forwarded: {line}"
            yield f"http://{found[1]}"
        finally:
            process.terminate()
            process.wait(10)
            process.stdout.close()


def _answer(holds: Callable[[], T | None]) -> T | None:
    """What does not exist yet does not hold."""
    try:
        return holds()
    except ApiException as error:
        if error.status == 404:
            return None
        raise


def _run(command: list[str], stdin: str, timeout: float) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT)
    assert done.returncode == 0, f"{' '.join(command[1:])}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def _state(status: Any) -> str:
    """Why a container does not run, or why it ended the last time."""
    for state in (status.state, status.last_state):
        if state and state.terminated:
            return f"{status.name}: exit code {state.terminated.exit_code}: {(state.terminated.message or '').strip()[-600:]}"
        if state and state.waiting:
            return f"{status.name}: {state.waiting.reason}: {state.waiting.message or ''}"
    return ""


def _when(event: Any) -> datetime:
    found: datetime = event.last_timestamp or event.event_time or datetime.min.replace(tzinfo=UTC)
    return found


def _main_container(cluster: Cluster, pod: str, namespace: str) -> str | None:
    """A predictor's pod has the queue-proxy beside the server."""
    try:
        names = [container.name for container in cluster.core.read_namespaced_pod(pod, namespace).spec.containers]
    except ApiException:
        return None
    return "kserve-container" if "kserve-container" in names else str(names[0])
