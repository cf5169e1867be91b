"""Standard mode: a Deployment whose pods come and go under load, and nobody notices."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from model.bundle import Floats
from tests.e2e.cluster import CHART, Cluster
from tests.e2e.conftest import Images
from tests.e2e.leftovers import await_nothing_but, objects
from tests.e2e.training import Registry
from tests.load import REST, Load, Target

NAMESPACE, RELEASE, GRPC_RELEASE = "chiffre-standard", "st-rest", "st-grpc"
RATE, REQUESTS = 120, 10_000
TOO_MANY_REQUESTS = 429
# What Kubernetes puts into every namespace.
OWN = {"serviceaccount/default", "configmap/kube-root-ca.crt"}

Expected = dict[str, Floats]


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, registry: Registry) -> Iterator[str]:
    """A namespace as k8s/ has it, with restricted Pod Security; it goes with all that is in it."""
    del registry  # whose namespace may be another's, but has to be there
    labels = {f"pod-security.kubernetes.io/{level}": "restricted" for level in ("enforce", "warn")}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    cluster.kubectl("apply", "--filename=-", stdin=yaml.safe_dump(manifest))
    cluster.wait("what each namespace has", lambda: objects(cluster, NAMESPACE) >= OWN, 30, NAMESPACE)
    yield NAMESPACE
    for release in cluster.helm("list", "--short", "--namespace", NAMESPACE).split():
        cluster.helm("uninstall", release, "--namespace", NAMESPACE)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s", timeout=130)


@pytest.fixture(scope="module")
def before(cluster: Cluster, namespace: str) -> set[str]:
    """What there was before the release."""
    return objects(cluster, namespace)


def deploy(cluster: Cluster, release: str, version: int, least: int, most: int, protocol: str = "rest") -> str:
    """Install a release or upgrade it, without waiting; the model's URI."""
    uri = f"mlflow://digits/{version}"
    values: dict[str, Any] = {
        "mode": "Standard",
        "protocol": protocol,
        "model": {"uri": uri},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "scale": {"min": least, "max": most},
    }
    where = ("--namespace", NAMESPACE, "--values", "-")
    cluster.helm("upgrade", "--install", release, str(CHART), *where, *cluster.image_values(), stdin=yaml.safe_dump(values))
    return uri


def pods(cluster: Cluster, release: str = RELEASE) -> list[Any]:
    return cluster.pods(NAMESPACE, f"app=isvc.{release}-predictor")


def await_pods(cluster: Cluster, count: int, *, without: frozenset[str] = frozenset(), release: str = RELEASE) -> None:
    """Until there are ``count`` pods, all ready, none of them going, and none of ``without``."""

    def holds() -> bool:
        found = pods(cluster, release)
        ready = [any(item.type == "Ready" and item.status == "True" for item in pod.status.conditions or []) for pod in found]
        names = {pod.metadata.name for pod in found}
        return len(found) == count and all(ready) and not names & without

    cluster.wait(f"{count} pods to be ready and others gone", holds, 120, NAMESPACE)


@pytest.fixture(scope="module")
def release(cluster: Cluster, registry: Registry, before: set[str]) -> str:
    """Two pods of the first version."""
    del before  # taken first
    uri = deploy(cluster, RELEASE, registry.versions[0], 2, 2)
    cluster.ready(RELEASE, NAMESPACE, uri)
    await_pods(cluster, 2)
    return RELEASE


def host(cluster: Cluster, release: str) -> str:
    """By which the gateway knows it; it has no name while it is not ready, as for a moment when pods are added."""
    url = cluster.wait("the URL", lambda: cluster.inference_service(release, NAMESPACE)["status"].get("url"), 30, NAMESPACE)
    return str(url).partition("://")[2]


def test_rest_answers_through_the_gateway(
    cluster: Cluster, release: str, registry: Registry, images: Images, expected: Expected
) -> None:
    name, version = host(cluster, release), str(registry.versions[0])
    with Load(Target(url=cluster.gateway, host=name), images[0], {version: expected[version]}, rate=50, protocols=REST) as load:
        time.sleep(2)
    load.verify(least_requests=80)
    page = httpx.get(cluster.gateway, headers={"host": name, "accept": "text/html"}, timeout=10)
    assert "<canvas" in page.raise_for_status().text
    # It asks from inside, and compares with labels.
    cluster.helm("test", release, "--namespace", NAMESPACE, timeout=240)


def test_grpc_answers_in_the_cluster(
    cluster: Cluster, namespace: str, registry: Registry, images: Images, expected: Expected
) -> None:
    number = registry.versions[0]
    already = objects(cluster, namespace)
    cluster.ready(GRPC_RELEASE, NAMESPACE, deploy(cluster, GRPC_RELEASE, number, 1, 1, "grpc"))
    await_pods(cluster, 1, release=GRPC_RELEASE)
    # At the Service: an Ingress does not say that what is behind it speaks HTTP/2.
    cluster.helm("test", GRPC_RELEASE, "--namespace", NAMESPACE, timeout=240)
    with cluster.forward(f"service/{GRPC_RELEASE}-predictor", 80, NAMESPACE) as url:
        target = Target(grpc_address=url.partition("://")[2])
        with Load(target, images[0], {str(number): expected[str(number)]}, rate=50, protocols=("grpc",)) as load:
            time.sleep(2)
    cluster.helm("uninstall", GRPC_RELEASE, "--namespace", NAMESPACE)
    load.verify(least_requests=80)
    await_nothing_but(cluster, namespace, already)


def update(cluster: Cluster, load: Load, version: int) -> None:
    """Another version, pod by pod; in the end only it answers."""
    old = frozenset(pod.metadata.name for pod in pods(cluster))
    cluster.ready(RELEASE, NAMESPACE, deploy(cluster, RELEASE, version, 2, 2))
    await_pods(cluster, 2, without=old)
    load.versions = frozenset({str(version)})


def delete_one(cluster: Cluster) -> None:
    name = pods(cluster)[0].metadata.name
    cluster.kubectl("delete", "pod", name, "--namespace", NAMESPACE, "--wait=false")
    await_pods(cluster, 2, without=frozenset({name}))


def evict_all(cluster: Cluster) -> int:
    """As a drain does, all pods at once, as far as the budget lets them go; how often it did not."""
    names, refusals = frozenset(pod.metadata.name for pod in pods(cluster)), 0

    def is_evicted(name: str) -> bool:
        nonlocal refusals
        body = client.V1Eviction(metadata=client.V1ObjectMeta(name=name, namespace=NAMESPACE))
        try:
            cluster.core.create_namespaced_pod_eviction(name, NAMESPACE, body)
        except ApiException as error:
            if error.status != TOO_MANY_REQUESTS:
                raise
            refusals += 1
            return False
        return True

    for name in sorted(names):
        cluster.wait(f"{name} to be evicted", lambda name=name: is_evicted(name), 60, NAMESPACE)  # type: ignore[misc]
    await_pods(cluster, 2, without=names)
    return refusals


def test_no_request_is_lost_while_pods_come_and_go(
    cluster: Cluster, release: str, registry: Registry, images: Images, expected: Expected
) -> None:
    first, second = registry.versions[:2]
    with Load(Target(url=cluster.gateway, host=host(cluster, release)), images[0], expected, rate=RATE, protocols=REST) as load:
        load.versions = frozenset({str(first), str(second)})
        load.phase = "rolling update"
        update(cluster, load, second)
        load.phase = "pod deleted"
        delete_one(cluster)
        load.phase = "eviction"
        refusals = evict_all(cluster)
        load.phase = "three pods"
        deploy(cluster, RELEASE, second, 3, 3)
        await_pods(cluster, 3)
        load.phase = "one pod"
        deploy(cluster, RELEASE, second, 1, 1)
        await_pods(cluster, 1)
        load.phase = "calm"
        cluster.wait(f"{REQUESTS} requests", lambda: load.sent >= REQUESTS, 100, NAMESPACE)
    print(load)
    load.verify(least_requests=REQUESTS, least_rate=100)
    assert set(load.answered_by) == {str(first), str(second)}
    assert refusals, "the budget let both pods go at once"


def test_uninstalling_leaves_nothing(cluster: Cluster, release: str, namespace: str, before: set[str]) -> None:
    cluster.helm("uninstall", release, "--namespace", namespace)
    await_nothing_but(cluster, namespace, before)
