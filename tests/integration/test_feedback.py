"""Feedback to a running server: taken, counted for the version that answered and no other, bounded, or not taken at all."""

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from model.bundle import Bundle, Floats, Labels
from model.data import MnistData
from serving.engine import Engine
from tests.integration.test_metrics import Samples, scrape, value
from tests.integration.test_protocols import call
from tests.processes import ROOT, Server
from tests.questions import pb

IMAGES = "chiffre_feedback_images_total"
# What is counted of traffic, whatever it is called by version.
TRAFFIC = ("chiffre_predictions", "chiffre_profile", "chiffre_expected", "chiffre_batch", "chiffre_queue", "chiffre_input")


@pytest.fixture(params=[("--workers", "1"), ("--workers", "2"), ("--fast_path", "false")], ids=" ".join)
def taking(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Server]:
    """A server that takes feedback, as fast as it comes."""
    flags = ("--feedback", "true", "--feedback_per_second", "10000", *request.param)
    with Server("--model_dir", str(bundle.directory), *flags) as running:
        yield running


def first(mnist: MnistData, count: int) -> tuple[Floats, Labels]:
    images, labels = mnist.split("test").arrays()
    return images[:count], labels[:count]


def v1_url(server: Server) -> str:
    return f"{server.url}/v1/models/digits:feedback"


def v2_url(server: Server) -> str:
    return f"{server.url}/v2/models/digits/feedback"


def v1_body(images: Floats, labels: Labels, version: str, **fields: Any) -> dict[str, Any]:
    return {"instances": images.tolist(), "labels": labels.tolist(), "model_version": version, **fields}


def send_tensors(server: Server, images: Floats, labels: Labels, version: str) -> httpx.Response:
    """V2 in binary, asked."""
    tensors = [
        {"name": name, "datatype": datatype, "shape": list(array.shape), "parameters": {"binary_data_size": array.nbytes}}
        for name, datatype, array in (("images", "FP32", images), ("labels", "INT64", labels))
    ]
    head = json.dumps({"inputs": tensors, "parameters": {"model_version": version, "source": "asked"}}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    return httpx.post(v2_url(server), content=head + images.tobytes() + labels.tobytes(), headers=headers, timeout=10)


def traffic(samples: Samples) -> Samples:
    return {series: number for series, number in samples.items() if series[0].startswith(TRAFFIC)}


def check_confusion(samples: Samples, bundle: Bundle, images: Floats, labels: Labels, source: str) -> None:
    predicted = Engine(bundle).answer(images).labels
    for label in range(10):
        for answer in range(10):
            names = {"version": bundle.version, "source": source, "label": str(label), "predicted": str(answer)}
            assert value(samples, IMAGES, **names) == ((labels == label) & (predicted == answer)).sum(), names


def test_feedback_of_both_protocols_is_counted_by_all_processes_and_is_no_traffic(
    taking: Server, bundle: Bundle, mnist: MnistData
) -> None:
    images, labels = first(mnist, 60)
    labels = labels.copy()
    labels[::7] = (labels[::7] + 1) % 10
    right = Engine(bundle).answer(images).labels == labels
    before = scrape(taking)
    for start in range(0, 60, 10):
        some = slice(start, start + 10)
        # Each on a connection of its own, so that several processes get some.
        answer = httpx.post(v1_url(taking), json=v1_body(images[some], labels[some], bundle.version), timeout=10)
        correct = int(right[some].sum())
        expected = {"counted": 10, "correct": correct, "other_version": 0, "model_version": bundle.version}
        assert (answer.status_code, answer.json()) == (200, expected)
        assert answer.headers["x-model-version"] == bundle.version
        assert send_tensors(taking, images[some], labels[some], bundle.version).json() == expected
    after = scrape(taking)
    for source in ("volunteered", "asked"):
        check_confusion(after, bundle, images, labels, source)
    assert traffic(after) == traffic(before)
    assert set(after) == set(before), "a request made a series"
    for protocol in ("v1", "v2"):
        assert value(after, "chiffre_requests_total", protocol=protocol, route="feedback", status="200") == 6


def test_a_prediction_and_what_is_said_of_it_by_the_header(taking: Server, mnist: MnistData) -> None:
    picture = base64.b64encode((ROOT / "data" / "seven.png").read_bytes()).decode()
    instances: list[Any] = [{"b64": picture}, mnist.split("test").images[0].tolist()]
    predicted = httpx.post(taking.predict_url, json={"instances": instances}, timeout=10)
    labels = [prediction["label"] for prediction in predicted.json()["predictions"]]
    version = predicted.headers["x-model-version"]
    body: dict[str, Any] = {"instances": instances, "labels": labels, "model_version": version, "source": "asked"}
    assert httpx.post(v1_url(taking), json=body, timeout=10).json()["correct"] == 2
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 784], "data": [0] * 784}
    told = {"name": "labels", "datatype": "INT64", "shape": [1], "data": [3]}
    body = {"inputs": [tensor, told], "parameters": {"model_version": version}}
    assert httpx.post(v2_url(taking), json=body, timeout=10).json()["counted"] == 1


def test_another_versions_answers_are_counted_apart(taking: Server, bundle: Bundle, mnist: MnistData) -> None:
    images, labels = first(mnist, 3)
    expected = {"counted": 0, "correct": 0, "other_version": 3, "model_version": bundle.version}
    answer = httpx.post(v1_url(taking), json=v1_body(images, labels, "another"), timeout=10)
    assert (answer.status_code, answer.json()) == (200, expected)
    assert send_tensors(taking, images, labels, "another").json() == expected
    samples = scrape(taking)
    for source in ("volunteered", "asked"):
        assert value(samples, "chiffre_feedback_other_version_total", version=bundle.version, source=source) == 3
    assert sum(number for (name, _), number in samples.items() if name == IMAGES) == 0


def test_bad_feedback_is_told_the_field_and_counts_nothing(taking: Server, bundle: Bundle, mnist: MnistData) -> None:
    images, labels = first(mnist, 4)
    good = v1_body(images, labels, bundle.version)
    bad = {
        "labels[3]: expected a label of 0 to 9, got 11": {**good, "labels": [7, 2, 1, 11]},
        "labels: expected 4, one for each image, got 1": {**good, "labels": [7]},
        "instances: expected 1 to 64 images, got 65": {**good, "instances": [[0.0] * 784] * 65},
    }
    for says, body in bad.items():
        answer = httpx.post(v1_url(taking), json=body, timeout=10)
        assert (answer.status_code, answer.json()) == (400, {"error": says})
    answer = send_tensors(taking, images, labels + 9, bundle.version)
    assert (answer.status_code, answer.json()["error"]) == (400, "inputs[1][0]: expected a label of 0 to 9, got 16")
    assert httpx.get(v1_url(taking), timeout=10).status_code == 405
    unknown = httpx.post(f"{taking.url}/v2/models/letters/feedback", json=good, timeout=10)
    assert (unknown.status_code, unknown.json()["error"]) == (404, "model: expected digits, got 'letters'")
    assert httpx.post(f"{taking.url}/v2/models/digits/versions/1/feedback", json=good, timeout=10).status_code == 404
    assert sum(number for (name, _), number in scrape(taking).items() if name.startswith("chiffre_feedback")) == 0


def test_feedback_is_taken_at_a_rate_for_each_process(bundle: Bundle, mnist: MnistData) -> None:
    images, labels = first(mnist, 64)
    flags = ("--feedback", "true", "--feedback_per_second", "0.5")
    with Server("--model_dir", str(bundle.directory), *flags) as server, httpx.Client(timeout=10) as client:
        assert client.post(v1_url(server), json=v1_body(images, labels, bundle.version)).status_code == 200
        answer = client.post(v1_url(server), json=v1_body(images[:2], labels[:2], bundle.version))
        assert answer.status_code == 429
        assert answer.json()["error"] == "feedback: expected 0.5 images a second in each process, got 2 more"
        wait_seconds = int(answer.headers["retry-after"])
        assert 1 <= wait_seconds <= 4
        # Predictions go on meanwhile.
        assert client.post(server.predict_url, json={"instances": images[:2].tolist()}).status_code == 200
        time.sleep(wait_seconds)
        assert client.post(v1_url(server), json=v1_body(images[:2], labels[:2], bundle.version)).status_code == 200
        samples = scrape(server)
    assert value(samples, "chiffre_feedback_limited_total", version=bundle.version) == 2
    assert value(samples, "chiffre_requests_total", protocol="v1", route="feedback", status="429") == 1


def test_a_server_takes_no_feedback_unless_it_is_told_to(server: Server, bundle: Bundle, mnist: MnistData) -> None:
    images, labels = first(mnist, 1)
    says = "feedback: expected a server that takes it, which one started with --feedback true does, got one that does not"
    answers = [httpx.post(v1_url(server), json=v1_body(images, labels, bundle.version), timeout=10)]
    answers.append(send_tensors(server, images, labels, bundle.version))
    assert [(answer.status_code, answer.json()) for answer in answers] == [(404, {"error": says})] * 2
    assert not [name for name, _ in scrape(server) if name.startswith("chiffre_feedback")]
    assert '<meta name="feedback" content="off">' in httpx.get(server.url, headers={"accept": "text/html"}, timeout=10).text


def test_grpc_has_no_feedback(taking: Server) -> None:
    with grpc.insecure_channel(taking.grpc_address) as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelFeedback")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert call(taking, "ModelReady", pb.ModelReadyRequest(name="digits"))[0].ready


def test_a_burst_of_feedback_loses_none_and_predictions_go_on(taking: Server, bundle: Bundle, mnist: MnistData) -> None:
    images, labels = first(mnist, 64)
    body = json.dumps(v1_body(images, labels, bundle.version)).encode()
    question = {"instances": images[:1].tolist()}
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(httpx.post, v1_url(taking), content=body, timeout=60) for _ in range(24)]
        asked = [httpx.post(taking.predict_url, json=question, timeout=30).status_code for _ in range(20)]
    statuses = np.array([one.result().status_code for one in sent])
    assert asked == [200] * 20
    assert set(statuses.tolist()) <= {200, 429, 503}
    samples = scrape(taking)
    counted = sum(number for (name, _), number in samples.items() if name == IMAGES)
    assert counted == 64 * (statuses == 200).sum() > 0
