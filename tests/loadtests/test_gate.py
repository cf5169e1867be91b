"""Locust against a real server, and against one with each fault: what the exit code is, and what the report says."""

import dataclasses
import json
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import onnx
import pytest
import yaml

from model.bundle import Bundle
from model.demo import free_port
from serving.rpc import load_messages
from tests.processes import Process, Server, run

LOCUST = ("locust", "-f", "loadtests/locustfile.py")
# So many requests, however long a machine with other work takes for them.
QUICK = (
    "--headless",
    "--only-summary",
    "--run-time",
    "120",
    "--most-requests",
    "300",
    "--pause-seconds",
    "0.02",
    "--open-seconds",
    "0",
)
# What a machine with other work keeps; what is tested is slower by far, or wrong.
VALUES: dict[str, dict[str, Any]] = {
    "slo": {"errorRate": 0.001, "latencyMilliseconds": {"p95": 2000, "p99": 5000}, "coldStartSeconds": 5},
    "test": {"leastAccuracy": 0.9},
}
# By fault: words in the sentence of a missed objective or of a failure, any of which tells it.
FAULTS = {
    "slow": ("V1 JSON: p95: ",),
    "hanging": ("no right answer",),
    "failing": ("failed requests: ",),
    "anonymous": ("x-model-version: missing",),
    "cached": ("accuracy, upper end: ",),
    "mixed": ("other probabilities than before", "accuracy, upper end: "),
    "unsure": ("expected probabilities that sum to 1",),
    "inconsistent": ("expected the most probable labels",),
    "short": ("expected a V1 answer",),
    "empty": ("expected 1 labels and 1 rows of 10 probabilities",),
    "ragged": ("expected 1 labels and 1 rows of 10 probabilities: ",),
    "huge": ("expected a V1 answer",),
    "deep": ("expected a V1 answer",),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    code: int
    output: str
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        assert found["schema"] == 1
        return found

    def missed(self) -> str:
        return "\n".join([row["sentence"] for row in self.report["objectives"] if not row["held"]])


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("values") / "values.yaml"
    path.write_text(yaml.safe_dump(VALUES))
    return path


def load(folder: Path, values: Path, *arguments: str) -> Outcome:
    code, output = run(*LOCUST, "--output", str(folder), "--values", str(values), *arguments)
    return Outcome(code, output, folder)


@pytest.fixture(scope="module")
def faulty(server: Server) -> Iterator[str]:
    port = free_port()
    with Process("tests.loadtests.faulty", server.url, str(port)) as process:
        deadline = time.monotonic() + 60
        while True:
            assert process.popen.poll() is None, process.output
            assert time.monotonic() < deadline, process.output
            try:
                httpx.post(f"http://127.0.0.1:{port}/v1/models/digits:predict", json={"instances": [[0] * 784]}, timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def outcomes(faulty: str, values: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Outcome]]]:
    """Of all faults, some at a time: a run mostly waits."""
    folder = tmp_path_factory.mktemp("faults")
    with ThreadPoolExecutor(3) as pool:
        yield {
            fault: pool.submit(load, folder / fault, values, *QUICK, "--host", faulty, "--host-header", fault, *flags, "V1User")
            for fault in FAULTS
            for flags in [("--users", "30", "--timeout-seconds", "3" if fault == "hanging" else "20")]
        }


def test_a_right_service_holds_every_objective(server: Server, values: Path, tmp_path: Path) -> None:
    found = load(
        tmp_path,
        values,
        *QUICK,
        "--host",
        server.url,
        "--grpc-host",
        server.grpc_address,
        "--open-seconds",
        "2",
        "--open-rate",
        "20",
    )
    assert found.code == 0, found.output
    report = found.report
    assert report["held"] is True
    assert set(report["kinds"]) == {"V1 JSON", "V2 binary", "image", "gRPC"}
    assert all(count["failed"] == count["wrong"] == 0 < count["right"] for count in report["kinds"].values())
    assert len(report["versions"]) == 1
    assert report["open_loop"]["requests"] == 40
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    summary = (tmp_path / "summary.md").read_text()
    assert "**Held**" in summary
    assert "closed-loop" in summary
    assert "closed-loop" in (tmp_path / "locust.html").read_text()
    lines = (tmp_path / "seconds.csv").read_text().splitlines()
    assert sum(int(line.split(",")[1]) for line in lines[1:]) == sum(count["requests"] for count in report["kinds"].values())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_an_exit_code_and_a_sentence(outcomes: dict[str, Future[Outcome]], fault: str) -> None:
    found = outcomes[fault].result(240)
    assert found.code == 1, found.output
    assert found.report["held"] is False
    told = found.missed() + json.dumps(found.report["failures"])
    assert any(words in told for words in FAULTS[fault]), found.output
    assert "**Missed**" in (found.folder / "summary.md").read_text()


def test_grpc_users_wait_for_their_answers_at_the_same_time(values: Path, tmp_path: Path) -> None:
    """One after another, a hundred answers would take longer than the run."""
    pb: Any = load_messages()
    outputs = [
        pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=shape)
        for name, datatype, shape in (("labels", "INT64", [1]), ("probabilities", "FP32", [1, 10]))
    ]
    contents = [np.array([3]).tobytes(), np.eye(10, dtype=np.float32)[3].tobytes()]
    answer = pb.ModelInferResponse(outputs=outputs, raw_output_contents=contents).SerializeToString()

    def infer(_: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(1)
        context.set_trailing_metadata((("x-model-version", "1"),))
        return bytes(answer)

    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server = grpc.server(ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    flags = ("--users", "20", "--run-time", "60", "--most-requests", "100", "--grpc-host", address, "GrpcUser")
    found = load(tmp_path, values, *QUICK, *flags)
    server.stop(None).wait()
    assert found.report["kinds"]["gRPC"]["requests"] >= 100, found.output
    # It always says three.
    assert found.code == 1
    assert "gRPC: accuracy" in found.missed()


def test_labels_in_another_order_are_too_few_right_ones(bundle: Bundle, values: Path, tmp_path: Path) -> None:
    graph = onnx.load(bundle.onnx_path)
    # The last layer's rows, weights and bias, are the labels.
    for tensor in graph.graph.initializer:
        if tensor.dims[:1] == [10]:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.roll(onnx.numpy_helper.to_array(tensor), 1, axis=0), tensor.name))
    onnx.save(graph, tmp_path / "swapped.onnx")
    swapped = bundle.save(tmp_path / "swapped", checkpoint=bundle.checkpoint_path, onnx=tmp_path / "swapped.onnx")
    with Server("--model_dir", str(swapped.directory)) as server:
        flags = ("--host", server.url, "--grpc-host", server.grpc_address)
        found = load(tmp_path / "out", values, *QUICK, *flags)
    assert found.code == 1, found.output
    for kind in ("V1 JSON", "V2 binary", "image", "gRPC"):
        assert f"{kind}: accuracy, upper end" in found.missed()


def test_another_version_is_a_wrong_answer(server: Server, values: Path, tmp_path: Path) -> None:
    flags = ("--host", server.url, "--grpc-host", server.grpc_address, "--model-version", "999", "GrpcUser")
    found = load(tmp_path, values, *QUICK, *flags)
    assert found.code == 1, found.output
    assert "x-model-version: expected 999, got" in found.output


def test_where_nobody_listens_a_sentence_says_so(values: Path, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    found = load(tmp_path / "rest", values, *QUICK, "--host", f"http://{nowhere}")
    assert found.code == 1, found.output
    assert f"error: http://{nowhere}: no right answer" in found.output
    assert "Traceback" not in found.output
    assert "refused" in found.missed()
    found = load(tmp_path / "grpc", values, *QUICK, "--grpc-host", nowhere, "GrpcUser")
    assert found.code == 1, found.output
    assert "UNAVAILABLE" in found.missed()


def test_a_service_that_dies_in_the_middle_fails(bundle: Bundle, values: Path, tmp_path: Path) -> None:
    flags = (*QUICK, "--most-requests", "1000", "--output", str(tmp_path), "--values", str(values))
    with Server("--model_dir", str(bundle.directory)) as server, Process(*LOCUST, *flags, "--host", server.url) as locust:
        locust.wait_for("All users spawned")
        time.sleep(1)
        server.popen.kill()
        assert locust.wait() == 1, locust.output
    assert "failed requests" in Outcome(1, "", tmp_path).missed()


def test_only_the_open_loop_sees_what_stalls(faulty: str, tmp_path: Path) -> None:
    """Few requests of a user who waits meet a stall; of those that are due anyway, half."""
    strict = tmp_path / "values.yaml"
    slo = {**VALUES["slo"], "latencyMilliseconds": {"p95": 1000, "p99": 10000}}
    strict.write_text(yaml.safe_dump({**VALUES, "slo": slo}))
    user = ("--users", "1", "--pause-seconds", "0", "--most-requests", "100000", "--run-time", "12")
    opened = ("--open-rate", "10", "--open-seconds", "12")
    found = load(tmp_path, strict, *QUICK, "--host", faulty, "--host-header", "stalling", *user, *opened, "V1User")
    assert found.code == 1, found.output
    missed = found.missed()
    assert "open loop: p95" in missed
    assert "V1 JSON: p95" not in missed


RAISING = ("--locustfile", "tests/loadtests/raising.py")


def test_what_users_raise_is_told_once_for_all(server: Server, values: Path, tmp_path: Path) -> None:
    flags = ("--most-requests", "200", "--pause-seconds", "0", "--host", server.url, "Stumbling")
    found = load(tmp_path, values, *QUICK, *flags, *RAISING)
    assert found.code == 1, found.output
    (sentence,) = found.missed().splitlines()
    assert re.fullmatch(r"run: exceptions: [\d,]+, at most 0 \(over its own feet\)", sentence)
    assert not sentence.startswith("run: exceptions: 1,")


def test_all_that_was_due_is_counted_though_users_raise(server: Server, values: Path, tmp_path: Path) -> None:
    flags = ("--open-rate", "20", "--open-seconds", "2", "--host", server.url, "Breathless")
    found = load(tmp_path, values, *QUICK, *flags, *RAISING)
    assert found.code == 1, found.output
    assert (found.report["open_loop"]["requests"], found.report["open_loop"]["failed"]) == (40, 20)
    assert found.missed() == "open loop: failed requests: 50.00%, at most 0.10%"
    assert found.report["failures"]["all: LookupError('out of breath')"] == 20


def test_an_open_loop_that_could_not_be_made_is_missed(server: Server, values: Path, tmp_path: Path) -> None:
    """A run that ends in its first second has no rate, of which the loop's would be half."""
    flags = ("--users", "1", "--most-requests", "1", "--open-seconds", "2", "--host", server.url, "V1User")
    found = load(tmp_path, values, *QUICK, *flags)
    assert found.code == 1, found.output
    assert "open loop: p95: not measured" in found.missed()
    assert (found.report["open_loop"]["rate"], found.report["open_loop"]["requests"]) == (0, 0)
    assert "open loop: not made" in (tmp_path / "summary.md").read_text()


def test_the_networks_part_is_said(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server answers in no time."""
    strict = tmp_path / "values.yaml"
    strict.write_text(yaml.safe_dump({**VALUES, "slo": {**VALUES["slo"], "latencyMilliseconds": {"p95": 0, "p99": 0}}}))
    flags = (*QUICK, "--host", server.url, "V1User")
    near = load(tmp_path / "near", strict, *flags)
    assert near.code == 1, near.output
    assert "V1 JSON: p95" in near.missed()
    monkeypatch.setenv("LOAD_NETWORK_MS", "5000")
    far = load(tmp_path / "far", strict, *flags)
    assert far.code == 0, far.output
    (row,) = [row for row in far.report["objectives"] if row["objective"] == "p99"]
    assert (row["allowed"], row["note"]) == (5000, "0 ms and 5000 ms for the network")
    assert "network: 5000 ms of what p95 and p99 may be" in (tmp_path / "far" / "summary.md").read_text()


def test_a_ramp_stops_behind_its_knee(server: Server, values: Path, tmp_path: Path) -> None:
    flags = ("--headless", "--only-summary", "--shape", "knee", "--users", "8", "--step-seconds", "3", "--open-seconds", "2")
    found = load(tmp_path, values, *flags, "--host", server.url, "V1User", "V2User")
    # Only the shape zero has pods to wait for.
    assert "idle for" not in found.output
    report = found.report
    assert [stage["users"] for stage in report["stages"]] == [2, 4, 8][: len(report["stages"])]
    assert report["knee"]["rate"] == max(stage["rate"] for stage in report["stages"])
    assert report["open_loop"]["rate"] == pytest.approx(report["knee"]["rate"] / 2)
    assert "knee: " in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("shape", ["spike", "zero"])
def test_other_shapes(server: Server, values: Path, tmp_path: Path, shape: str) -> None:
    flags = ("--headless", "--only-summary", "--shape", shape, "--users", "10", "--step-seconds", "6", "--open-seconds", "0")
    found = load(tmp_path, values, *flags, "--idle-seconds", "1", "--host", server.url, "V1User")
    assert found.code == 0, found.output
    names = {"spike": ["before", "spike", "after"], "zero": ["cold", "warm"]}[shape]
    assert [stage["name"] for stage in found.report["stages"]] == names
    (first,) = [row for row in found.report["objectives"] if row["objective"] == "first answer"]
    assert first["allowed"] == 5


def test_workers_tell_the_master_all_they_saw(server: Server, values: Path, tmp_path: Path) -> None:
    port = str(free_port())
    flags = ("--processes", "2", "--master-port", port, "--master-bind-port", port, "--host", server.url)
    found = load(tmp_path, values, *QUICK, "--json-file", str(tmp_path / "locust"), *flags)
    assert found.code == 0, found.output
    counted = sum(count["requests"] for count in found.report["kinds"].values())
    assert counted == sum(entry["num_requests"] for entry in json.loads((tmp_path / "locust.json").read_text()))


def test_a_run_that_is_stopped_early_does_not_pass(server: Server, values: Path, tmp_path: Path) -> None:
    flags = (*QUICK, "--most-requests", "100000", "--output", str(tmp_path), "--values", str(values))
    with Process(*LOCUST, *flags, "--host", server.url) as locust:
        locust.wait_for("All users spawned")
        time.sleep(1)
        locust.popen.send_signal(signal.SIGTERM)
        assert locust.wait() == 1, locust.output
    assert "run: ended early" in Outcome(1, "", tmp_path).missed()


def test_the_page_starts_runs_and_the_process_ends_with_the_last_verdict(server: Server, values: Path, tmp_path: Path) -> None:
    port = free_port()
    page = f"http://127.0.0.1:{port}"
    flags = ("--web-port", str(port), "--output", str(tmp_path), "--values", str(values))
    ends = ("--open-seconds", "0", "--most-requests", "300")
    with Process(*LOCUST, *flags, *ends, "--host", server.url) as locust, httpx.Client(base_url=page, timeout=20) as client:
        locust.wait_for("Starting web interface")
        locust_is_up(client)
        form = {"user_count": "5", "spawn_rate": "5", "host": server.url, "run_time": "60s"}
        assert client.post("/swarm", data=form).json()["success"]
        wait_for(tmp_path / "report.json")
        assert json.loads((tmp_path / "report.json").read_text())["held"] is True
        # More users, and a host, than anybody may ask for from a page.
        assert client.post("/swarm", data={**form, "user_count": "100000"}).json()["success"]
        locust.wait_for("--users: expected at most 1000, got 100000")
        assert client.post("/swarm", data={**form, "host": "http://example.com"}).json()["success"]
        locust.wait_for("example.com: is neither loopback nor in a cluster")
        locust.popen.send_signal(signal.SIGTERM)
        assert locust.wait() == 0, locust.output


def test_a_run_that_the_page_makes_too_large_ends(server: Server, values: Path, tmp_path: Path) -> None:
    port = free_port()
    flags = ("--web-port", str(port), "--output", str(tmp_path), "--values", str(values), "--host", server.url)
    with Process(*LOCUST, *flags) as locust, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        locust.wait_for("Starting web interface")
        locust_is_up(client)
        form = {"user_count": "2", "spawn_rate": "2", "host": server.url}
        assert client.post("/swarm", data=form).json()["success"]
        locust.wait_for("All users spawned")
        assert client.post("/swarm", data={**form, "user_count": "5000"}).json()["success"]
        wait_for(tmp_path / "report.json")
        locust.popen.send_signal(signal.SIGTERM)
        assert locust.wait() == 1, locust.output
    assert "run: ended early: 1, at most 0 (--users: expected at most 1000, got 5000)" in Outcome(1, "", tmp_path).missed()


def test_from_zero_pods_have_time_to_go(server: Server, values: Path, tmp_path: Path) -> None:
    flags = ("--headless", "--shape", "zero", "--output", str(tmp_path), "--values", str(values), "--host", server.url)
    with Process(*LOCUST, *flags, "V1User") as locust:
        locust.wait_for("idle for 120 s")


def locust_is_up(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            client.get("/").raise_for_status()
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text().endswith("}\n"):
        assert time.monotonic() < deadline, path
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--host", "http://example.com"), "example.com: is neither loopback nor in a cluster; --allow-remote"),
        (("--host", "ftp://127.0.0.1"), "--host: expected http://HOST:PORT"),
        (("--grpc-host", "example.com:80"), "example.com: is neither"),
        (("GrpcUser",), "--grpc-host: expected the address"),
        (("--users", "5000"), "--users: expected at most 1000, got 5000"),
        (("--shape", "knee"), "--run-time: the shape knee has a length of its own"),
        (("--open-rate", "-1"), "--open-rate: expected a number of at least 0, got -1"),
        (("--network-ms", "-1"), "--network-ms: expected a number of at least 0, got -1"),
        (("--network-ms", "nan"), "--network-ms: expected a number of at least 0, got nan"),
        (("--network-ms", "inf"), "--network-ms: expected a number of at least 0, got inf"),
        (("--open-rate", "1e9", "--open-seconds", "1"), "--open-rate: for 1 s, these are more requests"),
        (("--data-dir", "nowhere"), "nowhere/SHA256SUMS: missing"),
        (("--release", "no-such-release"), "release no-such-release in chiffre: "),
    ],
)
def test_flags_that_cannot_be_meant(values: Path, tmp_path: Path, flags: tuple[str, ...], says: str) -> None:
    found = load(tmp_path, values, *QUICK, *flags)
    assert found.code == 2, found.output
    assert f"error: {says}" in found.output
    assert not list(tmp_path.iterdir())
