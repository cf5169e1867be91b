"""A bundle on its way past servers that fail, stall, lie, or ask who is there."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from model.bundle import Bundle
from model.demo import free_port
from tests.integration.certificates import write_certificates
from tests.integration.conftest import Published
from tests.integration.front import Front, Handler
from tests.integration.storage import bring, command, environment
from tests.integration.test_storage import check_failed, names
from tests.processes import ROOT

VERSION = "mlflow://digits/1"
WHOLE = {"bundle.json", "model.ckpt", "model.onnx", "registration.json"}


def passing(faults: Sequence[Callable[[Handler], None]], ending: str) -> Callable[[Handler], None]:
    """The faults, one at each question whose path has that ending, and then no more."""
    left = list(faults)

    def script(handler: Handler) -> None:
        (left.pop(0) if left and handler.path.endswith(ending) else Handler.pass_on)(handler)

    return script


def altering(ending: str, alter: Callable[[bytes], bytes]) -> Callable[[Handler], None]:
    def script(handler: Handler) -> None:
        status, body = handler.fetch()
        handler.send(status, alter(body) if handler.path.endswith(ending) else body)

    return script


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def cut(handler: Handler) -> None:
    status, body = handler.fetch()
    handler.send(status, body[: len(body) // 2], length=len(body))


@pytest.mark.parametrize("ending", ["version=1", "bundle.json", "model.onnx"])
def test_what_passes_is_waited_for(published: Published, tmp_path: Path, ending: str) -> None:
    faults = [lambda handler: handler.send(500, b"oh"), lambda handler: handler.send(429), hang_up, cut]
    with Front(published.uri, passing(faults, ending)) as front:
        ended = bring(VERSION, tmp_path, front.address)
    assert ended.code == 0, ended
    assert Bundle.load(tmp_path) == published.bundle
    reasons = [json.loads(line)["reason"].partition(": ")[2] for line in ended.errors.splitlines()]
    assert reasons[:2] == ["answered 500 oh", "answered 429"]
    assert reasons[3].endswith("bytes are missing")
    assert len(reasons) == 4
    # What had come is not asked for again.
    assert len(front.asked) == 4 + len(reasons)


@pytest.mark.parametrize("fault", [lambda handler: handler.send(503, b"later"), hang_up, cut], ids=["503", "hang up", "cut"])
def test_what_does_not_pass_ends_at_the_deadline(published: Published, tmp_path: Path, fault: Callable[[Handler], None]) -> None:
    with Front(published.uri, passing([fault] * 1000, "model.onnx")) as front:
        ended = bring(VERSION, tmp_path, front.address, "--deadline_seconds", "1.5")
    check_failed(ended, 4, "no answer in 1.5 s and", "tries: ", "model.onnx: ")
    assert 0.5 < ended.seconds < 3
    assert names(tmp_path) == set()


def test_one_connection_serves_for_all(published: Published, tmp_path: Path) -> None:
    with Front(published.uri) as front:
        assert bring(VERSION, tmp_path, front.address).code == 0
    paths = [path.rpartition("/")[2] for path, _ in front.asked]
    assert paths == ["get?name=digits&version=1", "bundle.json", "model.ckpt", "model.onnx"]
    assert len(front.clients) == 1


def test_a_registry_that_is_down(tmp_path: Path) -> None:
    ended = bring(VERSION, tmp_path, f"http://127.0.0.1:{free_port()}", "--deadline_seconds", "1")
    check_failed(ended, 4, "no answer in 1 s", "Connection refused")
    assert ended.seconds < 2


def test_a_registry_that_says_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        ended = bring(VERSION, tmp_path, address, "--deadline_seconds", "1", "--call_seconds", "0.2")
        assert ended.seconds < 2
        check_failed(ended, 4, "timed out")
        assert ended.errors.count("trying again") > 1


def test_a_name_that_nobody_has(tmp_path: Path) -> None:
    ended = bring(VERSION, tmp_path, "http://registry.invalid:5000", "--deadline_seconds", "1")
    assert ended.code == 4
    assert ended.seconds < 3


def test_bytes_that_trickle_end_at_the_deadline(published: Published, tmp_path: Path) -> None:
    def trickle(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100):
            handler.wfile.write(b"X-%d: more\r\n" % number)
            time.sleep(0.1)

    with Front(published.uri, passing([trickle] * 9, "version=1")) as front:
        ended = bring(VERSION, tmp_path, front.address, "--deadline_seconds", "1")
    check_failed(ended, 4, "not done in 1 s")
    assert ended.seconds < 3


def flip(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize("name", ["model.onnx", "model.ckpt"])
def test_a_file_that_was_altered(published: Published, tmp_path: Path, name: str) -> None:
    with Front(published.uri, altering(name, flip)) as front:
        check_failed(bring(VERSION, tmp_path, front.address), 6, f"{name}: sha256 is ", "the file was altered or cut short")
    assert names(tmp_path) == set()


def test_a_manifest_that_was_altered(published: Published, tmp_path: Path) -> None:
    with Front(published.uri, altering("bundle.json", lambda body: body + b" ")) as front:
        check_failed(bring(VERSION, tmp_path, front.address), 6, "bundle.json: sha256 is ", "the registry says")


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (
            {"files": {"../evil": "0", "model.ckpt": "0", "model.onnx": "0"}},
            'expected model.ckpt and model.onnx alone, got ["../evil"]',
        ),
        ({"files": {"/etc/evil": "0"}}, "files.model.ckpt: missing"),
        ({"format_version": 2}, "format_version: expected 1, got 2"),
    ],
)
def test_a_manifest_that_is_no_bundles(published: Published, tmp_path: Path, manifest: dict[str, object], reason: str) -> None:
    def alter(body: bytes) -> bytes:
        return json.dumps({**json.loads(body), **manifest}).encode()

    destination = tmp_path / "a" / "models"
    destination.mkdir(parents=True)
    with Front(published.uri, altering("bundle.json", alter)) as front:
        ended = bring(f"mlflow://runs/{published.run_id}/bundle", destination, front.address)
    check_failed(ended, 7, f"bundle.json: {reason}" if "missing" in reason or "format" in reason else reason)
    assert names(destination) == set()
    assert not [path for path, _ in front.asked if "evil" in path]


def test_a_manifest_without_end(published: Published, tmp_path: Path) -> None:
    with Front(published.uri, altering("bundle.json", lambda body: body * 1000)) as front:
        ended = bring(VERSION, tmp_path, front.address)
    check_failed(ended, 7, "expected at most 1048576 bytes, got more")


def test_files_larger_than_allowed(published: Published, tmp_path: Path) -> None:
    ended = bring(VERSION, tmp_path, published.uri, "--max_bytes", "100000")
    check_failed(ended, 7, "expected at most 100000 bytes in all files, got more: raise --max_bytes")
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    "source", ["s3://models/digits/1", "gs://models/digits/1", "/mnt/mlruns/1", "mlflow-artifacts:/1/../../etc"]
)
def test_files_that_are_elsewhere(published: Published, tmp_path: Path, source: str) -> None:
    def elsewhere(body: bytes) -> bytes:
        return json.dumps({"model_version": {**json.loads(body)["model_version"], "source": source}}).encode()

    with Front(published.uri, altering("version=1", elsewhere)) as front:
        ended = bring(VERSION, tmp_path, front.address)
        check_failed(ended, 2, f"expected files that the MLflow server serves, got {source}", "--serve-artifacts")
        assert len(front.asked) == 1


def test_credentials_go_to_the_registry_alone(published: Published, tmp_path: Path) -> None:
    with Front(published.uri) as files:

        def elsewhere(body: bytes) -> bytes:
            found = json.loads(body)["model_version"]
            path = found["source"].removeprefix("mlflow-artifacts:")
            source = f"{files.address}/api/2.0/mlflow-artifacts/artifacts{path}"
            return json.dumps({"model_version": {**found, "source": source}}).encode()

        with Front(published.uri, altering("version=1", elsewhere)) as registry:
            ended = bring(VERSION, tmp_path, registry.address, variables={"MLFLOW_TRACKING_TOKEN": "secret"})
    assert ended.code == 0, ended
    assert [headers["Authorization"] for _, headers in registry.asked] == ["Bearer secret"]
    assert len(files.asked) == 3
    assert not any("Authorization" in headers for _, headers in files.asked)


def test_a_token_that_is_wrong(published: Published, tmp_path: Path) -> None:
    def guard(handler: Handler) -> None:
        handler.pass_on() if handler.headers["Authorization"] == "Bearer right" else handler.send(403)

    with Front(published.uri, guard) as front:
        wrong = bring(VERSION, tmp_path, front.address, variables={"MLFLOW_TRACKING_TOKEN": "wrong"})
        check_failed(wrong, 5, "refused the credentials (403 Forbidden)")
        assert len(front.asked) == 1
        assert bring(VERSION, tmp_path, front.address, variables={"MLFLOW_TRACKING_TOKEN": "right"}).code == 0


def test_tls(published: Published, tmp_path: Path) -> None:
    tls, authority = write_certificates(tmp_path)
    with Front(published.uri, tls=tls) as front:
        trusted = bring(VERSION, tmp_path / "a", front.address, variables={"MLFLOW_TRACKING_SERVER_CERT_PATH": str(authority)})
        assert trusted.code == 0, trusted
        check_failed(bring(VERSION, tmp_path / "b", front.address), 5, "its certificate is not trusted: ")
        assert bring(VERSION, tmp_path / "c", front.address, variables={"MLFLOW_TRACKING_INSECURE_TLS": "true"}).code == 0
        nothing = bring(
            VERSION, tmp_path / "d", front.address, variables={"MLFLOW_TRACKING_SERVER_CERT_PATH": str(tmp_path / "none")}
        )
        check_failed(nothing, 2, "MLFLOW_TRACKING_SERVER_CERT_PATH: expected certificates in PEM at ")


def test_a_redirection_is_not_followed(published: Published, tmp_path: Path) -> None:
    with Front(published.uri, lambda handler: handler.send(301, Location="https://registry/")) as front:
        check_failed(bring(VERSION, tmp_path, front.address), 2, "expected an answer, got a redirection to https://registry/")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_one_that_is_stopped_halfway_leaves_what_was_there(published: Published, tmp_path: Path, number: signal.Signals) -> None:
    directory, log = tmp_path / "models", tmp_path / "log"
    log.touch()
    old = published.bundle.save(directory, checkpoint=published.bundle.checkpoint_path, onnx=published.bundle.onnx_path)
    halfway, over = threading.Event(), threading.Event()

    def stall(handler: Handler) -> None:
        status, body = handler.fetch()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        halfway.set()
        over.wait(30)

    with Front(published.uri, passing([stall], "model.ckpt")) as front:
        process = subprocess.Popen(
            command(VERSION, directory, "--termination_log", str(log)),
            cwd=ROOT,
            env=environment(front.address),
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        assert halfway.wait(30)
        while not (directory / ".incoming" / "model.ckpt").exists():
            time.sleep(0.01)
        process.send_signal(number)
        begin = time.monotonic()
        code = process.wait(10)
        assert time.monotonic() - begin < 1
        over.set()
        assert code == (143 if number == signal.SIGTERM else -number)
        assert log.read_text() == (f"{VERSION}: stopped by SIGTERM" if number == signal.SIGTERM else "")
        assert Bundle.load(directory) == old
        assert Bundle.load(directory).registration is None
        assert bring(VERSION, directory, front.address).code == 0
    assert Bundle.load(directory).version == "1"
    assert names(directory) == WHOLE
