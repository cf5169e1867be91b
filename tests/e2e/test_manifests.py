"""All that the project brings to a cluster, sent to its API server: schemas, admission, Pod Security; it keeps nothing."""

import copy
import json
from collections.abc import Iterator

import pytest

from tests.chart.rendering import NAMES, render
from tests.e2e.cluster import NAMESPACE, Cluster
from tests.k8s.overlays import OVERLAYS, Manifest, build
from tests.processes import ROOT

# Where no Job or release is, which would not let itself be changed.
ELSEWHERE = "chiffre-strict"
OPERATOR = "monitoring.coreos.com/v1"


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """One that takes restricted pods only, like that of k8s/."""
    (found,) = build(ROOT / "k8s" / "overlays" / "cpu").of("Namespace").values()
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(moved(found)))
    yield ELSEWHERE
    cluster.kubectl("delete", "namespace", ELSEWHERE, "--timeout=90s", timeout=100)


def moved(manifest: Manifest) -> Manifest:
    """The manifest in the namespace of these tests."""
    found = copy.deepcopy(manifest)
    if found["kind"] == "Namespace":
        found["metadata"]["name"] = ELSEWHERE
    elif found["metadata"].get("namespace") == NAMESPACE:
        found["metadata"]["namespace"] = ELSEWHERE
    return found


def check(cluster: Cluster, manifests: list[Manifest]) -> None:
    """Let the API server do all but keep them; a warning, such as that of Pod Security, is an error."""
    found = [moved(manifest) for manifest in manifests]
    # A pod is only admitted when its account is there.
    if accounts := [manifest for manifest in found if manifest["kind"] == "ServiceAccount"]:
        cluster.kubectl("apply", "-f", "-", stdin=listed(accounts))
    cluster.kubectl("apply", "--dry-run=server", "--warnings-as-errors", "-f", "-", stdin=listed(found))


def listed(manifests: list[Manifest]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_api_server_takes_every_overlay(name: str, cluster: Cluster, namespace: str) -> None:
    manifests = build(ROOT / "k8s" / "overlays" / name).manifests
    assert namespace in {moved(manifest)["metadata"].get("namespace") for manifest in manifests}
    check(cluster, manifests)


@pytest.mark.parametrize("name", NAMES)
def test_the_api_server_takes_the_chart_with_every_file_of_values(name: str, cluster: Cluster, namespace: str) -> None:
    # The Prometheus operator's kinds are not everywhere; then the rest is checked.
    manifests = [
        found for found in render(name, namespace=namespace) if found["apiVersion"] != OPERATOR or cluster.serves(OPERATOR)
    ]
    assert "InferenceService" in {manifest["kind"] for manifest in manifests}
    check(cluster, manifests)


@pytest.mark.parametrize("kind", ["InferenceService", "ServingRuntime", "ClusterStorageContainer", "NetworkPolicy"])
def test_the_check_is_strict(kind: str, cluster: Cluster, namespace: str) -> None:
    (manifest,) = [found for found in render("knative-rest", namespace=namespace) if found["kind"] == kind]
    manifest["spec"]["specc"] = {}
    with pytest.raises(AssertionError, match="specc"):
        check(cluster, [manifest])
