"""What feedback says, read from bodies of V1 and V2; and what bodies that say nothing are told."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from serving.errors import FieldError
from serving.labelled import MAX_INSTANCES, Labelled, parse, parse_tensors
from tests.processes import ROOT

BLANK = [0.0] * 784
IMAGES = np.random.default_rng(8).random((3, 28, 28)).astype(np.float32)
LABELS = [7, 0, 9]
V1 = {"instances": IMAGES.tolist(), "labels": LABELS, "model_version": "3"}


def v2(*, is_binary: tuple[bool, bool] = (False, False), **changes: Any) -> tuple[bytes, str | None]:
    """A body, and its header; ``changes`` are those of the labels' tensor, or of the whole payload."""
    arrays: tuple[Any, ...] = (IMAGES, np.array(LABELS, np.int64))
    tensors: list[dict[str, Any]] = [
        {"name": "images", "datatype": "FP32", "shape": [3, 28, 28]},
        {"name": "labels", "datatype": "INT64", "shape": [3]},
    ]
    tail = b""
    for tensor, array, as_bytes in zip(tensors, arrays, is_binary, strict=True):
        if as_bytes:
            tensor["parameters"] = {"binary_data_size": array.nbytes}
            tail += array.tobytes()
        else:
            tensor["data"] = array.ravel().tolist()
    payload: dict[str, Any] = {"inputs": tensors, "parameters": {"model_version": "3", "source": "asked"}}
    for name, value in changes.items():
        (payload if name in payload else tensors[1])[name] = value
    head = json.dumps(payload).encode()
    return head + tail, str(len(head)) if any(is_binary) else None


def check(found: Labelled, source: str) -> None:
    assert np.abs(found.images - IMAGES).max() < 1e-7
    assert found.labels.tolist() == LABELS
    assert (found.model_version, found.source) == ("3", source)


def test_v1_says_images_labels_version_and_source() -> None:
    check(parse(json.dumps(V1).encode()), "volunteered")
    check(parse(json.dumps({**V1, "source": "asked"}).encode(), "application/json; charset=utf-8"), "asked")
    flat = {**V1, "instances": IMAGES.reshape(3, 784).tolist()}
    check(parse(json.dumps(flat).encode()), "volunteered")


def test_v1_takes_pictures_as_predictions_do() -> None:
    picture = {"b64": base64.b64encode((ROOT / "data" / "seven.png").read_bytes()).decode()}
    found = parse(json.dumps({**V1, "instances": [picture, BLANK], "labels": [7, 1]}).encode())
    assert found.images.shape == (2, 28, 28)
    assert found.images[0].max() > 0.5


@pytest.mark.parametrize("is_binary", [(False, False), (True, True), (True, False), (False, True)], ids=str)
def test_v2_says_it_in_json_and_in_binary(is_binary: tuple[bool, bool]) -> None:
    check(parse_tensors(*v2(is_binary=is_binary)), "asked")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": [7, 0, 1, 11]}, "labels: expected 3, one for each image, got 4"),
        ({"labels": [7, 0, 11]}, "labels[2]: expected a label of 0 to 9, got 11"),
        ({"labels": [7, 0, -1]}, "labels[2]: expected a label of 0 to 9, got -1"),
        ({"labels": [True, 0, 1]}, "labels[0]: expected a label of 0 to 9, got true"),
        ({"labels": [7, 1.0, 1]}, "labels[1]: expected a label of 0 to 9, got 1.0"),
        ({"labels": [7, "1", 1]}, 'labels[1]: expected a label of 0 to 9, got "1"'),
        ({"labels": [7, None, [1]]}, "labels[1]: expected a label of 0 to 9, got null"),
        ({"labels": 7}, "labels: expected a list of labels, each a label of 0 to 9, got 7"),
        ({"labels": ...}, "labels: expected a list of labels, each a label of 0 to 9, got no such key"),
        ({"instances": ...}, "instances: expected a list of images"),
        ({"instances": [BLANK, BLANK, [0.0] * 783]}, "instances[2]: expected 28 rows"),
        (
            {"instances": [BLANK] * (MAX_INSTANCES + 1)},
            f"instances: expected 1 to {MAX_INSTANCES} images, got {MAX_INSTANCES + 1}",
        ),
        ({"instances": [], "labels": []}, f"instances: expected 1 to {MAX_INSTANCES} images, got 0"),
        ({"model_version": ...}, "model_version: expected the version that answered, as x-model-version has it, got no such key"),
        ({"model_version": 3}, "model_version: expected the version that answered, as x-model-version has it, got 3"),
        ({"model_version": ""}, 'model_version: expected the version that answered, as x-model-version has it, got ""'),
        ({"model_version": "3" * 129}, "model_version: expected the version that answered"),
        ({"source": "bored"}, 'source: expected volunteered or asked, got "bored"'),
        ({"source": None}, "source: expected volunteered or asked, got null"),
        ({"source": ["asked"]}, "source: expected volunteered or asked, got a list"),
        ({"predicted": [7]}, "body: expected no key but instances, labels, model_version, source, got 'predicted'"),
    ],
    ids=str,
)
def test_bad_v1_bodies_are_told_the_field(changes: dict[str, Any], says: str) -> None:
    payload = {name: value for name, value in {**V1, **changes}.items() if value is not ...}
    with pytest.raises(FieldError) as caught:
        parse(json.dumps(payload).encode())
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"", "", "body: expected a JSON object with instances, labels, model_version, got an empty body"),
        (b"[]", "application/json", "body: expected a JSON object with instances, labels, model_version, got a list"),
        (b"\x89PNG", "image/png", "content-type: expected application/json, got 'image/png'"),
    ],
)
def test_what_is_no_feedback_at_all_is_told_so(body: bytes, content_type: str, says: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse(body, content_type)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inputs": ...}, "inputs: expected a list with the tensors images and labels, got no such key"),
        ({"inputs": {}}, "inputs: expected a list with the tensors images and labels, got an object"),
        ({"inputs": [{}]}, "inputs: expected two tensors, images and labels, got 1"),
        ({"inputs": [{}, 7]}, "inputs: expected two tensors, images and labels, got something else"),
        ({"inputs": [{"name": "labels"}, {}]}, 'inputs[0].name: expected images, got "labels"'),
        ({"name": "label"}, 'inputs[1].name: expected labels, got "label"'),
        ({"datatype": "INT32"}, 'inputs[1].datatype: expected INT64, got "INT32"'),
        ({"shape": [3, 1]}, "inputs[1].shape: expected [3], got a list"),
        ({"shape": [4]}, "inputs[1].shape: expected [3], got a list"),
        ({"data": [7, 0]}, "inputs[1].data: expected 3, one for each image, got 2"),
        ({"data": [7, 0, 10]}, "inputs[1].data[2]: expected a label of 0 to 9, got 10"),
        ({"data": "789"}, 'inputs[1].data: expected 3 labels, got "789"'),
        ({"parameters": {}}, "parameters.model_version: expected the version that answered"),
        ({"parameters": {"model_version": "3", "source": 1}}, "parameters.source: expected volunteered or asked, got 1"),
        ({"parameters": []}, "parameters: expected an object, got a list"),
    ],
    ids=str,
)
def test_bad_v2_bodies_are_told_the_field(changes: dict[str, Any], says: str) -> None:
    body, header = v2(**{name: value for name, value in changes.items() if value is not ...})
    if ... in changes.values():
        body = json.dumps({name: value for name, value in json.loads(body).items() if name not in changes}).encode()
    with pytest.raises(FieldError) as caught:
        parse_tensors(body, header)
    assert str(caught.value).startswith(says)


def resized(images: Any, labels: Any, *, tail: int = 0) -> tuple[bytes, str]:
    """A body in binary whose tensors say that they have other sizes; ``tail`` is what is cut off, or added."""
    body, header = v2(is_binary=(True, True))
    assert header
    payload = json.loads(body[: int(header)])
    for tensor, size in zip(payload["inputs"], (images, labels), strict=True):
        tensor["parameters"]["binary_data_size"] = size
    head = json.dumps(payload).encode()
    rest = body[int(header) :]
    return head + (rest[:tail] if tail < 0 else rest + bytes(tail)), str(len(head))


SIZE, LABELS_SIZE = IMAGES.nbytes, 24


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (resized(SIZE, LABELS_SIZE - 1), "inputs[1].parameters.binary_data_size: expected 24, which follow, got 23"),
        (resized(SIZE, LABELS_SIZE, tail=8), "inputs[1].parameters.binary_data_size: expected 32, which follow, got 24"),
        (resized(SIZE, LABELS_SIZE + 8, tail=8), "inputs[1]: expected 24 bytes, INT64 of shape [3], got 32"),
        (resized(SIZE, LABELS_SIZE, tail=-1), "inputs[1].parameters.binary_data_size: expected 23, which follow, got 24"),
        (resized(SIZE, None), "inputs[1].parameters.binary_data_size: expected 24, which follow, got null"),
        (resized(SIZE - 4, LABELS_SIZE + 4), "inputs[0]: expected 9408 bytes, FP32 of shape [3, 28, 28], got 9404"),
        (
            resized(SIZE + 99, LABELS_SIZE),
            "inputs[0].parameters.binary_data_size: expected 9432, which follow the JSON, got 9507",
        ),
        (resized(-1, LABELS_SIZE), "inputs[0].parameters.binary_data_size: expected 9432, which follow the JSON, got -1"),
        (resized(True, LABELS_SIZE), "inputs[0].parameters.binary_data_size: expected 9432, which follow the JSON, got true"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_bytes_that_do_not_fit_are_told_so(parts: tuple[bytes, str], says: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse_tensors(*parts)
    assert str(caught.value) == says


def test_labels_in_binary_are_looked_at_too() -> None:
    body, header = v2(is_binary=(True, True))
    with pytest.raises(FieldError, match=r"^inputs\[1\]\[2\]: expected a label of 0 to 9, got -3$"):
        parse_tensors(body[:-8] + np.int64(-3).tobytes(), header)
