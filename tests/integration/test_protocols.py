"""One model behind every protocol: the same answers, the same lineage, errors as each protocol has them."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image

from model.bundle import Bundle, Floats
from model.data import MnistData
from serving.engine import Engine
from tests.processes import ROOT, Server
from tests.questions import binary_request, pb, question

BATCH = 1000


def png(image: Floats) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.round(image * 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def v1(server: Server, images: Floats) -> Floats:
    answer = httpx.post(server.predict_url, json={"instances": images.tolist()}, timeout=30).raise_for_status().json()
    return np.array([prediction["probabilities"] for prediction in answer["predictions"]], np.float32)


def v1_pictures(server: Server, images: Floats) -> Floats:
    instances = [{"b64": base64.b64encode(png(image)).decode()} for image in images]
    answer = httpx.post(server.predict_url, json={"instances": instances}, timeout=30).raise_for_status().json()
    return np.array([prediction["probabilities"] for prediction in answer["predictions"]], np.float32)


def v2_json(server: Server, images: Floats) -> Floats:
    tensor = {"name": "images", "datatype": "FP32", "shape": list(images.shape), "data": images.tolist()}
    answer = httpx.post(server.infer_url, json={"inputs": [tensor]}, timeout=30).raise_for_status().json()
    labels, probabilities = answer["outputs"]
    found = np.array(probabilities["data"], np.float32).reshape(probabilities["shape"])
    assert labels["data"] == found.argmax(axis=1).tolist()
    return found


def v2_binary(server: Server, images: Floats, datatype: str = "FP32") -> Floats:
    content, headers = binary_request(images, datatype)
    answer = httpx.post(server.infer_url, content=content, headers=headers, timeout=30).raise_for_status()
    length = int(answer.headers["inference-header-content-length"])
    labels, probabilities = json.loads(answer.content[:length])["outputs"]
    tail = answer.content[length + labels["parameters"]["binary_data_size"] :]
    return np.frombuffer(tail, np.float32).reshape(probabilities["shape"])


def v2_bytes(server: Server, images: Floats) -> Floats:
    return v2_binary(server, images, "UINT8")


def call(server: Server, method: str, request: Any, metadata: tuple[tuple[str, str], ...] = ()) -> tuple[Any, Any]:
    """The answer to a gRPC call, and its trailing metadata."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=getattr(pb, f"{method}Response").FromString,
        )
        answer, state = stub.with_call(request, timeout=30, metadata=metadata)
    return answer, dict(state.trailing_metadata())


def grpc_raw(server: Server, images: Floats) -> Floats:
    answer, _ = call(server, "ModelInfer", question(images, is_raw=True))
    return np.frombuffer(answer.raw_output_contents[1], np.float32).reshape(answer.outputs[1].shape)


def grpc_typed(server: Server, images: Floats) -> Floats:
    answer, _ = call(server, "ModelInfer", question(images.reshape(-1, 784), is_raw=False))
    return np.array(answer.outputs[1].contents.fp32_contents, np.float32).reshape(answer.outputs[1].shape)


PROTOCOLS: list[Callable[[Server, Floats], Floats]] = [v1, v1_pictures, v2_json, v2_binary, v2_bytes, grpc_raw, grpc_typed]


@pytest.fixture(scope="module")
def torch_server(bundle: Bundle) -> Iterator[Server]:
    with Server("--model_dir", str(bundle.directory), "--engine", "torch") as running:
        yield running


@pytest.mark.parametrize("ask", PROTOCOLS, ids=lambda ask: ask.__name__)
def test_accuracy_over_the_test_images_is_the_engines_own_exactly(
    server: Server, bundle: Bundle, mnist: MnistData, ask: Callable[[Server, Floats], Floats]
) -> None:
    images, labels = mnist.split("test").arrays()
    expected = Engine(bundle).predict(images)
    found = np.concatenate([ask(server, images[start : start + BATCH]) for start in range(0, len(images), BATCH)])
    assert (found.argmax(axis=1) == labels).sum() == (expected.argmax(axis=1) == labels).sum()
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("ask", PROTOCOLS, ids=lambda ask: ask.__name__)
def test_the_other_engine_gives_the_same_on_every_protocol(
    torch_server: Server, bundle: Bundle, mnist: MnistData, ask: Callable[[Server, Floats], Floats]
) -> None:
    images = mnist.split("test").images[:50].numpy()
    assert np.abs(ask(torch_server, images) - Engine(bundle).predict(images)).max() < 1e-5


def test_every_answer_names_model_version_run_and_request(server: Server, bundle: Bundle) -> None:
    lineage = {"x-model-version": bundle.version, "x-model-run-id": bundle.lineage.run_id}
    paths = [
        "",
        "metrics",
        "v2",
        "v2/models/digits",
        "v2/health/ready",
        "v1/models",
        "v1/models/digits",
        "nowhere",
        "v2/models/x",
    ]
    for path in paths:
        answer = httpx.get(f"{server.url}/{path}", headers={"x-request-id": "mine-1"}, timeout=30)
        assert {name: answer.headers[name] for name in lineage} == lineage, path
        assert answer.headers["x-request-id"] == "mine-1"
    for url in (server.predict_url, server.infer_url):
        answers = [
            httpx.post(url, content=b"[", headers={"x-request-id": given}, timeout=10) for given in ("", "a\tb", "a" * 500)
        ]
        assert all(answer.headers["x-model-version"] == bundle.version for answer in answers)
        ids = [answer.headers["x-request-id"] for answer in answers]
        assert len(set(ids)) == 3
        assert ids[2] == "a" * 128
    _, trailer = call(server, "ModelInfer", question(np.zeros((1, 28, 28), np.float32), is_raw=True))
    assert {name: trailer[name] for name in lineage} == lineage
    answer, trailer = call(server, "ModelMetadata", pb.ModelMetadataRequest(name="digits"))
    assert list(answer.versions) == [bundle.version]
    assert trailer["x-model-run-id"] == bundle.lineage.run_id


def test_metadata_is_the_same_over_rest_and_grpc(server: Server, bundle: Bundle) -> None:
    rest = httpx.get(f"{server.url}/v2/models/digits", timeout=10).json()
    assert rest["properties"] == {
        "run_id": bundle.lineage.run_id,
        "git_revision": bundle.lineage.git_revision or "",
        "engine": "onnx",
    }
    answer, _ = call(server, "ModelMetadata", pb.ModelMetadataRequest(name="digits"))
    for name in ("inputs", "outputs"):
        tensors = [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in getattr(answer, name)]
        assert rest[name] == tensors
    assert (rest["name"], rest["versions"], rest["platform"]) == ("digits", [bundle.version], answer.platform)
    server_metadata, _ = call(server, "ServerMetadata", pb.ServerMetadataRequest())
    found = httpx.get(f"{server.url}/v2", timeout=30).json()
    assert (found["name"], found["version"]) == (server_metadata.name, server_metadata.version)


def test_health_on_every_protocol(server: Server) -> None:
    assert call(server, "ServerLive", pb.ServerLiveRequest())[0].live
    assert call(server, "ServerReady", pb.ServerReadyRequest())[0].ready
    assert call(server, "ModelReady", pb.ModelReadyRequest(name="digits"))[0].ready
    assert httpx.get(f"{server.url}/v2/health/live", timeout=10).json() == {"live": True}
    assert httpx.get(f"{server.url}/v2/health/ready", timeout=10).json() == {"ready": True}
    assert httpx.get(f"{server.url}/", timeout=10).json() == {"status": "alive"}
    assert httpx.head(f"{server.url}/v2/models/digits/ready", timeout=10).status_code == 200


def test_only_the_version_that_is_served_can_be_named(server: Server, bundle: Bundle) -> None:
    body = {"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 784], "data": [0.0] * 784}]}
    model = f"{server.url}/v2/models/digits/versions"
    assert httpx.post(f"{model}/{bundle.version}/infer", json=body, timeout=10).json()["model_version"] == bundle.version
    assert httpx.get(f"{model}/{bundle.version}/ready", timeout=10).status_code == 200
    assert httpx.get(f"{model}/{bundle.version}", timeout=10).json()["versions"] == [bundle.version]
    answer = httpx.post(f"{model}/99/infer", json=body, timeout=10)
    assert (answer.status_code, answer.json()["error"]) == (404, f"model version: expected {bundle.version}, got '99'")


def test_an_id_is_given_back_or_is_the_requests(server: Server) -> None:
    body = {"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 784], "data": [0.0] * 784}]}
    assert httpx.post(server.infer_url, json={**body, "id": "mine"}, timeout=10).json()["id"] == "mine"
    answer = httpx.post(server.infer_url, json=body, timeout=10)
    assert answer.json()["id"] == answer.headers["x-request-id"]


def test_what_the_model_saw_is_shown_on_request(server: Server) -> None:
    content = (ROOT / "data" / "seven.png").read_bytes()
    headers = {"content-type": "image/png", "x-return-images": "true"}
    (prediction,) = httpx.post(server.predict_url, content=content, headers=headers, timeout=10).json()["predictions"]
    again = httpx.post(server.predict_url, json={"instances": [prediction["image"]]}, timeout=10).json()["predictions"]
    assert again[0]["probabilities"] == pytest.approx(prediction["probabilities"], abs=1e-6)
    assert "image" not in again[0]


def bad_question(**changes: Any) -> Any:
    request = question(np.zeros((1, 28, 28), np.float32), is_raw=bool(changes.pop("is_raw", True)))
    for name, value in changes.items():
        setattr(request.inputs[0] if name in ("name", "datatype") else request, name, value)
    return request


def two_inputs() -> Any:
    request = bad_question()
    request.inputs.append(request.inputs[0])
    return request


def raw_and_typed() -> Any:
    request = bad_question()
    request.inputs[0].contents.fp32_contents.append(1.0)
    return request


def misplaced() -> Any:
    request = bad_question(is_raw=False)
    request.inputs[0].datatype = "FP64"
    return request


def not_a_number() -> Any:
    return question(np.full((1, 28, 28), np.nan, np.float32), is_raw=True)


def unknown_output() -> Any:
    request = bad_question()
    request.outputs.add(name="logits")
    return request


def short_raw() -> Any:
    request = bad_question()
    request.raw_input_contents[0] = request.raw_input_contents[0][:-1]
    return request


INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (pb.ModelInferRequest(model_name="digits"), INVALID, "inputs: expected one tensor, images, got 0"),
        (two_inputs(), INVALID, "inputs: expected one tensor, images, got 2"),
        (bad_question(name="x"), INVALID, "inputs[0].name: expected images"),
        (bad_question(datatype="INT8"), INVALID, "inputs[0].datatype: expected one of FP32"),
        (bad_question(model_name="x"), grpc.StatusCode.NOT_FOUND, "model: expected digits, got 'x'"),
        (bad_question(model_version="99"), grpc.StatusCode.NOT_FOUND, "model version: expected"),
        (raw_and_typed(), INVALID, "raw_input_contents: expected one, and then no contents in inputs"),
        (misplaced(), INVALID, "inputs[0].contents.fp64_contents: expected 784 numbers, got 0"),
        (not_a_number(), INVALID, "raw_input_contents[0], pixel 0: expected a number from 0 to 1, got nan"),
        (unknown_output(), INVALID, "outputs[0].name: expected each of labels, probabilities at most once, got 'logits'"),
        (short_raw(), INVALID, "raw_input_contents[0]: expected 3136 bytes"),
        (question(np.zeros((3000, 784), np.float32), is_raw=True), grpc.StatusCode.RESOURCE_EXHAUSTED, "message"),
        (question(np.zeros((1025, 28, 28), np.float32), is_raw=True), INVALID, "inputs[0].shape: expected 1 to 1024 images"),
    ],
)
def test_bad_grpc_requests_get_the_status_and_the_field(server: Server, request_: Any, code: grpc.StatusCode, says: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(server, "ModelInfer", request_)
    assert caught.value.code() is code
    assert says in caught.value.details()
    assert call(server, "ModelInfer", bad_question())[0].outputs


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_nobody_loads_or_unloads_models_over_grpc(server: Server, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(server, method, getattr(pb, f"{method}Request")(model_name="digits"))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
