import json
from typing import Any

import numpy as np
import pytest

from serving.engine import Answer
from serving.errors import FieldError, UnknownModel
from serving.identity import Identity
from serving.tensors import Inference, Output, check_version, encode, parse

IDENTITY = Identity(name="digits", version="3", run_id="r", git_revision="", engine="onnx")
IMAGES = np.random.default_rng(0).random((2, 28, 28)).astype(np.float32)
ANSWER = Answer(np.array([7, 1]), np.eye(10, dtype=np.float32)[[7, 1]])


def request(**changes: Any) -> dict[str, Any]:
    """A good request, with members of its input changed, or left out where the change is None."""
    tensor = {"name": "images", "datatype": "FP32", "shape": [2, 784], "data": IMAGES.ravel().tolist(), **changes}
    return {"id": "a", "inputs": [{name: value for name, value in tensor.items() if value is not None}]}


def binary(raw: bytes, **changes: Any) -> tuple[bytes, str]:
    head = json.dumps(request(data=None, parameters={"binary_data_size": len(raw)}, **changes)).encode()
    return head + raw, str(len(head))


@pytest.mark.parametrize("shape", [[2, 784], [2, 28, 28]])
@pytest.mark.parametrize("is_flat", [True, False])
@pytest.mark.parametrize("is_spaced", [True, False], ids=["the slow reader", "SIMD"])
def test_json_tensors_flat_or_nested(shape: list[int], is_flat: bool, is_spaced: bool) -> None:
    data = (IMAGES.ravel() if is_flat else IMAGES.reshape(shape)).tolist()
    payload = request(shape=shape, data=data)
    if is_spaced:
        # A bracket in a string sends a body to the slow reader.
        payload["id"] = "["
    assert np.array_equal(parse(json.dumps(payload).encode()).images, IMAGES)


def test_doubles_and_bytes_are_taken_too() -> None:
    pixels = np.arange(1568) % 256
    expected = (pixels.astype(np.float32) / np.float32(255)).reshape(2, 28, 28)
    assert np.array_equal(parse(json.dumps(request(datatype="UINT8", data=pixels.tolist())).encode()).images, expected)
    assert np.array_equal(parse(*binary(pixels.astype(np.uint8).tobytes(), datatype="UINT8")).images, expected)
    doubles = IMAGES.astype(np.float64)
    assert np.array_equal(parse(*binary(doubles.tobytes(), datatype="FP64")).images, IMAGES)
    assert np.array_equal(parse(*binary(IMAGES.tobytes(), shape=[2, 28, 28])).images, IMAGES)


BAD_TENSORS: list[tuple[dict[str, Any], str]] = [
    ({"name": "image"}, 'inputs[0].name: expected images, got "image"'),
    ({"name": None}, "inputs[0].name: expected images, got null"),
    ({"datatype": "FP16"}, "inputs[0].datatype: expected one of FP32, FP64, UINT8"),
    ({"datatype": "fp32"}, "inputs[0].datatype"),
    ({"datatype": []}, "inputs[0].datatype"),
    ({"datatype": "BYTES"}, "inputs[0].datatype"),
    ({"shape": [784]}, "inputs[0].shape: expected [n, 28, 28] or [n, 784], got [784]"),
    ({"shape": [2, 783]}, "inputs[0].shape"),
    ({"shape": [2, 28, 28, 1]}, "inputs[0].shape"),
    ({"shape": [0, 784], "data": []}, "inputs[0].shape: expected 1 to 1024 images, got 0"),
    ({"shape": [-2, 784]}, "inputs[0].shape: expected 1 to 1024 images"),
    ({"shape": [1025, 784]}, "inputs[0].shape: expected 1 to 1024 images, got 1025"),
    ({"shape": [2.0, 784]}, "inputs[0].shape"),
    ({"shape": [True, 784]}, "inputs[0].shape"),
    ({"shape": "2"}, "inputs[0].shape"),
    ({"shape": [2**70, 784]}, "inputs[0].shape"),
    ({"data": None}, "inputs[0].data: expected 1568 numbers, got no such key"),
    ({"data": {}}, "inputs[0].data: expected a list of numbers, got an object"),
    ({"data": []}, "inputs[0].data: expected 1568 numbers, got 0"),
    ({"data": [0.0] * 1567}, "inputs[0].data: expected 1568 numbers, got 1567"),
    ({"data": [[0.0] * 784] * 3}, "inputs[0].data: expected 2 of shape [784], got 3"),
    ({"data": [[0.0] * 783, [0.0] * 785]}, "inputs[0].data[0]: expected 784 of shape [], got 783"),
    ({"data": [[0.0] * 784, 0.0]}, "inputs[0].data[1]: expected a list of 784, got 0.0"),
    ({"data": [[*[0.0] * 783, [0.0]], [0.0] * 784]}, "inputs[0].data, pixel 783: expected a number from 0 to 1, got a list"),
    ({"data": [*[0.0] * 1567, 1.5]}, "inputs[0].data, pixel 1567: expected a number from 0 to 1, got 1.5"),
    ({"data": [*[0.0] * 1567, True]}, "inputs[0].data, pixel 1567: expected a number from 0 to 1, got true"),
    ({"data": [*[0] * 1567, 256], "datatype": "UINT8"}, "inputs[0].data, pixel 1567: expected an integer from 0 to 255, got 256"),
    ({"data": [*[0] * 1567, 1.0], "datatype": "UINT8"}, "inputs[0].data, pixel 1567: expected an integer from 0 to 255, got 1.0"),
    ({"parameters": []}, "inputs[0].parameters: expected an object, got a list"),
    ({"parameters": {"binary_data_size": 6272}}, "inputs[0].data: expected none beside binary_data_size"),
    ({"parameters": {"binary_data_size": 6272}, "data": None}, "inputs[0].parameters.binary_data_size: expected 0"),
]


@pytest.mark.parametrize(("changes", "says"), BAD_TENSORS, ids=[str(index) for index in range(len(BAD_TENSORS))])
def test_a_bad_tensor_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse(json.dumps(request(**changes)).encode())
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ([], "body: expected a JSON object with a list of inputs, got a list"),
        ({}, "inputs: expected a list with the tensor images, got no such key"),
        ({"inputs": {}}, "inputs: expected a list"),
        ({"inputs": []}, "inputs: expected one tensor, images, got 0"),
        ({"inputs": [{}, {}]}, "inputs: expected one tensor, images, got 2"),
        ({"inputs": [7]}, "inputs: expected one tensor, images, got 7"),
        ({**request(), "id": 7}, "id: expected a string, got 7"),
        ({**request(), "parameters": 7}, "parameters: expected an object, got 7"),
        ({**request(), "parameters": {"binary_data_output": 1}}, "parameters.binary_data_output: expected true or false, got 1"),
        ({**request(), "outputs": {}}, "outputs: expected a list of outputs"),
        ({**request(), "outputs": ["labels"]}, 'outputs[0]: expected an object with a name, got "labels"'),
        ({**request(), "outputs": [{"name": "logits"}]}, "outputs[0].name: expected one of labels, probabilities"),
        ({**request(), "outputs": [{"name": "labels"}] * 2}, "outputs: expected each of labels, probabilities at most once"),
        (
            {**request(), "outputs": [{"name": "labels", "parameters": {"binary_data": "yes"}}]},
            "outputs[0].parameters.binary_data: expected true or false",
        ),
        (
            {**request(), "outputs": [{"name": "labels", "parameters": {"classification": 3}}]},
            "outputs[0].parameters.classification",
        ),
    ],
)
def test_a_bad_request_is_named(payload: Any, says: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse(json.dumps(payload).encode())
    assert says in str(caught.value)


@pytest.mark.parametrize("length", ["", "x", "-1", "0", "1e3", "9" * 30, "٣", "1000000"])
def test_a_bad_length_of_the_json_is_named(length: str) -> None:
    with pytest.raises(FieldError, match="inference-header-content-length: expected the length of the JSON"):
        parse(binary(IMAGES.tobytes())[0], length)


@pytest.mark.parametrize("raw", [b"", IMAGES.tobytes()[:-1], IMAGES.tobytes() + b"\0"])
def test_bytes_of_another_length_than_the_shape_says_are_named(raw: bytes) -> None:
    with pytest.raises(FieldError, match=r"inputs\[0\]: expected 6272 bytes, FP32 of shape \[2, 784\], got"):
        parse(*binary(raw))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.001, 1.001])
def test_bytes_that_are_no_pixel_are_named(value: float) -> None:
    images = IMAGES.copy()
    images[1, 0, 3] = value
    with pytest.raises(FieldError, match=r"inputs\[0\], pixel 787: expected a number from 0 to 1"):
        parse(*binary(images.tobytes()))


def test_an_answer_in_json() -> None:
    content, length = encode(ANSWER, Inference(images=IMAGES), IDENTITY, "i")
    assert length is None
    assert json.loads(content) == {
        "model_name": "digits",
        "model_version": "3",
        "id": "i",
        "outputs": [
            {"name": "labels", "datatype": "INT64", "shape": [2], "data": [7, 1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [2, 10], "data": ANSWER.probabilities.ravel().tolist()},
        ],
    }


def test_an_answer_in_binary_has_only_what_was_asked_for() -> None:
    asked = (Output(name="probabilities", is_binary=True), Output(name="labels"))
    content, length = encode(ANSWER, Inference(images=IMAGES, outputs=asked), IDENTITY, "i")
    assert length is not None
    first, second = json.loads(content[:length])["outputs"]
    assert first["parameters"] == {"binary_data_size": 80}
    assert second["data"] == [7, 1]
    assert np.array_equal(np.frombuffer(content[length:], np.float32).reshape(2, 10), ANSWER.probabilities)


def test_only_the_version_that_is_there_can_be_asked_for() -> None:
    check_version("", "3")
    check_version("3", "3")
    with pytest.raises(UnknownModel, match="model version: expected 3, got '2'"):
        check_version("2", "3")
