"""A release as the cluster has it: KServe's InferenceService, Knative's Service and its revisions; and Events beside them."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from rollout.errors import RolloutError
from rollout.values import MARK

EventReason = Literal["RolloutStep", "RolloutPromoted", "RolloutRolledBack", "RolloutHeld"]

_SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
_MODE = "serving.kserve.io/deploymentMode"
_CONTAINER = "kserve-container"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CALL_SECONDS = 20.0
_MESSAGE_LENGTH = 1000
_FULL = 100

Manifest = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Pods:
    """What tells one revision's pods from another's: the model's URI, the server's image, and the mark of an A/A round."""

    uri: str
    image: str
    mark: str


@dataclass(frozen=True, kw_only=True)
class View:
    """What a release's objects say at one moment.

    Args:
        wanted: What the newest revision is to be.
        newest: What the newest revision is.
        runtime_image: The image that the ServingRuntime names by now.
        is_observed: Whether Knative has taken notice of the last change, and the ingress of the routes.
        created: The newest revision.
        newest_ready: The newest revision that is ready.
        rolled_out: The one that had all traffic last, as KServe remembers it.
        shares: Percent of the traffic by revision.
        tags: Revisions by tag.
        hosts: Host names by tag.
        scheme: How the service is asked, ``http`` or ``https``.
        uid: Of the InferenceService: no other has it, in no other cluster.
        trouble: Why the newest revision is not ready; empty where it is, or may yet be.
    """

    wanted: Pods
    newest: Pods
    runtime_image: str
    is_observed: bool
    created: str
    newest_ready: str
    rolled_out: str
    shares: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "http"
    uid: str = ""
    trouble: str = ""

    def is_of(self, *, uri: str, mark: str) -> bool:
        """Whether the newest revision is what the release's values name."""
        return self.is_observed and self.wanted == self.newest == Pods(uri=uri, image=self.runtime_image, mark=mark)

    def serves(self, *, uri: str, mark: str, percent: int | None) -> bool:
        """Whether the newest revision is of this model and ready, and has this share; None and 100 are all of it."""
        if not self.is_of(uri=uri, mark=mark) or self.created != self.newest_ready:
            return False
        if percent is None or percent == _FULL:
            # KServe splits the next canary's traffic with what it remembers, a moment later.
            return self.shares.get(self.created) == _FULL and self.rolled_out == self.created and "prev" not in self.tags
        old = self.tags.get("prev")
        is_split = self.shares.get(self.created, 0) == percent and self.shares.get(old or "", 0) == _FULL - percent
        return is_split and old is not None and old != self.created and self.tags.get("latest") == self.created


class Cluster:
    """The one of KUBECONFIG, or the one around this pod. Raises `RolloutError` where there is neither."""

    def __init__(self, namespace: str) -> None:
        _load_config()
        self.namespace = namespace
        # Each call has a timeout of its own, so that a second try of urllib3's would only double it.
        settings: Any = client.Configuration.get_default_copy()
        settings.retries = urllib3.Retry(0)
        self.api: Any = _Api(settings)
        self._custom: Any = client.CustomObjectsApi(self.api)
        self._core: Any = client.CoreV1Api(self.api)

    def close(self) -> None:
        """Give the connections back."""
        self.api.close()

    def refuse_other_modes(self, release: str) -> None:
        """Raises `RolloutError` where KServe has no canary for a release."""
        service = self._get("serving.kserve.io", "v1beta1", "inferenceservices", release)
        mode = service["metadata"].get("annotations", {}).get(_MODE, "Knative")
        if mode not in ("Knative", "Serverless"):
            message = f"release {release} runs in {mode} mode, where KServe has no canary: a roll-out needs mode Knative"
            raise RolloutError(message)

    def view(self, release: str) -> View:
        """Raises `RolloutError`."""
        service = self._get("serving.knative.dev", "v1", "services", f"{release}-predictor")
        inference = self._get("serving.kserve.io", "v1beta1", "inferenceservices", release)
        runtime = self._get("serving.kserve.io", "v1alpha1", "servingruntimes", release)
        created = service.get("status", {}).get("latestCreatedRevisionName", "")
        revision = self._get("serving.knative.dev", "v1", "revisions", created) if created else {}
        return read_view(service, inference, runtime, revision)

    def image_digest(self, release: str) -> str:
        """The sha256 of the newest revision's image, as the release, Knative or its pods name it. Raises `RolloutError`."""
        service = self._get("serving.knative.dev", "v1", "services", f"{release}-predictor")
        name = service.get("status", {}).get("latestCreatedRevisionName", "")
        revision = self._get("serving.knative.dev", "v1", "revisions", name)
        statuses = revision.get("status", {}).get("containerStatuses") or []
        known = [_image(revision["spec"])]
        known += [str(status.get("imageDigest", "")) for status in statuses if status.get("name") == _CONTAINER]
        # Knative asks no registry about an image that is only on the nodes.
        pods = self._pods(f"serving.knative.dev/revision={name}")
        known += [status.image_id for pod in pods for status in pod.status.container_statuses or [] if status.name == _CONTAINER]
        found = next((match[0] for text in known if (match := _DIGEST.search(text or ""))), "")
        if not found:
            message = f"release {release}: neither Knative nor a pod of revision {name} tells the digest of its image"
            raise RolloutError(message)
        return found

    def _pods(self, labels: str) -> list[Any]:
        try:
            found: list[Any] = self._core.list_namespaced_pod(self.namespace, label_selector=labels).items
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            raise _explained(error, f"pods in namespace {self.namespace}") from None
        return found

    def say(self, release: str, reason: EventReason, message: str) -> None:
        """Write an Event on the InferenceService. Raises `RolloutError`."""
        service = self._get("serving.kserve.io", "v1beta1", "inferenceservices", release)
        now = datetime.now(UTC)
        involved = {key: service["metadata"].get(key) for key in ("name", "namespace", "uid")}
        event = {
            "metadata": {"generateName": f"{release}.", "namespace": self.namespace},
            "involvedObject": {"apiVersion": service["apiVersion"], "kind": service["kind"], **involved},
            "reason": reason,
            "message": message[:_MESSAGE_LENGTH],
            "type": "Warning" if reason == "RolloutRolledBack" else "Normal",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": "rollout"},
        }
        try:
            self._core.create_namespaced_event(self.namespace, event)
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            raise _explained(error, f"an Event on {release}") from None

    def _get(self, group: str, version: str, plural: str, name: str) -> Manifest:
        try:
            found: Manifest = self._custom.get_namespaced_custom_object(group, version, self.namespace, plural, name)
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            raise _explained(error, f"{plural} {name} in namespace {self.namespace}") from None
        return found


def _load_config() -> None:
    path = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    # The client looks the variable up once, when it is imported.
    is_inside = not os.environ.get("KUBECONFIG") and "KUBERNETES_SERVICE_HOST" in os.environ
    try:
        if is_inside:
            config.load_incluster_config()
        else:
            config.load_kube_config(config_file=path)
    except (ConfigException, OSError) as error:
        message = f"KUBECONFIG: {path}: {error}"
        raise RolloutError(message) from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        # The client takes for granted what stands in it.
        message = f"KUBECONFIG: {path}: expected a kubeconfig in YAML, got what cannot be read as one: {error}"
        raise RolloutError(message) from None


class _Api(client.ApiClient):
    """The API server's client, with a timeout for each question."""

    def call_api(self, *arguments: Any, **options: Any) -> Any:
        options["_request_timeout"] = options.get("_request_timeout") or _CALL_SECONDS
        return super().call_api(*arguments, **options)


def _explained(error: Exception, what: str) -> RolloutError:
    if isinstance(error, ApiException):
        return RolloutError(f"{what}: the cluster answered {error.status} {error.reason}")
    return RolloutError(f"the cluster is not reachable: {error}")


def read_view(service: Manifest, inference: Manifest, runtime: Manifest, revision: Manifest) -> View:
    """What the objects say; ``revision`` is the newest of the Knative Service, or empty."""
    status, template = service.get("status", {}), service["spec"]["template"]
    traffic = status.get("traffic", [])
    shares: dict[str, int] = {}
    for target in traffic:
        name = target.get("revisionName", "")
        shares[name] = shares.get(name, 0) + (target.get("percent") or 0)
    routes = _condition(service, "RoutesReady")
    tagged = {target["tag"]: target for target in traffic if target.get("tag")}
    hosts = {tag: urlsplit(target.get("url", "")).netloc for tag, target in tagged.items()}
    predictor = inference.get("status", {}).get("components", {}).get("predictor", {})
    return View(
        wanted=_pods(template),
        newest=_pods(revision),
        runtime_image=_image(runtime["spec"]),
        is_observed=status.get("observedGeneration") == service["metadata"]["generation"] and routes.get("status") == "True",
        created=status.get("latestCreatedRevisionName", ""),
        newest_ready=status.get("latestReadyRevisionName", ""),
        rolled_out=predictor.get("latestRolledoutRevision", ""),
        shares=shares,
        tags={tag: target.get("revisionName", "") for tag, target in tagged.items()},
        hosts=hosts,
        scheme=urlsplit(status.get("url", "")).scheme or "http",
        uid=inference["metadata"]["uid"],
        trouble=_trouble(revision, inference),
    )


def _condition(content: Manifest, kind: str) -> Manifest:
    return next((item for item in content.get("status", {}).get("conditions", []) if item["type"] == kind), {})


def _pods(template: Manifest) -> Pods:
    annotations = template.get("metadata", {}).get("annotations", {})
    return Pods(uri=annotations.get(_SOURCE, ""), image=_image(template.get("spec", {})), mark=annotations.get(MARK, ""))


def _image(spec: Manifest) -> str:
    containers = spec.get("containers", [])
    return str(next((container.get("image", "") for container in containers if container["name"] == _CONTAINER), ""))


def _trouble(revision: Manifest, inference: Manifest) -> str:
    """Knative's word for why a revision is not ready, and KServe's for what its containers said."""
    ready = _condition(revision, "Ready")
    if ready.get("status") != "False":
        return ""
    failure = inference.get("status", {}).get("modelStatus", {}).get("lastFailureInfo", {})
    # It may be an older one, of the release's beginning.
    ended = failure.get("message") if failure.get("reason") == "ModelLoadFailed" else None
    said = [ready.get("reason"), ready.get("message"), ended]
    return " ".join(": ".join(text for text in said if text).split()) or "its Ready condition is False"
