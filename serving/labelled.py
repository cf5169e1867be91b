"""Feedback: request bodies to images with the labels that they should have been given. Pure: no server, no model.

V1 is as a body of predictions, and says more: ``{"instances": [...], "labels": [7], "model_version": "3", "source": "asked"}``.
V2 has a second tensor, ``labels``, INT64 of shape [n], behind ``images``, and ``model_version`` and ``source`` as parameters.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from model.bundle import LABELS, Floats, Labels
from serving import codec, tensors
from serving.codec import kind, parse_json
from serving.confusion import SOURCES, Source
from serving.errors import fail

MAX_INSTANCES = 64

_KEYS = ("instances", "labels", "model_version", "source")
_INPUTS = (tensors.INPUT, "labels")
_LABEL = f"a label of {LABELS[0]} to {LABELS[-1]}"
_VERSION = "the version that answered, as x-model-version has it"
_VERSION_CHARACTERS = 128
_BYTES = np.dtype("<i8")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Images (n, 28, 28), their labels (n,), the version that answered for them, and why somebody says so."""

    images: Floats
    labels: Labels
    model_version: str
    source: Source


def parse(body: bytes, content_type: str = codec.JSON_TYPE, max_instances: int = MAX_INSTANCES) -> Labelled:
    """The feedback in a body of V1. Raises `FieldError`."""
    if (media_type := content_type.partition(";")[0].strip().lower()) not in ("", codec.JSON_TYPE):
        fail("content-type", codec.JSON_TYPE, repr(media_type[:40]))
    expected = f"a JSON object with {', '.join(_KEYS[:-1])}"
    payload = parse_json(body, expected, max_instances)
    if not isinstance(payload, dict):
        fail("body", expected, kind(payload))
    if unknown := [key for key in payload if key not in _KEYS]:
        fail("body", f"no key but {', '.join(_KEYS)}", repr(unknown[0][:40]))
    labels = payload.get("labels")
    if not isinstance(labels, list):
        fail("labels", f"a list of labels, each {_LABEL}", kind(labels) if "labels" in payload else "no such key")
    version, source = _origin("", payload)
    instances = {"instances": payload["instances"]} if "instances" in payload else {}
    images = codec.parse_instances(instances, max_instances=max_instances)
    return Labelled(images=images, labels=_labels("labels", labels, len(images)), model_version=version, source=source)


def parse_tensors(body: bytes, header_length: str | None = None, max_instances: int = MAX_INSTANCES) -> Labelled:
    """The feedback in a body of V2, whose JSON ends after ``header_length`` bytes where tensors follow. Raises `FieldError`."""
    expected = "a JSON object with a list of inputs"
    payload, binary = tensors.split(body, header_length, expected, max_instances)
    if not isinstance(payload, dict):
        fail("body", expected, kind(payload))
    inputs, names = payload.get("inputs"), " and ".join(_INPUTS)
    if not isinstance(inputs, list):
        fail("inputs", f"a list with the tensors {names}", kind(inputs) if "inputs" in payload else "no such key")
    if len(inputs) != len(_INPUTS) or not all(isinstance(tensor, dict) for tensor in inputs):
        fail("inputs", f"two tensors, {names}", f"{len(inputs)}" if len(inputs) != len(_INPUTS) else "something else")
    version, source = _origin("parameters.", tensors.parameters("parameters", payload))
    first, second = _divide(inputs[0], binary)
    images = tensors.read_images(inputs[0], first, max_instances)
    return Labelled(images=images, labels=_read_labels(inputs[1], second, len(images)), model_version=version, source=source)


def _origin(prefix: str, holder: dict[str, Any]) -> tuple[str, Source]:
    version, source = holder.get("model_version"), holder.get("source", SOURCES[0])
    if not isinstance(version, str) or not 1 <= len(version) <= _VERSION_CHARACTERS:
        fail(f"{prefix}model_version", _VERSION, kind(version) if "model_version" in holder else "no such key")
    if source not in SOURCES:
        fail(f"{prefix}source", " or ".join(SOURCES), kind(source))
    return version, source


def _labels(field: str, labels: list[Any], images: int) -> Labels:
    """The labels (n,) of as many images."""
    if len(labels) != images:
        fail(field, f"{images}, one for each image", f"{len(labels)}")
    for index, label in enumerate(labels):
        # True is 1, and 7.0 is 7, but neither is a label.
        if type(label) is not int or label not in LABELS:
            fail(f"{field}[{index}]", _LABEL, kind(label))
    return np.array(labels, np.int64)


def _divide(tensor: dict[str, Any], binary: bytes) -> tuple[bytes, bytes]:
    """What of the bytes behind the JSON belongs to the first ``tensor``, and to the second; what is wrong is found there."""
    size = tensors.parameters("inputs[0].parameters", tensor).get("binary_data_size", 0)
    middle = size if type(size) is int and 0 <= size <= len(binary) else len(binary)
    return binary[:middle], binary[middle:]


def _read_labels(tensor: dict[str, Any], binary: bytes, images: int) -> Labels:
    field = "inputs[1]"
    for key, expected in {"name": _INPUTS[1], "datatype": "INT64", "shape": [images]}.items():
        # True is 1 and 2.0 is 2, but in no shape.
        if tensor.get(key) != expected or (key == "shape" and type(tensor[key][0]) is not int):
            fail(f"{field}.{key}", f"{expected}", kind(tensor.get(key)))
    given = tensors.parameters(f"{field}.parameters", tensor)
    if "binary_data_size" not in given:
        if binary:
            fail(f"{field}.parameters.binary_data_size", f"{len(binary)}, which follow", "no such key")
        data = tensor.get("data")
        if not isinstance(data, list):
            fail(f"{field}.data", f"{images} labels", kind(data) if "data" in tensor else "no such key")
        return _labels(f"{field}.data", data, images)
    if tensor.get("data") is not None:
        fail(f"{field}.data", "none beside binary_data_size", kind(tensor["data"]))
    size = given["binary_data_size"]
    if type(size) is not int or size != len(binary):
        fail(f"{field}.parameters.binary_data_size", f"{len(binary)}, which follow", kind(size))
    if size != images * _BYTES.itemsize:
        fail(field, f"{images * _BYTES.itemsize} bytes, INT64 of shape {[images]}", f"{size}")
    return _labels(field, np.frombuffer(binary, _BYTES).tolist(), images)
