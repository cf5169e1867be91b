"""A release that challengers want, how a roll-out is begun on it, and where it stands."""

import json
import os
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from model.registry import MODEL_NAME
from tests.e2e.cluster import CHART, NAMESPACE, SOURCE, Cluster, Manifest
from tests.e2e.training import Registry
from tests.processes import Process, run
from tests.tools import BIN

CHAMPION = "champion"


def uri(version: str) -> str:
    return f"mlflow://{MODEL_NAME}/{version}"


class Release:
    """In Knative mode, with a pod that is always there."""

    def __init__(self, name: str, cluster: Cluster, registry: Registry) -> None:
        self.name, self.cluster, self.registry = name, cluster, registry

    def install(self, version: str, **further: Any) -> None:
        """Serve a version, by ``further`` values beside the usual ones, and call it the champion."""
        values = {
            "model": {"uri": uri(version)},
            "scale": {"min": 1, "max": 2},
            "progressDeadlineSeconds": 60,
            # Another release may have brought it.
            "storageContainer": {"create": not self.cluster.storage_container_exists()},
            **further,
        }
        arguments = [self.name, str(CHART), "--namespace", NAMESPACE, *self.cluster.image_values(), "--values", "-"]
        self.cluster.helm("install", *arguments, stdin=json.dumps(values))
        self.cluster.ready(self.name, NAMESPACE, uri(version))
        self.registry.client.set_registered_model_alias(MODEL_NAME, CHAMPION, version)

    def remove(self) -> None:
        self.cluster.helm("uninstall", self.name, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")
        # Knative names the next first revision like the last one, and takes what is left of that for somebody else's.
        kinds = "revisions.serving.knative.dev,podautoscalers.autoscaling.internal.knative.dev,deployments"
        of = ("--namespace", NAMESPACE, "--selector", f"serving.knative.dev/service={self.name}-predictor", "--output=name")
        self.cluster.wait(f"{self.name} to go", lambda: not self.cluster.kubectl("get", kinds, *of), 120, NAMESPACE)

    @property
    def host(self) -> str:
        return self.cluster.host(self.name, NAMESPACE)

    def _service(self) -> Manifest:
        """Knative's."""
        found: Manifest = self.cluster.custom.get_namespaced_custom_object(
            "serving.knative.dev", "v1", NAMESPACE, "services", f"{self.name}-predictor"
        )
        return found

    def rollout(self, command: str, output: Path, *options: str) -> Process:
        """`python -m rollout`, as a user runs it."""
        place = ("--release", self.name, "--namespace", NAMESPACE, "--gateway", self.cluster.gateway)
        registry = ("--tracking_uri", self.registry.tracking_uri)
        path = f"{BIN}:{os.environ['PATH']}"
        return Process("rollout", command, *place, *registry, "--output", str(output), *options, PATH=path)

    def await_share(self, version: str, percent: int, process: Process) -> None:
        """Until ``version`` has that share of the traffic, by a roll-out that goes on."""

        def has_share() -> bool:
            assert process.popen.poll() is None, process.output
            service = self._service()
            of_version = service["spec"]["template"]["metadata"]["annotations"].get(SOURCE) == uri(version)
            tagged = [target for target in service["status"].get("traffic", []) if target.get("tag") == "latest"]
            newest = service["status"].get("latestReadyRevisionName")
            is_split = [
                target for target in tagged if (target.get("percent") or 0) == percent and target["revisionName"] == newest
            ]
            return bool(of_version and is_split and newest == service["status"]["latestCreatedRevisionName"])

        self.cluster.wait(f"version {version} to have {percent} %", has_share, 240, NAMESPACE)

    def verify_alone(self, version: str) -> None:
        """Raise AssertionError unless ``version`` has all traffic, is the champion, and nothing of a canary is left."""
        self.cluster.ready(self.name, NAMESPACE, uri(version))
        predictor = self.cluster.inference_service(self.name, NAMESPACE)["spec"]["predictor"]
        assert predictor["model"]["storageUri"] == uri(version)
        assert "canaryTrafficPercent" not in predictor
        service = self._service()
        traffic: list[dict[str, Any]] = service["status"]["traffic"]
        assert {target.get("tag") for target in traffic} <= {None, "latest"}, traffic
        assert {target["revisionName"] for target in traffic} == {service["status"]["latestReadyRevisionName"]}, traffic
        values = json.loads(self.cluster.helm("get", "values", self.name, "--namespace", NAMESPACE, "--output", "json"))
        assert values.get("canary", {}).get("percent") is None, values
        assert self.champion() == version

    def verify_record(self, version: str, output: Path) -> None:
        """Raise AssertionError unless the record of a promotion is borne out by its evidence, and is of ``version``."""
        digest = self.registry.version(int(version)).tags["bundle_digest"]
        of = ("--release", self.name, "--namespace", NAMESPACE, "--model-version", version, "--bundle_digest", digest)
        code, said = run("rollout", "verify", "--record", str(output / "record.json"), *of)
        assert code == 0, said

    def champion(self) -> str | None:
        """The version that the registry calls so."""
        try:
            return str(self.registry.client.get_model_version_by_alias(MODEL_NAME, CHAMPION).version)
        except MlflowException:
            return None
