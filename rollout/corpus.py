"""Bad input that a server must refuse, and odd input that it must answer: what a server without limits or checks dies of."""

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from model.bundle import IMAGE_SHAPE, Floats
from rollout.questions import LENGTH, MARK, SERVICE, GrpcQuestions, RestQuestions
from rollout.wire import Request

# A body that is larger than a server takes may be cut off instead of read to its end (RFC 9110, 15.5.14).
Expected = Literal["answered", "refused", "refused or cut off"]

_JSON, _PNG = {"content-type": "application/json"}, {"content-type": "image/png"}
_BLANK = np.zeros(IMAGE_SHAPE, np.float32)
_ODD_IMAGES: dict[str, Floats] = {
    "an image without ink": _BLANK,
    "an image all ink": np.ones(IMAGE_SHAPE, np.float32),
    "a chessboard": np.indices(IMAGE_SHAPE).sum(axis=0).astype(np.float32) % 2,
    "an image of the least ink": np.full(IMAGE_SHAPE, np.finfo(np.float32).smallest_subnormal),
    "a single pixel": np.eye(784, 1, dtype=np.float32).reshape(IMAGE_SHAPE),
}
_TOO_MANY, _TOO_LARGE_BYTES, _TOO_LARGE_MESSAGE_BYTES = 1025, 33 * 1024 * 1024, 9 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Case:
    """A request, and what must come of it; an answer is about one image."""

    name: str
    request: Request
    expected: Expected = "refused"


def rest_cases(model_name: str) -> Iterator[Case]:
    """Those of V1 and V2."""
    asked = RestQuestions(model_name)
    yield from _v1_cases(asked)
    yield from _v2_cases(asked)
    for name, content in _pictures():
        yield Case(name=f"V1, {name}", request=_post(asked.predict, content, _PNG))
    for name, image in _ODD_IMAGES.items():
        yield Case(name=f"V1, {name}", request=asked.single(image), expected="answered")
        yield Case(name=f"V2, {name}", request=asked.batch(image[None]), expected="answered")
    yield Case(name="a PNG of a stroke", request=_post(asked.predict, _png(_STROKE), _PNG), expected="answered")
    yield Case(name="a model nobody knows", request=_post("/v1/models/nobody:predict", b"{}", _JSON))
    yield Case(name="a model nobody knows, V2", request=_post("/v2/models/nobody/infer", b"{}", _JSON))
    yield Case(name="a path nobody knows", request=_post("/v2/repository/models/nobody/unload", b"{}", _JSON))
    yield Case(name="a prediction asked for by GET", request=Request(path=asked.predict, method="GET", headers=MARK))
    large = _post(asked.predict, b" " * _TOO_LARGE_BYTES, _JSON)
    yield Case(name="a body of 33 MiB", request=large, expected="refused or cut off")


def _v1_cases(asked: RestQuestions) -> Iterator[Case]:
    good = _BLANK.tolist()
    row = good[0]
    bodies: dict[str, bytes] = {
        "nothing": b"",
        "broken JSON": b'{"instances": [[0, 1',
        "bytes that are no text": b"\xff\xfe\x00" * 40,
        "lists in lists": b"[" * 100_000,
        "no instances": b"{}",
        "instances of null": b'{"instances": null}',
        "an empty list": b'{"instances": []}',
        "27 rows": _instances(good[1:]),
        "a short row": _instances([*good[1:], row[1:]]),
        "an empty image": _instances([]),
        "numbers as text": _instances([["0"] * 28] * 28),
        "booleans": _instances([[True] * 28] * 28),
        "nulls": _instances([[None] * 28] * 28),
        "a deeper list": _instances([[[0.0]] * 28] * 28),
        "not a number": _instances([*good[1:], [*row[1:], float("nan")]]),
        "infinity": _instances([*good[1:], [*row[1:], float("inf")]]),
        "a number beyond floats": b'{"instances": [[1e400' + b", 0" * 783 + b"]]}",
        "256 levels": _instances([[255.0] * 28] * 28),
        "less than no ink": _instances([[-0.01] * 28] * 28),
        "too many images": json.dumps({"instances": [[0] * 784] * _TOO_MANY}).encode(),
        "base64 that is none": _instances({"b64": "§§§"}),
        "base64 of something else": _instances({"b64": base64.b64encode(b"GIF89a" * 9).decode()}),
        "an object": _instances({"image": good}),
    }
    for name, body in bodies.items():
        yield Case(name=f"V1, {name}", request=_post(asked.predict, body, _JSON))
    yield Case(name="V1, text", request=_post(asked.predict, b"seven", {"content-type": "text/plain"}))


def _v2_cases(asked: RestQuestions) -> Iterator[Case]:
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 784], "data": [0.0] * 784}
    changes: dict[str, dict[str, Any]] = {
        "another name": {"name": "pictures"},
        "another type": {"datatype": "INT8"},
        "text as a type": {"datatype": "BYTES", "data": ["seven"] * 784},
        "a shape of 27 rows": {"shape": [1, 27, 28]},
        "a shape without images": {"shape": [0, 784], "data": []},
        "a negative shape": {"shape": [-1, 784]},
        "a shape beyond memory": {"shape": [2**40, 28, 28]},
        "a shape of text": {"shape": "1, 784"},
        "too few numbers": {"data": [0.0] * 783},
        "not a number": {"data": [*([0.0] * 783), float("nan")]},
        "too much ink": {"data": [1.5] * 784},
    }
    for name, change in changes.items():
        yield Case(name=f"V2, {name}", request=_post(asked.infer, _inputs({**tensor, **change}), _JSON))
    yield Case(name="V2, no tensor", request=_post(asked.infer, _inputs(), _JSON))
    yield Case(name="V2, two tensors", request=_post(asked.infer, _inputs(tensor, tensor), _JSON))
    for name, content in _odd_floats().items():
        yield Case(name=f"V2 in binary, {name}", request=asked.batch(content))
    good = asked.batch(_BLANK[None])
    lengths = {"beyond the body": str(len(good.body) + 1), "negative": "-1", "of text": "seven", "beyond numbers": "9" * 60}
    for name, length in lengths.items():
        yield Case(name=f"V2 in binary, a header {name}", request=_post(asked.infer, good.body, {LENGTH: length}))
    short = _post(asked.infer, good.body[:-4], {LENGTH: good.headers[LENGTH]})
    yield Case(name="V2 in binary, a tensor cut short", request=short)


def grpc_cases(model_name: str) -> Iterator[Case]:
    """Those of gRPC."""
    asked = GrpcQuestions(model_name)
    good = asked.message(_BLANK[None]).SerializeToString()
    changes: dict[str, dict[str, Any]] = {
        "another name": {"name": "pictures"},
        "another type": {"datatype": "INT8"},
        "text as a type": {"datatype": "BYTES"},
        "a shape of 27 rows": {"shape": [1, 27, 28]},
        "a shape without images": {"shape": [0, 28, 28]},
        "a negative shape": {"shape": [-1, 28, 28]},
        "a shape beyond memory": {"shape": [2**40, 28, 28]},
    }
    for name, change in changes.items():
        message = asked.message(_BLANK[None], **change)
        yield Case(name=name, request=asked.request(message.SerializeToString()))
    for name, content in _odd_floats().items():
        yield Case(name=name, request=asked.batch(content))
    for name, image in _ODD_IMAGES.items():
        yield Case(name=name, request=asked.batch(image[None]), expected="answered")
    for name, body in {
        "nothing": b"",
        "bytes that are no message": b"\xff" * 99,
        "half a message": good[: len(good) // 2],
    }.items():
        yield Case(name=name, request=asked.request(body))
    yield Case(name="a model nobody knows", request=GrpcQuestions("nobody").batch(_BLANK[None]))
    unload = Request(path=f"{SERVICE}/RepositoryModelUnload", headers=MARK)
    yield Case(name="a method nobody may call", request=unload)
    large = asked.request(bytes(_TOO_LARGE_MESSAGE_BYTES))
    yield Case(name="a message of 9 MiB", request=large, expected="refused or cut off")


def _odd_floats() -> dict[str, Floats]:
    """Tensors that no reader of JSON checks: (n, ...) float32."""
    names = {
        "not a number": np.nan,
        "infinity": np.inf,
        "minus infinity": -np.inf,
        "256 levels": 255.0,
        "less than no ink": -0.01,
    }
    images = {name: np.full((1, *IMAGE_SHAPE), value, np.float32) for name, value in names.items()}
    return {**images, "too many images": np.zeros((_TOO_MANY, *IMAGE_SHAPE), np.float32)}


def _post(path: str, body: bytes, headers: dict[str, str]) -> Request:
    return Request(path=path, body=body, headers={**headers, **MARK})


def _instances(*instances: Any) -> bytes:
    return json.dumps({"instances": instances}).encode()


def _inputs(*tensors: dict[str, Any]) -> bytes:
    return json.dumps({"inputs": tensors}).encode()


_STROKE = np.zeros((64, 48), np.uint8)
_STROKE[10:54, 22:27] = 255


def _png(pixels: np.typing.NDArray[np.uint8], width: int = 0, height: int = 0) -> bytes:
    """Grey pixels (height, width) as a PNG file, which may claim another size."""
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width or pixels.shape[1], height or pixels.shape[0], 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _pictures() -> Iterator[tuple[str, bytes]]:
    """PNG files that show nothing, are broken, or claim to be huge."""
    whole = _png(_STROKE)
    yield "an empty file", b""
    yield "a file of something else", b"GIF89a" * 99
    yield "half a PNG", whole[: len(whole) // 2]
    yield "a PNG with a wrong checksum", whole[:50] + bytes([whole[50] ^ 255]) + whole[51:]
    yield "a PNG without contrast", _png(np.full((28, 28), 128, np.uint8))
    yield "a PNG that claims 3.6 gigapixels", _png(_STROKE, 60_000, 60_000)
    yield "a PNG of 15 megapixels in 15 kB", _png(np.zeros((3900, 3900), np.uint8))
    yield "a JPEG that ends at once", b"\xff\xd8\xff\xe0"
