"""A release in Knative mode, from `helm install` to `helm uninstall`: asked, drawn on, scaled to zero, upgraded, broken.

The tests share the release and go on where the last one left it.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from model.bundle import Floats
from model.registry import MODEL_NAME
from tests.e2e.cluster import CHART, NAMESPACE, Cluster
from tests.e2e.conftest import Images
from tests.e2e.gateway import KnownRevisions
from tests.e2e.leftovers import await_nothing_but, objects
from tests.e2e.training import Registry
from tests.integration.test_page import ARGUMENTS, PATIENCE_MS, SEVEN, Visit
from tests.load import REST, Load, Target
from tests.tools import BIN

RELEASE = "kn"
WINDOW = "6s"
# No retries anywhere, half of the requests on new connections.
RATE, LEAST_RATE, LEAST_REQUESTS = 120.0, 100.0, 10_000


def uri(number: int) -> str:
    return f"mlflow://{MODEL_NAME}/{number}"


def deploy(cluster: Cluster, release: str, **values: Any) -> str:
    """Install or upgrade; what Helm says."""
    content = {"scale": {"window": WINDOW}, **values}
    arguments = [release, str(CHART), "--namespace", NAMESPACE, *cluster.image_values(), "--values", "-"]
    return cluster.helm("upgrade", "--install", *arguments, stdin=json.dumps(content))


def pods(cluster: Cluster, release: str = RELEASE) -> list[Any]:
    """Those that nobody told to go."""
    found = cluster.pods(NAMESPACE, f"serving.kserve.io/inferenceservice={release}")
    return [pod for pod in found if not pod.metadata.deletion_timestamp]


@pytest.fixture(scope="module")
def before(cluster: Cluster, registry: Registry) -> set[str]:
    """All that was in the namespace before the release."""
    del registry
    return objects(cluster, NAMESPACE)


@pytest.fixture(scope="module")
def notes(before: set[str], cluster: Cluster, registry: Registry) -> Iterator[str]:
    """What `helm install` says of a release that serves the first version; the release is there while the tests run."""
    assert not any(f"/{RELEASE}-predictor" in name for name in before)
    yield deploy(cluster, RELEASE, model={"uri": uri(registry.versions[0])})
    cluster.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")


@pytest.fixture(scope="module")
def host(notes: str, cluster: Cluster) -> str:
    """By which name the gateway knows the release."""
    assert "Knative mode, rest" in notes
    cluster.ready(RELEASE, NAMESPACE, seconds=90)
    return cluster.host(RELEASE, NAMESPACE)


def ask(cluster: Cluster, host: str, images: Floats) -> httpx.Response:
    body = {"instances": images.tolist()}
    return httpx.post(f"{cluster.gateway}/v1/models/digits:predict", json=body, headers={"host": host}, timeout=60)


def labels(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [prediction["label"] for prediction in answer.json()["predictions"]]


def load(cluster: Cluster, host: str, images: Images, expected: dict[str, Floats]) -> Load:
    return Load(Target(url=cluster.gateway, host=host), images[0], expected, rate=RATE, protocols=REST)


def test_it_answers_over_rest(
    host: str, cluster: Cluster, registry: Registry, images: Images, expected: dict[str, Floats]
) -> None:
    answer = ask(cluster, host, images[0])
    first = str(registry.versions[0])
    assert labels(answer) == expected[first].argmax(axis=1).tolist()
    assert answer.headers["x-model-version"] == first
    assert answer.headers["x-model-run-id"] == registry.version(registry.versions[0]).run_id


def test_the_commands_of_the_notes_work(notes: str, host: str, cluster: Cluster) -> None:
    del host
    blocks = re.findall(r"((?:^    .*\n?)+)", notes, re.MULTILINE)
    (ready,), (curl,) = ([block for block in blocks if word in block] for word in ("condition=Ready", "curl"))
    for block in (ready, curl):
        done = subprocess.run(
            ["/bin/bash", "-euc", block],
            env={**environment(), "GATEWAY": cluster.gateway},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert json.loads(done.stdout)["predictions"][0]["label"] == 7


def environment() -> dict[str, str]:
    """With Helm and kubectl of the environment first."""
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}


def test_the_page_answers_to_a_drawing(host: str, cluster: Cluster) -> None:
    executable = shutil.which("chromium")
    assert executable
    gateway = urlsplit(cluster.gateway)
    # The name leads to the gateway, wherever that is.
    rules = f"--host-resolver-rules=MAP {host} {gateway.hostname}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*ARGUMENTS, rules], timeout=30_000)
        expect.set_options(timeout=PATIENCE_MS)
        visit = Visit(browser.new_page(), f"http://{host}:{gateway.port or 80}/").open()
        visit.draw(SEVEN)
        visit.expect_spoken(7)
        # Chromium says so of each answer that is no success; the answer to the whole drawing was one.
        assert [said for said in visit.complaints if not said.startswith("Failed to load resource")] == []
        browser.close()


def test_it_goes_to_zero_and_answers_from_there(host: str, cluster: Cluster, images: Images) -> None:
    cluster.wait("the release to scale to zero", lambda: not pods(cluster), 120, NAMESPACE)
    began = time.monotonic()
    found = labels(ask(cluster, host, images[0]))
    seconds = time.monotonic() - began
    assert sum(label == right for label, right in zip(found, images[1], strict=True)) > 0.95 * len(found)
    print(f"first answer from zero after {seconds:.2f} s")
    assert seconds < 30


def test_helm_test_sends_it_images_and_compares(host: str, cluster: Cluster) -> None:
    del host
    said = cluster.helm("test", RELEASE, "--namespace", NAMESPACE, "--logs", "--timeout", "120s", timeout=130)
    assert "labels are right, from version" in said


def test_an_upgrade_to_another_version_loses_no_request(
    host: str, cluster: Cluster, registry: Registry, images: Images, expected: dict[str, Floats]
) -> None:
    first, second, *_ = registry.versions
    both = {str(number): expected[str(number)] for number in (first, second)}
    with KnownRevisions(cluster, RELEASE, NAMESPACE), load(cluster, host, images, both) as sent:
        sent.phase, sent.versions = "before", frozenset({str(first)})
        time.sleep(15)
        sent.phase, sent.versions = "upgrade", frozenset(both)
        deploy(cluster, RELEASE, model={"uri": uri(second)})
        cluster.ready(RELEASE, NAMESPACE, uri(second))
        # The gateway hears of it a moment later than the API server.
        time.sleep(3)
        sent.phase, sent.versions = "after", frozenset({str(second)})
        cluster.wait("enough requests", lambda: sent.sent >= LEAST_REQUESTS + 100, 120, NAMESPACE)
    print(sent)
    sent.verify(least_requests=LEAST_REQUESTS, least_rate=LEAST_RATE)
    assert set(sent.answered_by) == set(both)


@pytest.fixture(scope="module")
def altered(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A version one of whose files is not the one that was published."""
    client, source = registry.client, registry.version(registry.versions[0])
    bundle = registry.bundle(str(source.run_id), tmp_path_factory.mktemp("altered")).directory
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    run = client.create_run(client.get_run(str(source.run_id)).info.experiment_id)
    client.log_artifacts(run.info.run_id, str(bundle), "bundle")
    made = client.create_model_version(MODEL_NAME, f"{run.info.artifact_uri}/bundle", run.info.run_id)
    yield int(made.version)
    client.delete_model_version(MODEL_NAME, made.version)
    client.delete_run(run.info.run_id)


BAD = {
    "digest": ("storage-initializer", 6, "model.onnx"),
    "missing": ("storage-initializer", 3, "4711"),
    "memory": ("kserve-container", 137, "OOMKilled"),
}


def ends(cluster: Cluster, container: str, code: int) -> Any:
    """How a container of the newest pod ended, if with ``code``."""
    for pod in reversed(pods(cluster)):
        states = (*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or []))
        for status in states:
            ended = status.state.terminated or (status.last_state and status.last_state.terminated)
            if status.name == container and ended and ended.exit_code == code:
                return ended
    return None


@pytest.mark.parametrize("kind", list(BAD))
def test_a_model_that_cannot_be_served_leaves_the_old_one_answering_and_says_why(
    kind: str, host: str, cluster: Cluster, registry: Registry, images: Images, expected: dict[str, Floats], altered: int
) -> None:
    second = registry.versions[1]
    values: dict[str, dict[str, Any]] = {
        "digest": {"model": {"uri": uri(altered)}},
        "missing": {"model": {"uri": uri(4711)}},
        "memory": {
            "model": {"uri": uri(second)},
            "resources": {"requests": {"memory": "24Mi"}, "limits": {"memory": "24Mi"}},
        },
    }
    container, code, reason = BAD[kind]
    only = {str(second): expected[str(second)]}
    with Load(Target(url=cluster.gateway, host=host), images[0], only, rate=20, protocols=REST) as sent:
        deploy(cluster, RELEASE, **values[kind])
        ended = cluster.wait(f"{container} to end with {code}", lambda: ends(cluster, container, code), 90, NAMESPACE)
        assert reason in f"{ended.reason} {ended.message}", ended

        def says_why() -> Any:
            status = cluster.inference_service(RELEASE, NAMESPACE)["status"]["modelStatus"]
            failure = status.get("lastFailureInfo", {})
            return status if failure.get("exitCode") == code else None

        status = cluster.wait("the status to say why", says_why, 30, NAMESPACE)
        assert status["states"]["targetModelState"] == "FailedToLoad"
        assert kind == "memory" or reason in status["lastFailureInfo"]["message"]
    sent.verify()


def test_a_good_model_after_bad_ones_is_served(host: str, cluster: Cluster, registry: Registry, images: Images) -> None:
    first = registry.versions[0]
    deploy(cluster, RELEASE, model={"uri": uri(first)})
    cluster.ready(RELEASE, NAMESPACE, uri(first))
    cluster.wait(
        "the good model", lambda: ask(cluster, host, images[0][:1]).headers.get("x-model-version") == str(first), 30, NAMESPACE
    )


def test_grpc_through_the_gateway(
    notes: str, cluster: Cluster, registry: Registry, images: Images, expected: dict[str, Floats]
) -> None:
    del notes
    first, release = registry.versions[0], f"{RELEASE}-grpc"
    address = urlsplit(cluster.gateway)
    try:
        said = deploy(cluster, release, protocol="grpc", model={"uri": uri(first)}, storageContainer={"create": False})
        assert "It speaks gRPC" in said
        cluster.ready(release, NAMESPACE)
        target = Target(grpc_address=f"{address.hostname}:{address.port or 80}", host=cluster.host(release, NAMESPACE))
        with Load(target, images[0], {str(first): expected[str(first)]}, rate=50, protocols=("grpc",)) as sent:
            time.sleep(5)
        sent.verify(least_requests=200)
        tested = cluster.helm("test", release, "--namespace", NAMESPACE, "--logs", "--timeout", "120s", timeout=130)
        assert "labels are right, from version" in tested
    finally:
        cluster.helm("uninstall", release, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")


def test_uninstalling_leaves_nothing(host: str, before: set[str], cluster: Cluster) -> None:
    del host
    cluster.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
    await_nothing_but(cluster, NAMESPACE, before)
