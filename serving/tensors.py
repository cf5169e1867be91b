"""V2 (Open Inference Protocol) requests to images, and answers to tensors, in JSON and in binary. Pure: no server, no model.

https://github.com/kserve/open-inference-protocol and, for tensors in binary after the JSON,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md

One input, ``images``, of shape (n, 28, 28) or (n, 784): FP32 or FP64 in [0, 1], or UINT8 from 0 to 255. Outputs: ``labels``,
INT64 (n,), and ``probabilities``, FP32 (n, 10).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from model.bundle import IMAGE_SHAPE, INPUT_RANGE, LABELS, Floats
from serving import simd
from serving.codec import MAX_INSTANCES, check_numbers, in_range, kind, parse_json, refuse_many
from serving.engine import Answer
from serving.errors import UnknownModel, fail
from serving.identity import Identity

INPUT = "images"
OUTPUTS = {"labels": "INT64", "probabilities": "FP32"}
HEADER_LENGTH = "inference-header-content-length"

_PIXELS = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]
_SHAPES = (IMAGE_SHAPE, (_PIXELS,))
_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"), "UINT8": np.dtype("u1")}
_BRIGHTEST = 255
_REQUEST = "a JSON object with a list of inputs"


@dataclass(frozen=True, kw_only=True)
class Output:
    """A tensor that is asked for, and whether in binary."""

    name: str
    is_binary: bool = False


ALL_OUTPUTS = tuple(Output(name=name) for name in OUTPUTS)
_ALL_BINARY = tuple(Output(name=name, is_binary=True) for name in OUTPUTS)


@dataclass(frozen=True, kw_only=True)
class Inference:
    """A request: images (n, 28, 28), the outputs asked for, and the client's own id."""

    images: Floats
    outputs: tuple[Output, ...] = ALL_OUTPUTS
    id: str | None = None


def metadata() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs as the protocol's model metadata lists them; -1 is any number of images."""
    inputs = [{"name": INPUT, "datatype": "FP32", "shape": [-1, *IMAGE_SHAPE]}]
    shapes = {"labels": [-1], "probabilities": [-1, len(LABELS)]}
    return inputs, [{"name": name, "datatype": datatype, "shape": shapes[name]} for name, datatype in OUTPUTS.items()]


def parse(body: bytes, header_length: str | None = None, max_instances: int = MAX_INSTANCES) -> Inference:
    """The request in a REST body, whose JSON ends after ``header_length`` bytes where a binary tensor follows.

    Raises `FieldError`.
    """
    if header_length is None:
        refuse_many(body, max_instances)
        if (payload := _read_simd(body)) is not None:
            return _inference(payload, b"", max_instances)
    return _inference(*split(body, header_length, _REQUEST, max_instances), max_instances)


def split(body: bytes, header_length: str | None, expected: str, max_instances: int) -> tuple[Any, bytes]:
    """The JSON value at the start of ``body``, and the binary tensors after it. Raises `FieldError`."""
    if header_length is None:
        return parse_json(body, expected, max_instances), b""
    length = int(header_length) if header_length.isascii() and header_length.isdigit() and len(header_length) < 12 else -1
    if not 0 < length <= len(body):
        fail(HEADER_LENGTH, f"the length of the JSON, at most {len(body)} bytes", repr(header_length[:40]))
    return parse_json(body[:length], expected, max_instances), body[length:]


def _read_simd(body: bytes) -> dict[str, Any] | None:
    payload = simd.read_tensor(body)
    if payload and payload["inputs"][0].get("datatype") == "UINT8":
        # 1.0 is no integer.
        return simd.read_tensor(body, "u")
    return payload


def _inference(payload: Any, binary: bytes, max_instances: int) -> Inference:
    if not isinstance(payload, dict):
        fail("body", _REQUEST, kind(payload))
    inputs = payload.get("inputs")
    if not isinstance(inputs, list):
        fail("inputs", f"a list with the tensor {INPUT}", kind(inputs) if "inputs" in payload else "no such key")
    if len(inputs) != 1 or not isinstance(inputs[0], dict):
        fail("inputs", f"one tensor, {INPUT}", kind(inputs[0]) if len(inputs) == 1 else f"{len(inputs)}")
    request_id = payload.get("id")
    if not isinstance(request_id, str | None):
        fail("id", "a string", kind(request_id))
    is_binary = parameters("parameters", payload).get("binary_data_output", False)
    if not isinstance(is_binary, bool):
        fail("parameters.binary_data_output", "true or false", kind(is_binary))
    outputs = _outputs(payload.get("outputs"), is_binary=is_binary)
    return Inference(images=read_images(inputs[0], binary, max_instances), outputs=outputs, id=request_id)


def parameters(field: str, holder: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a request or of a part of it. Raises `FieldError`."""
    found = holder.get("parameters")
    if not isinstance(found, dict | None):
        fail(field, "an object", kind(found))
    return found or {}


def _outputs(wanted: Any, *, is_binary: bool) -> tuple[Output, ...]:
    if wanted is None or wanted == []:
        return _ALL_BINARY if is_binary else ALL_OUTPUTS
    if not isinstance(wanted, list):
        fail("outputs", "a list of outputs", kind(wanted))
    found = [_output(f"outputs[{index}]", output, is_binary=is_binary) for index, output in enumerate(wanted[: len(OUTPUTS) + 1])]
    if len({output.name for output in found}) != len(wanted):
        fail("outputs", f"each of {', '.join(OUTPUTS)} at most once", f"{len(wanted)} of them")
    return tuple(found)


def _output(field: str, output: Any, *, is_binary: bool) -> Output:
    if not isinstance(output, dict):
        fail(field, "an object with a name", kind(output))
    name = output.get("name")
    if not isinstance(name, str) or name not in OUTPUTS:
        fail(f"{field}.name", f"one of {', '.join(OUTPUTS)}", kind(name))
    asked = parameters(f"{field}.parameters", output)
    if asked.get("classification"):
        fail(f"{field}.parameters.classification", "none; ask for labels", kind(asked["classification"]))
    binary = asked.get("binary_data", is_binary)
    if not isinstance(binary, bool):
        fail(f"{field}.parameters.binary_data", "true or false", kind(binary))
    return Output(name=name, is_binary=binary)


def read_images(tensor: dict[str, Any], binary: bytes, max_instances: int) -> Floats:
    """The images (n, 28, 28) of a request's first input, to which the bytes ``binary`` belong. Raises `FieldError`."""
    shape = check_tensor(tensor.get("name"), tensor.get("datatype"), tensor.get("shape"), max_instances)
    given = parameters("inputs[0].parameters", tensor)
    if "binary_data_size" not in given:
        if "data" not in tensor:
            fail("inputs[0].data", f"{math.prod(shape)} numbers", "no such key")
        if binary:
            fail("inputs[0].parameters.binary_data_size", f"{len(binary)}, which follow the JSON", "no such key")
        return from_numbers("inputs[0].data", tensor["data"], tensor["datatype"], shape)
    if tensor.get("data") is not None:
        fail("inputs[0].data", "none beside binary_data_size", kind(tensor["data"]))
    size = given["binary_data_size"]
    if type(size) is not int or size != len(binary):
        fail("inputs[0].parameters.binary_data_size", f"{len(binary)}, which follow the JSON", kind(size))
    return from_bytes("inputs[0]", binary, tensor["datatype"], shape)


def check_tensor(name: Any, datatype: Any, shape: Any, max_instances: int) -> tuple[int, ...]:
    """The shape of the input, which is (n, 28, 28) or (n, 784), n from 1 to ``max_instances``. Raises `FieldError`."""
    if name != INPUT:
        fail("inputs[0].name", INPUT, kind(name))
    if not isinstance(datatype, str) or datatype not in _DTYPES:
        fail("inputs[0].datatype", f"one of {', '.join(_DTYPES)}", kind(datatype))
    expected = "[n, 28, 28] or [n, 784]"
    if not isinstance(shape, Sequence) or isinstance(shape, str) or not all(type(length) is int for length in shape):
        fail("inputs[0].shape", expected, kind(shape))
    if tuple(shape[1:]) not in _SHAPES:
        fail("inputs[0].shape", expected, str(list(shape[:5])))
    if not 1 <= shape[0] <= max_instances:
        fail("inputs[0].shape", f"1 to {max_instances} images", f"{shape[0]}")
    return tuple(shape)


def from_bytes(field: str, raw: bytes, datatype: str, shape: tuple[int, ...]) -> Floats:
    """The images of a tensor in row-major, little-endian bytes. Raises `FieldError`."""
    dtype, count = _DTYPES[datatype], math.prod(shape)
    if len(raw) != count * dtype.itemsize:
        fail(field, f"{count * dtype.itemsize} bytes, {datatype} of shape {list(shape)}", f"{len(raw)}")
    return _scale(field, np.frombuffer(raw, dtype), datatype)


def from_numbers(field: str, data: Any, datatype: str, shape: tuple[int, ...]) -> Floats:
    """The images of a tensor in JSON: a flat list, or lists as ``shape`` says; or in numpy, flat. Raises `FieldError`."""
    count = math.prod(shape)
    if isinstance(data, np.ndarray):
        if len(data) != count:
            fail(field, f"{count} numbers", f"{len(data)}")
        return _scale(field, data, datatype)
    if not isinstance(data, list):
        fail(field, "a list of numbers", kind(data))
    pixels = _flatten(field, data, shape) if data and isinstance(data[0], list) else data
    if len(pixels) != count:
        fail(field, f"{count} numbers", f"{len(pixels)}")
    if datatype == "UINT8":
        check_numbers(field, pixels, (int,), 0, _BRIGHTEST)
    else:
        check_numbers(field, pixels, (int, float), *INPUT_RANGE)
    return _scale(field, np.array(pixels, np.float64), datatype)


def _flatten(field: str, data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    if len(data) != shape[0]:
        fail(field, f"{shape[0]} of shape {list(shape[1:])}", f"{len(data)}")
    if len(shape) == 1:
        return data
    for index, row in enumerate(data):
        if not isinstance(row, list):
            fail(f"{field}[{index}]", f"a list of {shape[1]}", kind(row))
    rows = (_flatten(f"{field}[{index}]", row, shape[1:]) for index, row in enumerate(data))
    return list(chain.from_iterable(rows))


def _scale(field: str, pixels: npt.NDArray[Any], datatype: str) -> Floats:
    low, high = (0.0, float(_BRIGHTEST)) if datatype == "UINT8" else INPUT_RANGE
    if not in_range(pixels, low, high):
        bad = int(np.flatnonzero(~((pixels >= low) & (pixels <= high)))[0])
        noun = "an integer" if datatype == "UINT8" else "a number"
        fail(f"{field}, pixel {bad}", f"{noun} from {low:g} to {high:g}", f"{pixels[bad]:g}")
    images = pixels.astype(np.float32)
    if datatype == "UINT8":
        images /= np.float32(_BRIGHTEST)
    return images.reshape(-1, *IMAGE_SHAPE)


def arrays(answer: Answer) -> dict[str, npt.NDArray[Any]]:
    """The outputs by name."""
    return {"labels": answer.labels, "probabilities": answer.probabilities}


def encode(answer: Answer, request: Inference, identity: Identity, request_id: str) -> tuple[bytes, int | None]:
    """The REST body for ``answer``, and the length of its JSON where binary tensors follow it."""
    tensors, tail = [], []
    values = arrays(answer)
    for output in request.outputs:
        array = values[output.name]
        tensor: dict[str, Any] = {"name": output.name, "datatype": OUTPUTS[output.name], "shape": list(array.shape)}
        if output.is_binary:
            tail.append(array.tobytes())
            tensor["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            tensor["data"] = array.ravel().tolist()
        tensors.append(tensor)
    response = {"model_name": identity.name, "model_version": identity.version, "id": request_id, "outputs": tensors}
    head = orjson.dumps(response)
    return b"".join([head, *tail]), len(head) if tail else None


def check_version(asked: str, served: str) -> None:
    """Raises `UnknownModel` where another version than the one served is ``asked`` for; none is the one there is."""
    if asked not in ("", served):
        raise UnknownModel(asked, [served], "model version")
