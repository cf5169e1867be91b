"""The sample of live requests that a server keeps: which ones, and who can read them."""

import socket
import time
from base64 import b64decode
from collections.abc import Iterator
from typing import Any, Self

import grpc
import httpx
import numpy as np
import pytest

from model.bundle import Bundle, Floats
from model.data import MnistData
from model.demo import free_port
from serving.shadow import MAX_BODY_BYTES
from tests.integration.test_protocols import call, png
from tests.processes import Server, run
from tests.questions import binary_request, pb, question

TIMEOUT_SECONDS = 10
MARKED = {"x-shadow": "1"}
INFER = "/inference.GRPCInferenceService/ModelInfer"


class Shown(Server):
    """A server that keeps requests."""

    def __init__(self, bundle: Bundle, *arguments: str, port: int | None = None) -> None:
        self.port = port or free_port()
        flags = ["--shadow_requests", "8", "--shadow_port", str(self.port)]
        super().__init__("--model_dir", str(bundle.directory), *flags, *arguments)

    def kept(self) -> list[dict[str, Any]]:
        answer = httpx.get(f"http://127.0.0.1:{self.port}/samples", timeout=TIMEOUT_SECONDS).raise_for_status()
        assert answer.headers["content-type"] == "application/json"
        found: list[dict[str, Any]] = answer.json()["requests"]
        return found

    def __enter__(self) -> Self:
        super().__enter__()
        return self


@pytest.fixture(params=["1", "2"], ids=["one process", "two processes"])
def shown(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Shown]:
    with Shown(bundle, "--workers", request.param) as running:
        yield running


@pytest.fixture(scope="session")
def image(mnist: MnistData) -> Floats:
    images, _ = mnist.split("test").arrays()
    return np.ascontiguousarray(images[:1])


def post(url: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    """On a connection of its own, so that several processes get some."""
    return httpx.post(url, headers=headers, timeout=TIMEOUT_SECONDS, **body)


def infer(server: Server, message: Any, metadata: list[tuple[str, str]] | None = None) -> bytes:
    with grpc.insecure_channel(server.grpc_address) as channel:
        content = message if isinstance(message, bytes) else message.SerializeToString()
        answer: bytes = channel.unary_unary(INFER)(content, timeout=TIMEOUT_SECONDS, metadata=metadata)
        return answer


def test_what_was_not_answered_well_or_is_marked_or_large_is_not_kept(shown: Shown, image: Floats) -> None:
    instances = {"instances": image.tolist()}
    large = {"instances": [[0.0] * 784] * 32}
    # The first good one of a process is always due, so that whatever was kept before it would be seen.
    assert post(shown.predict_url, content=b"[").status_code == 400
    assert post(shown.predict_url, content=png(image[0])[:80], headers={"content-type": "image/png"}).status_code == 400
    assert post(f"{shown.url}/v1/models/other:predict", json=instances).status_code == 404
    assert post(shown.infer_url, content=b"{}").status_code == 400
    assert post(shown.predict_url, json=instances, headers=MARKED).is_success
    assert post(shown.predict_url, json=large).is_success
    assert len(post(shown.predict_url, json=large).request.content) > MAX_BODY_BYTES
    body, headers = binary_request(image)
    assert post(shown.infer_url, content=body, headers=headers | MARKED).is_success
    infer(shown, question(image, is_raw=True), [("x-shadow", "1")])
    with pytest.raises(grpc.RpcError):
        call(shown, "ModelInfer", pb.ModelInferRequest(model_name="digits"))
    httpx.get(f"{shown.url}/v2/models/digits", timeout=TIMEOUT_SECONDS).raise_for_status()
    assert shown.kept() == []
    assert post(shown.predict_url, json=instances).is_success
    (entry,) = shown.kept()
    assert entry["path"] == "/v1/models/digits:predict"


def test_what_is_kept_asks_the_same_again(shown: Shown, image: Floats) -> None:
    binary, lengths = binary_request(image)
    version = httpx.get(f"{shown.url}/v2/models/digits", timeout=TIMEOUT_SECONDS).json()["versions"][0]
    versioned = f"{shown.url}/v2/models/digits/versions/{version}/infer"
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 28, 28], "data": image.ravel().tolist()}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("/v1/models/digits:predict", shown.predict_url, {"json": {"instances": image.tolist()}}),
        ("/v1/models/digits:predict", shown.predict_url, {"content": png(image[0]), "headers": {"content-type": "image/png"}}),
        ("/v2/models/digits/infer", shown.infer_url, {"content": binary, "headers": lengths}),
        ("/v2/models/digits/infer", versioned, {"json": {"inputs": [tensor]}}),
    ]
    for path, url, options in asked:
        request = httpx.Request("POST", url, **options)
        entry = until_kept(shown, lambda url=url, options=options: post(url, **options), request.content)
        assert entry["path"] == path
        wanted = {"content-type", "inference-header-content-length"}
        assert entry["headers"] == {name: value for name, value in request.headers.items() if name in wanted}
        first = post(url, **options)
        again = post(shown.url + entry["path"], content=b64decode(entry["body"]), headers=entry["headers"])
        assert again.is_success
        if "json" in options or "content-type" in entry["headers"]:
            assert without_id(again.json()) == without_id(first.json())


def without_id(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "id"}


def until_kept(server: Shown, ask: Any, body: bytes) -> dict[str, Any]:
    """Ask until one of those that asked with ``body`` is kept."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ask()
        for entry in server.kept():
            if b64decode(entry["body"]) == body:
                return entry
    raise AssertionError(server.output)


def test_grpc_calls_are_kept_as_messages(shown: Shown, image: Floats) -> None:
    message = question(image, is_raw=True, id="mine").SerializeToString()
    entry = until_kept(shown, lambda: infer(shown, message), message)
    assert (entry["path"], entry["headers"]) == (INFER, {})
    assert infer(shown, b64decode(entry["body"])) == infer(shown, message)


def test_one_question_shows_those_of_all_processes(bundle: Bundle, image: Floats) -> None:
    deadline = time.monotonic() + 60
    with Shown(bundle, "--workers", "2") as server:
        while {entry["id"] % 2 for entry in server.kept()} != {0, 1}:
            assert time.monotonic() < deadline
            post(server.predict_url, json={"instances": image.tolist()})
        assert all(server.kept() == found for found in [server.kept()] * 5)


def test_only_loopback_and_only_one_path_show_them(shown: Shown, image: Floats) -> None:
    post(shown.predict_url, json={"instances": image.tolist()})
    assert httpx.get(f"{shown.url}/samples", timeout=TIMEOUT_SECONDS).status_code == 404
    own = f"http://127.0.0.1:{shown.port}"
    for path in ("/", "/samples/", "/v1/models/digits"):
        assert httpx.get(own + path, timeout=TIMEOUT_SECONDS).status_code == 404
    assert httpx.post(f"{own}/samples", timeout=TIMEOUT_SECONDS).status_code == 404
    # A listener on all addresses would answer here too, as the port of REST does.
    assert httpx.get(f"http://127.0.0.2:{shown.url.rpartition(':')[2]}/v2/health/live", timeout=TIMEOUT_SECONDS).is_success
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.2:{shown.port}/samples", timeout=TIMEOUT_SECONDS)


def test_no_body_is_logged_and_the_server_ends_as_usual(bundle: Bundle) -> None:
    with Shown(bundle, "--workers", "2", "--log_requests", "all") as server:
        post(server.predict_url, json={"instances": [[0.123456] * 784]})
        assert len(server.kept()) == 1
        server.popen.terminate()
        assert server.wait(30) == 0
    assert "0.123456" not in server.output
    assert "samples" not in server.output


def test_a_server_keeps_nothing_unless_told(bundle: Bundle) -> None:
    port = free_port()
    with Server("--model_dir", str(bundle.directory), "--shadow_port", str(port)), pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/samples", timeout=TIMEOUT_SECONDS)


def test_a_port_that_is_taken_is_named(bundle: Bundle) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        flags = ["--http_port", str(free_port()), "--grpc_port", str(free_port()), "--shadow_requests", "1"]
        code, output = run("serving", "--model_dir", str(bundle.directory), *flags, "--shadow_port", port)
    assert code == 2
    assert f"--shadow_port: expected a free port, got {port}, one that is taken" in output
