"""V1 request bodies to images, and answers to response bodies. Pure: no server, no model.

A request is ``{"instances": [...]}``, each instance a list of 28 rows of 28 numbers or of 784 numbers in [0, 1] (0 is paper,
1 is ink), or an image, ``{"b64": "..."}``. A body of type ``image/png`` or ``image/jpeg`` is one image. Plain numbers are read
by `serving.simd`; everything else, and all that is wrong, piece by piece here.
"""

import base64
import binascii
import json
import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from model.bundle import IMAGE_SHAPE, INPUT_RANGE, Floats
from serving import simd
from serving.engine import Answer
from serving.errors import fail
from serving.picture import MAX_PIXELS, PictureError, normalise, open_picture

MAX_INSTANCES = 1024
JSON_TYPE = "application/json"
IMAGE_TYPES = ("image/png", "image/jpeg")

_ROWS, _COLUMNS = IMAGE_SHAPE
_PIXELS = _ROWS * _COLUMNS
_BITS: dict[Any, tuple[Any, int]] = {
    np.dtype(np.float32): (np.uint32, int(np.float32(INPUT_RANGE[1]).view(np.uint32))),
    np.dtype(np.float64): (np.uint64, int(np.float64(INPUT_RANGE[1]).view(np.uint64))),
}
_IMAGE = f"{_ROWS} rows of {_COLUMNS} numbers, {_PIXELS} numbers, or {{'b64': an image}}"


def decode(body: bytes, content_type: str = JSON_TYPE, max_instances: int = MAX_INSTANCES) -> Floats:
    """The images (n, 28, 28) of a request body of ``content_type``. Raises `FieldError`."""
    if content_type != JSON_TYPE:
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type in IMAGE_TYPES:
            return _Pictures().read("body", body)[None]
        if media_type not in ("", JSON_TYPE):
            fail("content-type", f"{JSON_TYPE}, {' or '.join(IMAGE_TYPES)}", repr(media_type[:40]))
    refuse_many(body, max_instances)
    numbers = simd.read_instances(body, ((_PIXELS,), IMAGE_SHAPE))
    if numbers is not None and in_range(numbers, *INPUT_RANGE) and len(numbers) <= max_instances * _PIXELS:
        return numbers.astype(np.float32).reshape(-1, *IMAGE_SHAPE)
    payload = parse_json(body, "a JSON object with a list of instances", max_instances)
    return parse_instances(payload, max_instances=max_instances)


def refuse_many(body: bytes, max_instances: int) -> None:
    """Raise `FieldError` for twice the values of so many images: an empty list, of 3 bytes, takes 72 once it is read."""
    most = 2 * max_instances * _PIXELS
    if len(body) > most and (count := body.count(b",")) > most:
        fail("body", f"{max_instances} images of {_PIXELS} numbers at most", f"{count + 1} values")


def parse_json(body: bytes, expected: str, max_instances: int = MAX_INSTANCES) -> Any:
    """The JSON value in ``body``. Raises `FieldError` naming the place where it is no JSON, or one of too many values."""
    refuse_many(body, max_instances)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        found = f"{error.msg} (line {error.lineno} column {error.colno})" if body else "an empty body"
        fail("body", expected, found)


def parse_instances(payload: Any, *, max_instances: int = MAX_INSTANCES) -> Floats:
    """The images (n, 28, 28) of a V1 payload, n at least 1. Raises `FieldError`."""
    if not isinstance(payload, dict):
        fail("body", "a JSON object with a list of instances", kind(payload))
    unknown = [name for name in payload if name not in ("instances", "signature_name")]
    if "instances" not in payload:
        fail(
            "instances",
            f"a list of images, each {_IMAGE}",
            f"no such key; the body has {[name[:20] for name in unknown[:5]] or 'none'}",
        )
    if unknown:
        fail("body", "no key but instances and signature_name", repr(unknown[0][:40]))
    instances = payload["instances"]
    if not isinstance(instances, list):
        fail("instances", f"a list of images, each {_IMAGE}", kind(instances))
    if not 1 <= len(instances) <= max_instances:
        fail("instances", f"1 to {max_instances} images", f"{len(instances)}")
    images = np.empty((len(instances), _PIXELS), np.float32)
    pictures = _Pictures()
    for index, instance in enumerate(instances):
        images[index] = _instance(f"instances[{index}]", instance, pictures).reshape(_PIXELS)
    return images.reshape(len(instances), *IMAGE_SHAPE)


def encode(answer: Answer, model_version: str, images: Floats | None = None) -> dict[str, Any]:
    """The V1 response for ``answer``; with ``images`` (n, 28, 28), each prediction shows what the model saw."""
    rows = zip(answer.labels.tolist(), answer.probabilities.tolist(), strict=True)
    predictions: list[dict[str, Any]] = [{"label": label, "probabilities": row} for label, row in rows]
    if images is not None:
        for prediction, image in zip(predictions, images.tolist(), strict=True):
            prediction["image"] = image
    return {"predictions": predictions, "model_version": model_version}


class _Pictures:
    """Reads the images of one request, which share a budget of pixels: a few bytes can hold a great many."""

    def __init__(self) -> None:
        self._left = MAX_PIXELS

    def read(self, field: str, content: bytes) -> Floats:
        try:
            picture = open_picture(content, self._left)
            self._left -= picture.width * picture.height
            return normalise(picture)
        except PictureError as error:
            fail(field, error.expected, error.found)


def _instance(field: str, instance: Any, pictures: _Pictures) -> Floats:
    if isinstance(instance, dict):
        if list(instance) != ["b64"]:
            fail(field, "an object with the key b64 alone", f"the keys {[name[:20] for name in list(instance)[:5]]}")
        return pictures.read(f"{field}.b64", _base64(f"{field}.b64", instance["b64"]))
    if not isinstance(instance, list):
        fail(field, _IMAGE, kind(instance))
    if instance and isinstance(instance[0], list):
        instance = _flatten(field, instance)
    elif len(instance) != _PIXELS:
        fail(field, _IMAGE, f"a list of {len(instance)}")
    return _numbers(field, instance)


def _flatten(field: str, rows: list[Any]) -> list[Any]:
    if len(rows) != _ROWS:
        fail(field, f"{_ROWS} rows", f"{len(rows)}")
    for index, row in enumerate(rows):
        if not isinstance(row, list):
            fail(f"{field}[{index}]", f"a row of {_COLUMNS} numbers", kind(row))
        if len(row) != _COLUMNS:
            fail(f"{field}[{index}]", f"a row of {_COLUMNS} numbers", f"{len(row)} of them")
    return list(chain.from_iterable(rows))


def _numbers(field: str, pixels: list[Any]) -> Floats:
    low, high = INPUT_RANGE
    check_numbers(field, pixels, (int, float), low, high)
    return np.array(pixels, np.float32)


def check_numbers(field: str, pixels: list[Any], types: tuple[type, ...], low: float, high: float) -> None:
    """Raises `FieldError`, naming the first of ``pixels`` that is none of ``types`` or outside ``low`` to ``high``.

    Booleans, strings, nulls and lists are no numbers, whatever numpy makes of them.
    """
    noun = "a number" if float in types else "an integer"
    expected = f"{noun} from {low:g} to {high:g}"
    if not set(map(type, pixels)) <= set(types):
        _fail_at(field, pixels, lambda pixel: type(pixel) in types, expected)
    if not low <= min(pixels) <= max(pixels) <= high:
        _fail_at(field, pixels, lambda pixel: low <= pixel <= high, expected)


def in_range(pixels: npt.NDArray[Any], low: float, high: float) -> bool:
    """Whether all of ``pixels`` lie from ``low`` to ``high``, which NaN does not."""
    if (low, high) == INPUT_RANGE and pixels.dtype in _BITS:
        # Read as unsigned integers, these floats keep their order, and all others but -0 are larger: one pass instead of two.
        integers, one = _BITS[pixels.dtype]
        if pixels.view(integers).max() <= one:
            return True
    return bool(pixels.min() >= low and pixels.max() <= high)


def _fail_at(field: str, pixels: list[Any], is_good: Callable[[Any], bool], expected: str) -> None:
    index = next(index for index, pixel in enumerate(pixels) if not is_good(pixel))
    fail(f"{field}, pixel {index}", expected, kind(pixels[index]))


def _base64(field: str, text: Any) -> bytes:
    if not isinstance(text, str):
        fail(field, "a base64 string", kind(text))
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        fail(field, "a base64 string", str(error).lower())


def kind(value: Any) -> str:
    """A short name for a JSON value: its text where that is short, its type where it is not."""
    names = {dict: "an object", list: "a list", np.ndarray: "a list", str: "a string", type(None): "null"}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = json.dumps(value) if isinstance(value, bool | int | float | str) else names[type(value)]
    return text if len(text) <= 40 else f"{text[:37]}..."
