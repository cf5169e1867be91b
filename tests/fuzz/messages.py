"""gRPC requests as bytes: valid ``ModelInferRequest``s, mutated ones, by field and by byte, and other methods' requests."""

import struct
from random import Random
from typing import Any

import numpy as np

from model.bundle import Floats
from serving.rpc import load_messages
from tests.fuzz.body import Body, draw, mutate_bytes
from tests.fuzz.wire import mutate_fields, random_field, read_fields, write_fields

INFER = "ModelInfer"
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_DTYPES = {"FP32": ("<f4", "fp32_contents"), "FP64": ("<f8", "fp64_contents"), "UINT8": ("u1", "uint_contents")}
_CONTENTS = ("bool", "int", "int64", "uint", "uint64", "fp32", "fp64", "bytes")
_METHODS = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "RepositoryModelLoad",
    "Nope",
    "modelinfer",
)
_SIZES = (0, 1, -1, 27, 28, 784, 1024, 1025, 2**31 - 1, 2**31, 2**63 - 1, -(2**63))
_IDS = (b"7", b"a b", b"x" * 300, b'"', b"~", b"", b"{}", b"%0a", b"-1")


class Messages:
    """Requests with MNIST's ``images`` (n, 28, 28)."""

    def __init__(self, images: Floats) -> None:
        self._images = images
        self._pb: Any = load_messages()

    def __call__(self, random: Random) -> Body:
        """A request."""
        mutated = ((30, self._mutated_fields), (15, self._mutated_wire), (20, self._mutated_bytes))
        return draw(random, (22, self._valid), *mutated, (8, self._made), (5, self._other_method))

    def oversized(self) -> list[Body]:
        """Requests at the limit and above it."""
        request = self._request(_fixed(), 1)
        sizes = (MAX_MESSAGE_BYTES - 2000, MAX_MESSAGE_BYTES - 200_000, MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES * 4)
        bodies = []
        for size in sizes:
            request.id = "x" * size
            bodies.append(Body(content=request.SerializeToString(deterministic=True), target=INFER, origin="made"))
        many = self._request(_fixed(), 1024).SerializeToString(deterministic=True)
        return [*bodies, Body(content=many, target=INFER, origin="made", is_good=True, count=1024)]

    def _request(self, random: Random, count: int | None = None) -> Any:
        datatype, (dtype, contents) = random.choice(list(_DTYPES.items())) if count is None else ("FP32", _DTYPES["FP32"])
        count = count or random.choice((1, 1, 1, 2, 3, 16))
        pixels = self._images[random.choices(range(len(self._images)), k=count)]
        pixels = np.round(pixels * 255).astype(dtype) if datatype == "UINT8" else pixels.astype(dtype)
        request = self._pb.ModelInferRequest(model_name="digits", id=random.choice(("", "7", "é", "x" * 2000)))
        shape = random.choice(([count, 28, 28], [count, 784]))
        tensor = request.inputs.add(name="images", datatype=datatype, shape=shape)
        if random.random() < 0.5:
            request.raw_input_contents.append(pixels.tobytes())
        else:
            getattr(tensor.contents, contents).extend(pixels.reshape(-1).tolist())
        for name in random.choice(((), (), ("labels",), ("probabilities",), ("probabilities", "labels"))):
            request.outputs.add(name=name)
        if random.random() < 0.2:
            request.parameters["priority"].int64_param = random.getrandbits(31)
            tensor.parameters["é"].string_param = "x" * random.randrange(100)
        return request

    def _body(self, random: Random, content: bytes, target: str = INFER, **fields: Any) -> Body:
        headers = {"x-request-id": random.choice(_IDS)} if random.random() < 0.3 else {}
        return Body(content=content, target=target, headers=headers, **fields)

    def _valid(self, random: Random) -> Body:
        request = self._request(random)
        content = request.SerializeToString(deterministic=True)
        return self._body(random, content, origin="valid", is_good=True, count=request.inputs[0].shape[0])

    def _mutated_bytes(self, random: Random) -> Body:
        content = self._request(random).SerializeToString(deterministic=True)
        if random.random() < 0.5:
            # The head, where the fields' numbers and lengths are.
            return self._body(random, mutate_bytes(random, content[:80]) + content[80:], origin="mutated")
        return self._body(random, mutate_bytes(random, content), origin="mutated")

    def _mutated_fields(self, random: Random) -> Body:
        request = self._request(random)
        for _ in range(random.choice((1, 1, 2))):
            random.choice((_rename, _reshape, _repeat, _ask, _parameters, _refill, _repixel, _repixel))(random, request)
        return self._body(random, request.SerializeToString(deterministic=True), origin="mutated")

    def _mutated_wire(self, random: Random) -> Body:
        fields = read_fields(self._request(random).SerializeToString(deterministic=True))
        return self._body(random, write_fields(mutate_fields(random, fields)), origin="mutated")

    def _made(self, random: Random) -> Body:
        content = random.randbytes(random.choice((0, 1, 10, 1000, 100_000)))
        if random.random() < 0.6:
            content = write_fields([random_field(random) for _ in range(random.choice((1, 2, 5, 100)))])
        return self._body(random, content, origin="made")

    def _other_method(self, random: Random) -> Body:
        method = random.choice(_METHODS)
        name = random.choice(("digits", "digits", "nope", "", "x" * 5000, "é"))
        request = self._pb.ModelReadyRequest(name=name, version=random.choice(("", "1", "9" * 500)))
        content = request.SerializeToString(deterministic=True)
        return self._body(random, random.choice((content, content, mutate_bytes(random, content))), method, origin="made")


def _fixed() -> Random:
    return Random(28)  # noqa: S311 -- nothing here is secret


def _rename(random: Random, request: Any) -> None:
    name = random.choice(("", "digits", "nope", "x" * 10_000, "\u0000", "\U0001f600", "digits "))
    kind = random.randrange(4)
    if kind == 0:
        request.model_name = name
    elif kind == 1:
        request.model_version = name
    elif request.inputs:
        setattr(
            request.inputs[0],
            "name" if kind == 2 else "datatype",
            random.choice((name, "FP16", "INT64", "BYTES", "FP32", "UINT8")),
        )


def _reshape(random: Random, request: Any) -> None:
    for tensor in request.inputs:
        shape = list(tensor.shape)
        if random.random() < 0.5 and shape:
            shape[random.randrange(len(shape))] = random.choice(_SIZES)
        else:
            shape = [random.choice(_SIZES) for _ in range(random.choice((0, 1, 2, 3, 4, 2000)))]
        del tensor.shape[:]
        tensor.shape.extend(shape)


def _repeat(random: Random, request: Any) -> None:
    kind = random.randrange(4)
    if kind == 0:
        del request.inputs[:]
    elif kind == 1 and request.inputs:
        request.inputs.extend([request.inputs[0]] * random.choice((1, 2, 50)))
    elif kind == 2:
        request.raw_input_contents.append(random.randbytes(random.choice((0, 1, 784, 3136))))
    else:
        del request.raw_input_contents[:]


def _ask(random: Random, request: Any) -> None:
    for _ in range(random.choice((1, 2, 3000))):
        request.outputs.add(name=random.choice(("labels", "probabilities", "logits", "", "x" * 500, "é")))


def _parameters(random: Random, request: Any) -> None:
    holder = random.choice([request, *request.inputs, *request.outputs])
    for name in ("", "binary_data", "é", "x" * 500, "classification")[: random.randint(1, 5)]:
        kind, value = random.choice(
            (("bool", True), ("int64", -1), ("string", "x" * 999), ("double", float("nan")), ("uint64", 2**64 - 1))
        )
        if hasattr(holder.parameters[name], f"{kind}_param"):
            setattr(holder.parameters[name], f"{kind}_param", value)


def _refill(random: Random, request: Any) -> None:
    """Contents of another type, or of two, or beside the raw ones."""
    for tensor in request.inputs:
        name = random.choice(_CONTENTS)
        value: Any = b"\0" if name == "bytes" else random.choice((0, 1))
        values = [value] * random.choice((0, 1, 783, 784, 1568))
        getattr(tensor.contents, f"{name}_contents").extend(values)


def _repixel(random: Random, request: Any) -> None:
    """Numbers that are none, or out of range, and some that are good."""
    value = random.choice((float("nan"), float("inf"), -float("inf"), -0.0, 0.5, 1.0, 1.0000001, -1e-30, 1e-40, 1e38))
    for index, raw in enumerate(request.raw_input_contents):
        at = 4 * random.randrange(len(raw) // 4 + 1)
        request.raw_input_contents[index] = raw[:at] + struct.pack("<f", value) + raw[at + 4 :]
    for tensor in request.inputs:
        for numbers in (tensor.contents.fp32_contents, tensor.contents.fp64_contents):
            if numbers:
                numbers[random.randrange(len(numbers))] = value
        if tensor.contents.uint_contents:
            tensor.contents.uint_contents[random.randrange(len(tensor.contents.uint_contents))] = random.choice(
                (0, 7, 255, 256, 2**32 - 1)
            )
