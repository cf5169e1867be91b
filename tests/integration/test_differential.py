"""The fast path beside kserve's own path, with the same model: equal answers to good and to bad requests."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from model.bundle import Bundle
from model.data import MnistData
from serving.rpc import load_messages
from tests.integration.test_protocols import bad_question, call, raw_and_typed, short_raw, two_inputs
from tests.processes import ROOT, Server
from tests.questions import question

pb: Any = load_messages()
JSON = {"content-type": "application/json", "x-request-id": "same"}
V1, V2 = "/v1/models/digits:predict", "/v2/models/digits/infer"
BLANK = [0.0] * 784
SEVEN = (ROOT / "data" / "seven.png").read_bytes()
# What belongs to the moment or the connection rather than to the answer.
UNEQUAL = {"date", "content-length", "content-type", "transfer-encoding"}


@dataclass(frozen=True)
class Case:
    """A request to both."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    method: str = "POST"


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "images", "datatype": "FP32", "shape": [1, 784], "data": BLANK, **changes}


def binary(images: Any, parameters: Any = None, **changes: Any) -> Case:
    size = {"binary_data_size": images.nbytes}
    head = {
        "id": "a",
        "inputs": [{"name": "images", "datatype": "FP32", "shape": list(images.shape), "parameters": size, **changes}],
    }
    content = json.dumps({**head, **(parameters or {})}).encode()
    headers = {**JSON, "content-type": "application/octet-stream", "inference-header-content-length": str(len(content))}
    return Case(V2, content + images.tobytes(), headers)


def corpus(images: Any) -> Iterator[Case]:
    """Good and bad requests of V1 and V2."""
    for shape in ((3, 784), (3, 28, 28)):
        part = images[:3].reshape(shape)
        yield Case(V1, json.dumps({"instances": part.tolist()}).encode())
        for data in (part.tolist(), part.ravel().tolist()):
            yield Case(V2, json.dumps({"id": "a", "inputs": [tensor(shape=list(shape), data=data)]}).encode())
        for parameters in ({}, {"parameters": {"binary_data_output": True}}, {"outputs": [{"name": "probabilities"}]}):
            yield binary(part, parameters)
        yield binary(part, {"outputs": [{"name": "labels", "parameters": {"binary_data": True}}, {"name": "probabilities"}]})
    pixels = np.round(images[:2] * 255).astype(np.uint8)
    yield binary(pixels, datatype="UINT8")
    yield Case(V2, json.dumps({"id": "a", "inputs": [tensor(datatype="UINT8", data=pixels[0].ravel().tolist())]}).encode())
    yield Case(V2, json.dumps({"inputs": [tensor(datatype="FP64")]}).encode())
    yield Case(V2, json.dumps({"inputs": [tensor()], "outputs": [{"name": "labels"}]}).encode())
    yield Case(V1, json.dumps({"instances": [BLANK, {"b64": base64.b64encode(SEVEN).decode()}]}).encode())
    yield Case(V1, SEVEN, {**JSON, "content-type": "image/png"})
    yield Case(V1, SEVEN, {**JSON, "content-type": "image/png", "x-return-images": "true"})
    yield Case(V1, json.dumps({"instances": [BLANK]}).encode(), {"content-type": "application/json; charset=utf-8"} | JSON)
    values: list[Any] = [1.5, -1, True, None, "x", [], {"b64": "?"}]
    for value in values:
        yield Case(V1, json.dumps({"instances": [[value, *BLANK[1:]]]}).encode())
        yield Case(V1, json.dumps({"instances": [value]}).encode())
        yield Case(V2, json.dumps({"inputs": [tensor(data=[value, *BLANK[1:]])]}).encode())
        yield Case(V2, json.dumps({"inputs": value}).encode())
        yield Case(V2, json.dumps({"inputs": [tensor(shape=[value, 784])]}).encode())
        yield Case(V2, json.dumps({"inputs": [tensor()], "outputs": value}).encode())
        yield Case(V2, json.dumps({"inputs": [tensor()], "id": [value]}).encode())
    for body in (
        b"",
        b"[",
        b"[]",
        b"7",
        b"null",
        b'{"instances": []}',
        b'{"inputs": []}',
        b"\xff",
        json.dumps({"a": BLANK}).encode(),
    ):
        yield Case(V1, body)
        yield Case(V2, body)
    for length in ("", "x", "-1", "0", "99999999"):
        yield Case(V2, binary(images[:1]).body, {**binary(images[:1]).headers, "inference-header-content-length": length})
    yield binary(images[:1], shape=[2, 784])
    yield binary(np.full((1, 784), np.nan, np.float32))
    yield Case(V1, b"7", {**JSON, "content-type": "text/plain"})
    yield Case(V1.replace("digits", "x"), b"{}")
    yield Case(V2.replace("digits", "x"), b"{}")
    for path in (V1, V2):
        yield Case(path, b"", method="GET")


@pytest.fixture(scope="module")
def kserves(bundle: Bundle) -> Iterator[Server]:
    with Server("--model_dir", str(bundle.directory), "--fast_path", "false") as running:
        yield running


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def ask(server: Server, case: Case) -> tuple[int, dict[str, str], Any]:
    answer = httpx.request(case.method, server.url + case.path, content=case.body, headers=case.headers, timeout=30)
    length = answer.headers.get("inference-header-content-length")
    head = json.loads(answer.content[: int(length)] if length else answer.content)
    headers = {name: value for name, value in answer.headers.items() if name not in UNEQUAL}
    headers.pop("inference-header-content-length", None)
    # Members may come in another order, and kserve's are null where ours are absent.
    head = without_nulls(head)
    return answer.status_code, headers, [head, answer.content[int(length) :].hex() if length else ""]


def test_rest_answers_are_equal(server: Server, kserves: Server, mnist: MnistData) -> None:
    images = mnist.split("test").images[:5].numpy()
    statuses = []
    for case in corpus(images):
        fast, slow = ask(server, case), ask(kserves, case)
        assert fast == slow, (case.path, case.body[:300])
        statuses.append(fast[0])
    assert statuses.count(200) >= 20
    assert statuses.count(400) >= 50
    assert set(statuses) == {200, 400, 404, 405}


def grpc_answer(server: Server, request: Any) -> tuple[Any, str]:
    try:
        answer, _ = call(server, "ModelInfer", request)
    except grpc.RpcError as error:
        return error.code(), error.details()
    for output in answer.outputs:
        # kserve says a second time how long the raw contents are.
        output.parameters.clear()
    return answer, ""


def test_grpc_answers_are_equal(server: Server, kserves: Server, mnist: MnistData) -> None:
    images = mnist.split("test").images[:3].numpy()
    requests = [question(images, is_raw=is_raw, id="a") for is_raw in (True, False)]
    chosen = question(images, is_raw=True, id="a")
    chosen.outputs.add(name="labels")
    bad = [
        bad_question(name="x"),
        bad_question(model_name="x"),
        bad_question(datatype="INT8"),
        two_inputs(),
        raw_and_typed(),
        short_raw(),
    ]
    for request in [*requests, chosen, *bad]:
        assert grpc_answer(server, request) == grpc_answer(kserves, request)
