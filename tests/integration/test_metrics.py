"""What /metrics counts, with one process and with several; and the logs."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from model.bundle import Bundle, Histogram, expected_correct, profile_statistics
from model.data import MnistData
from model.profile import build_profile
from serving.engine import Engine
from serving.metrics import ROUTES
from tests.integration.test_protocols import bad_question, call
from tests.processes import Server
from tests.questions import binary_request, question

COUNTED, REFERENCE = "chiffre_profile_images_total", "chiffre_reference_images"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(server: Server) -> Samples:
    # What is counted of the images comes a moment later.
    time.sleep(0.1)
    text = httpx.get(f"{server.url}/metrics", timeout=10).raise_for_status().text
    families = text_string_to_metric_families(text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value(samples: Samples, series: str, /, **labels: str) -> float:
    return samples[series, frozenset(labels.items())]


@pytest.fixture(params=["1", "2"], ids=["one process", "two processes"])
def fresh(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Server]:
    with Server("--model_dir", str(bundle.directory), "--workers", request.param) as running:
        yield running


@pytest.mark.parametrize("accept", ["text/plain;version=abc", "application/openmetrics-text;version=", "*", ""])
def test_whatever_is_accepted_metrics_are_answered(server: Server, accept: str) -> None:
    answer = httpx.get(f"{server.url}/metrics", headers={"accept": accept}, timeout=10)
    assert answer.status_code == 200
    assert "chiffre_requests_total" in answer.text


def test_what_a_roll_out_asks_is_no_traffic(fresh: Server, mnist: MnistData) -> None:
    images = mnist.split("test").images[:2].numpy()
    for _ in range(3):
        body = {"instances": images.tolist()}
        httpx.post(fresh.predict_url, json=body, headers={"x-shadow": "1"}, timeout=10).raise_for_status()
        content, headers = binary_request(images)
        httpx.post(fresh.infer_url, content=content, headers={**headers, "x-shadow": "1"}, timeout=10).raise_for_status()
        call(fresh, "ModelInfer", question(images, is_raw=True), (("x-shadow", "1"),))
    found = scrape(fresh)
    for protocol, route, status in (("v1", "predict", "200"), ("v2", "infer", "200"), ("grpc", "infer", "OK")):
        assert value(found, "chiffre_requests_total", protocol=protocol, route=route, status=status) == 3
    assert sum(count for (name, _), count in found.items() if name in (COUNTED, "chiffre_expected_correct_total")) == 0
    httpx.post(fresh.predict_url, json=body, timeout=10).raise_for_status()
    assert sum(count for (name, _), count in scrape(fresh).items() if name == "chiffre_predictions_total") == 2


def test_a_server_counts_what_it_answered(fresh: Server, bundle: Bundle, mnist: MnistData) -> None:
    images = mnist.split("test").images[:40].numpy()
    before = scrape(fresh)
    assert {one[1] for one in before if one[0] == "chiffre_requests_total"}
    assert value(before, "chiffre_requests_total", protocol="v1", route="predict", status="200") == 0
    for image in images:
        # Each on a connection of its own, so that several processes get some.
        httpx.post(fresh.predict_url, json={"instances": [image.tolist()]}, timeout=10).raise_for_status()
    for _ in range(3):
        httpx.post(fresh.predict_url, content=b"[", timeout=10)
        call(fresh, "ModelInfer", question(images[:2], is_raw=True))
    httpx.post(fresh.infer_url, content=b"{}", timeout=10)
    httpx.get(f"{fresh.url}/no/such/path", timeout=10)
    for _ in range(3):
        # Whichever process is asked, it answers for all.
        after = scrape(fresh)
        requests = "chiffre_requests_total"
        assert value(after, requests, protocol="v1", route="predict", status="200") == 40
        assert value(after, requests, protocol="v1", route="predict", status="400") == 3
        assert value(after, requests, protocol="v2", route="infer", status="400") == 1
        assert value(after, requests, protocol="http", route="other", status="404") == 1
        assert value(after, requests, protocol="grpc", route="infer", status="OK") == 3
        assert value(after, "chiffre_request_duration_seconds_count", protocol="v1") == 43
        assert value(after, "chiffre_requests_in_flight") == 1, "the scrape itself"
        assert value(after, "chiffre_batch_images_sum") == 46
        assert value(after, "chiffre_queue_seconds_count") == 43
        assert set(before) == set(after), "a request made a series"
    check_images(after, bundle, np.concatenate([images, *[images[:2]] * 3]))


def check_images(samples: Samples, bundle: Bundle, images: Any) -> None:
    """Predictions, the profile and the expected accuracy are those of ``images``."""
    answer = Engine(bundle).answer(images)
    version = {"version": bundle.version}
    assert value(samples, "chiffre_validation_accuracy", **version) == bundle.metrics["validation_accuracy"]
    profile = build_profile(images, answer.probabilities)
    for label in map(str, range(10)):
        assert value(samples, "chiffre_predictions_total", **version, label=label) == profile.class_counts[int(label)]
        found = [value(samples, name, **version, statistic="class", bin=label) for name in (COUNTED, REFERENCE)]
        assert found == [profile.class_counts[int(label)], bundle.profile.class_counts[int(label)]]
    for name, values in profile_statistics(images, answer.probabilities).items():
        reference = bundle.profile.histograms[name]
        expected = Histogram.of(values, np.array(reference.edges))
        for edge, count, images_there in zip(reference.edges[1:], expected.counts, reference.counts, strict=True):
            labels = {**version, "statistic": name, "bin": f"{edge:.12g}"}
            assert value(samples, COUNTED, **labels) == count, labels
            assert value(samples, REFERENCE, **labels) == images_there, labels
    correct = expected_correct(bundle.profile, profile_statistics(images, answer.probabilities))
    assert value(samples, "chiffre_expected_correct_total", **version) == pytest.approx(correct.sum())
    variance = (correct * (1 - correct)).sum()
    assert value(samples, "chiffre_expected_correct_variance_total", **version) == pytest.approx(variance, abs=1e-6)


def test_a_server_that_does_not_watch_counts_requests_alone(bundle: Bundle) -> None:
    with Server("--model_dir", str(bundle.directory), "--watch", "false") as running:
        httpx.post(running.predict_url, json={"instances": [[0.5] * 784]}, timeout=10).raise_for_status()
        samples = scrape(running)
    assert value(samples, "chiffre_batch_images_sum") == 1
    assert not any("version" in dict(labels) for name, labels in samples if name != "chiffre_model_info")


def test_a_server_says_what_it_serves_and_how_it_started(server: Server, bundle: Bundle) -> None:
    httpx.get(f"{server.url}/v2", timeout=30).raise_for_status()
    samples = scrape(server)
    identity = {
        "name": "digits",
        "version": bundle.version,
        "run_id": bundle.lineage.run_id or "",
        "git_revision": bundle.lineage.git_revision or "",
        "engine": "onnx",
    }
    assert value(samples, "chiffre_model_info", **identity) == 1
    phases = {phase: value(samples, "chiffre_startup_seconds", phase=phase) for phase in ("imports", "bundle", "ready", "kserve")}
    assert all(0 < seconds < 60 for seconds in phases.values())
    assert value(samples, "chiffre_workers") == 1
    assert value(samples, "chiffre_worker_restarts_total") == 0


def test_every_request_is_counted_under_a_known_route(server: Server) -> None:
    before = scrape(server)
    paths = [
        "/",
        "/page.js",
        "/v1/models/digits:feedback",
        "/v2/models/digits/feedback",
        "/docs",
        "/v1",
        "/v1/models",
        "/v2",
        "/v2/models",
        "/v2/models/digits",
        "/v2/models/digits/ready",
    ]
    for path in [*paths, "/x" * 50, "/%00", "/metrics"]:
        for method in ("GET", "POST", "OPTIONS", "DELETE"):
            httpx.request(method, server.url + path, timeout=30)
    call(server, "ServerLive", bad_question())
    after = scrape(server)
    assert set(before) == set(after)
    total = sum(number for (name, _), number in after.items() if name == "chiffre_requests_total")
    assert total - sum(number for (name, _), number in before.items() if name == "chiffre_requests_total") == 14 * 4 + 1 + 1
    pairs = {(dict(labels)["protocol"], dict(labels)["route"]) for name, labels in after if name == "chiffre_requests_total"}
    assert pairs == set(ROUTES)


def test_openmetrics_is_spoken_too(server: Server) -> None:
    answer = httpx.get(f"{server.url}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}, timeout=10)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


@pytest.mark.parametrize(("logged", "expected"), [("all", ["200", "400"]), ("failed", ["400"]), ("none", [])])
def test_logs_are_json_with_the_requests_id_and_no_image(bundle: Bundle, logged: str, expected: list[str]) -> None:
    with Server("--model_dir", str(bundle.directory), "--log_requests", logged) as server:
        headers = {"x-request-id": "mine"}
        httpx.post(server.predict_url, json={"instances": [[0.123456] * 784]}, headers=headers, timeout=10)
        httpx.post(server.predict_url, json={"instances": [[0.123456] * 783]}, headers=headers, timeout=10)
        httpx.get(f"{server.url}/v2", headers={"x-request-id": "other"}, timeout=30)
    lines = [json.loads(line) for line in server.lines]
    assert all({"time", "severity", "logger", "message"} <= set(line) for line in lines)
    requests = [line for line in lines if line["message"] == "request" and line["request_id"] == "mine"]
    assert [line["status"] for line in requests] == expected
    assert "0.123456" not in server.output
    for line in requests:
        assert (line["protocol"], line["route"]) == ("v1", "predict")
        assert line["milliseconds"] > 0
    if "400" in expected:
        assert requests[-1]["error"].startswith("instances[0]: expected 28 rows")
