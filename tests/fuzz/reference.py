"""Another reader of requests, slow and plain, to compare the server's with: Python's own JSON, numpy, protobuf.

Each gives the images (n, 28, 28), or None where it has no opinion.
"""

import json
from typing import Any, NoReturn

import numpy as np

from model.bundle import Floats
from serving.rpc import load_messages

_DTYPES = {"FP32": "<f4", "FP64": "<f8", "UINT8": "u1"}
_CONTENTS = {"FP32": "fp32_contents", "FP64": "fp64_contents", "UINT8": "uint_contents"}
_SHAPES = ((28, 28), (784,))


class NotJsonError(ValueError):
    """Bytes that no server may take for JSON."""


def read_json(content: bytes) -> Any:
    """The JSON value in ``content``; where a name stands twice, the last counts. Raises `NotJsonError`, `RecursionError`."""
    try:
        return json.loads(content.decode(), parse_constant=_refuse)
    except ValueError as error:
        message = f"no JSON: {str(error)[:100]}"
        raise NotJsonError(message) from None


def _refuse(name: str) -> NoReturn:
    message = f"{name} is no number of JSON's"
    raise ValueError(message)


def v1_images(content: bytes) -> Floats | None:
    """The images of a V1 body of plain numbers in the range."""
    payload = read_json(content)
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list) or not instances:
        return None
    images = [_pixels(instance) for instance in instances]
    return np.array(images, np.float32).reshape(-1, 28, 28) if all(images) else None


def is_good_v1(content: bytes) -> bool:
    """Whether a V1 body of nothing but one list of instances has to be answered."""
    try:
        payload = read_json(content)
        is_alone = isinstance(payload, dict) and list(payload) == ["instances"] and content.count(b'"') == 2
        return is_alone and 1 <= len(payload["instances"]) <= 1024 and v1_images(content) is not None
    except (NotJsonError, RecursionError, TypeError):
        return False


def _pixels(instance: Any) -> list[float] | None:
    if not isinstance(instance, list):
        return None
    if len(instance) == 28 and all(isinstance(row, list) and len(row) == 28 for row in instance):
        instance = [pixel for row in instance for pixel in row]
    is_good = len(instance) == 784 and all(type(pixel) in (int, float) and 0 <= pixel <= 1 for pixel in instance)
    return instance if is_good else None


def v2_images(content: bytes, header_length: bytes | None) -> Floats:
    """The images of a V2 body that was answered. Raises `ValueError` where it should not have been."""
    head, tail = (content, b"") if not header_length else (content[: int(header_length)], content[int(header_length) :])
    (tensor,) = read_json(head)["inputs"]
    dtype = np.dtype(_DTYPES[tensor["datatype"]])
    pixels = np.frombuffer(tail, dtype) if tensor.get("data") is None else np.array(tensor["data"], np.float64)
    return _scale(pixels, tensor["datatype"], tensor["shape"])


def grpc_images(content: bytes) -> Floats:
    """The images of a ``ModelInferRequest`` that was answered. Raises `ValueError` where it should not have been."""
    request: Any = load_messages()
    (tensor,) = (message := request.ModelInferRequest.FromString(content)).inputs
    if message.raw_input_contents:
        pixels = np.frombuffer(message.raw_input_contents[0], _DTYPES[tensor.datatype])
    else:
        pixels = np.array(getattr(tensor.contents, _CONTENTS[tensor.datatype]), np.float64)
    return _scale(pixels, tensor.datatype, list(tensor.shape))


def _scale(pixels: Any, datatype: str, shape: Any) -> Floats:
    brightest = 255 if datatype == "UINT8" else 1
    if tuple(shape[1:]) not in _SHAPES or not 0 <= pixels.min() <= pixels.max() <= brightest:
        message = f"answered, although the shape is {shape[:4]} and the pixels are {pixels.min()} to {pixels.max()}"
        raise ValueError(message)
    scaled = pixels.astype(np.float32) / np.float32(brightest)
    images: Floats = scaled.reshape(shape[0], 28, 28)
    return images


def is_message(name: str, content: bytes) -> bool:
    """Whether ``content`` is a request of gRPC's method ``name``."""
    messages: Any = load_messages()
    kind = getattr(messages, f"{name}Request", None)
    if kind is None:
        return False
    try:
        kind.FromString(content)
    except Exception as error:  # noqa: BLE001 -- protobuf's implementations raise classes of their own
        del error
        return False
    return True
