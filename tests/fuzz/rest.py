"""Requests of V1 and of V2, in JSON and in binary: valid ones, mutated ones, and some that never were valid."""

import json
from random import Random
from typing import Any

import numpy as np

from model.bundle import Floats
from tests.fuzz.body import V1_PATH, V2_PATH, Body, draw, mutate_bytes
from tests.fuzz.values import NUMBERS, Raw, deep, mutate, surprise, write

_COUNTS = (1,) * 12 + (2,) * 5 + (3, 7, 16)
_DTYPES = {"FP32": "<f4", "FP64": "<f8", "UINT8": "u1"}
_JSON_TYPES = (b"application/json", b"application/json", b"application/json; charset=utf-8", b"APPLICATION/JSON", b"")
_OTHER_TYPES = (
    *(
        b"text/plain",
        b"image/png",
        b"image/jpeg; q=1",
        b"multipart/form-data; boundary=x",
        b"application/x-protobuf",
        b"x" * 2000,
    ),
    *(
        b"application/octet-stream",
        b"application/cloudevents+json",
        b"application/cloudevents-batch+json",
        b"\xff\xfe",
        b";;;",
        b",",
    ),
)
_REQUEST_IDS = (
    *(b"", b"7", b"a b", b"x" * 300, b"\xe9\xff\x80", b"a\tb", b'"quoted"', b"%0d%0aset-cookie:x", b"{}", b"$(id)", b"<b>"),
    *("é".encode(), "\U0001f600".encode(), "\u202e".encode(), b"../../etc", b"null", b"0" * 128, b"-1"),
)
_EVENT = {"ce-id": b"1", "ce-source": b"test", "ce-type": b"t", "ce-specversion": b"1.0"}
_LENGTHS = (
    b"0",
    b"-1",
    b"1",
    b"+5",
    b" 12",
    b"1e2",
    b"0x10",
    b"1_0",
    b"\xb2",
    b"12.0",
    b"9" * 11,
    b"9" * 400,
    b"",
    b"nan",
    b"007",
)
_LISTS = ("[]", "[0]", "0", "null", '""', "{}", "[[]]", "[{}]", "[[[[]]]]", '[""]', "[null]", "[true]", "[[0]]", '[{"b64":""}]')


def odd_headers(random: Random) -> dict[str, bytes]:
    """Headers that change nothing of the answer."""
    headers = {"content-type": random.choice(_JSON_TYPES)}
    if random.random() < 0.3:
        headers["x-request-id"] = random.choice(_REQUEST_IDS)
    if random.random() < 0.05:
        extra = (
            *(("accept", b"text/html"), ("x-return-images", b"TRUE"), ("accept-encoding", b"gzip"), ("cookie", b"x" * 4000)),
            *(("x-forwarded-for", b"\xff"), ("expect", b"100-continue"), ("x-return-images", b"maybe"), ("te", b"trailers")),
        )
        headers.update([random.choice(extra)])
    return headers


class V1:
    """``{"instances": [...]}`` of MNIST's ``images`` (n, 28, 28)."""

    def __init__(self, images: Floats) -> None:
        self._instances = [[image.reshape(-1).tolist(), image.tolist()] for image in images]
        self._texts = [[json.dumps(form, separators=(",", ":")) for form in forms] for forms in self._instances]

    def __call__(self, random: Random) -> Body:
        """A body."""
        return draw(random, (18, self._valid), (50, self._mutated), (16, self._mutated_bytes), (4, self._lying), (12, self._made))

    def _payload(self, random: Random) -> dict[str, Any]:
        return {"instances": [random.choice(random.choice(self._instances)) for _ in range(random.choice((1, 1, 1, 2, 3)))]}

    def _content(self, random: Random) -> tuple[bytes, int]:
        count = 1024 if random.random() < 0.002 else random.choice(_COUNTS)
        text = ",".join(random.choice(random.choice(self._texts)) for _ in range(count))
        return f'{{"instances":[{text}]}}'.encode(), count

    def _valid(self, random: Random) -> Body:
        content, count = self._content(random)
        if random.random() < 0.3:
            payload = self._payload(random)
            content, count = write(random, payload, is_plain=True), len(payload["instances"])
        return Body(content=content, target=V1_PATH, origin="valid", headers=odd_headers(random), is_good=True, count=count)

    def _mutated(self, random: Random) -> Body:
        content = write(random, mutate(random, self._payload(random)))
        return Body(content=content, target=V1_PATH, origin="mutated", headers=odd_headers(random))

    def _mutated_bytes(self, random: Random) -> Body:
        content = mutate_bytes(random, self._content(random)[0])
        return Body(content=content, target=V1_PATH, origin="mutated", headers=odd_headers(random))

    def _lying(self, random: Random) -> Body:
        content, _ = self._content(random)
        headers = odd_headers(random) | {"content-type": random.choice(_OTHER_TYPES)}
        if random.random() < 0.4:
            event = {name: value for name, value in _EVENT.items() if random.random() < 0.9}
            headers |= event | {
                "content-type": random.choice((b"application/json", b"application/cloudevents+json", b"text/plain"))
            }
            if random.random() < 0.5:
                content = mutate_bytes(random, b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":' + content + b"}")
        return Body(content=content, target=V1_PATH, origin="mutated", headers=headers)

    def _made(self, random: Random) -> Body:
        return Body(content=_nonsense(random, "instances"), target=V1_PATH, origin="made", headers=odd_headers(random))


class V2:
    """A V2 request of one tensor of MNIST's ``images``, in JSON, or with ``is_binary`` after it."""

    def __init__(self, images: Floats, *, is_binary: bool) -> None:
        self._images, self._is_binary = images, is_binary

    def __call__(self, random: Random) -> Body:
        """A body."""
        lying = (14, self._lying) if self._is_binary else (3, self._lying)
        return draw(random, (22, self._valid), (42, self._mutated), (18, self._mutated_bytes), lying, (12, self._made))

    def _payload(self, random: Random) -> tuple[dict[str, Any], bytes]:
        count = random.choice(_COUNTS)
        datatype = random.choice(list(_DTYPES))
        pixels = self._images[random.choices(range(len(self._images)), k=count)]
        if datatype == "UINT8":
            pixels = np.round(pixels * 255)
        pixels = pixels.astype(_DTYPES[datatype])
        shape = random.choice(([count, 28, 28], [count, 784]))
        tensor: dict[str, Any] = {"name": "images", "shape": shape, "datatype": datatype}
        if self._is_binary:
            tensor["parameters"] = {"binary_data_size": pixels.nbytes}
        else:
            tensor["data"] = pixels.reshape(random.choice((shape, [-1]))).tolist()
            if random.random() < 0.1:
                tensor["parameters"] = {"note": random.choice(([], {}, "[", None, 7, [[1]]))}
        payload: dict[str, Any] = {"inputs": [tensor]}
        self._ask(random, payload)
        members = list(payload.items())
        random.shuffle(members)
        return dict(members), pixels.tobytes() if self._is_binary else b""

    def _ask(self, random: Random, payload: dict[str, Any]) -> None:
        if random.random() < 0.3:
            payload["id"] = random.choice(("", "7", "é", "x" * 5000, "\u0000", "[[", "\U0001f600"))
        if random.random() < 0.3:
            payload["parameters"] = random.choice(
                ({}, {"binary_data_output": True}, {"x": [1, {"y": [2]}]}, {"binary_data_output": False})
            )
        if random.random() < 0.4:
            names = random.choice((["labels"], ["probabilities"], ["labels", "probabilities"], ["probabilities", "labels"]))
            payload["outputs"] = [{"name": name} for name in names]
            for output in payload["outputs"]:
                if random.random() < 0.4:
                    output["parameters"] = random.choice(
                        ({}, {"binary_data": True}, {"binary_data": False}, {"classification": 0})
                    )

    def _body(self, random: Random, head: bytes, tail: bytes, **changes: Any) -> Body:
        headers = odd_headers(random)
        if self._is_binary:
            headers |= {"inference-header-content-length": b"%d" % len(head), "content-type": b"application/octet-stream"}
        return Body(**{"content": head + tail, "target": V2_PATH, "headers": headers} | changes)

    def _valid(self, random: Random) -> Body:
        payload, tail = self._payload(random)
        head = write(random, payload, is_plain=True)
        return self._body(random, head, tail, origin="valid", is_good=True, count=payload["inputs"][0]["shape"][0])

    def _mutated(self, random: Random) -> Body:
        payload, tail = self._payload(random)
        if random.random() < 0.1:
            random.choice((self._ask_oddly, self._shape_oddly))(random, payload)
        else:
            payload = mutate(random, payload)
        return self._body(random, write(random, payload), tail, origin="mutated")

    def _ask_oddly(self, random: Random, payload: dict[str, Any]) -> None:
        names: list[Any] = ["labels", "probabilities", "logits", "", None, 7, "labels" * 1000, Raw('"\\ud800"')]
        payload["outputs"] = [{"name": random.choice(names)} for _ in range(random.choice((1, 2, 3, 5000)))]
        payload["outputs"][0]["parameters"] = random.choice(
            ({"binary_data": 1}, {"classification": 3}, [], None, surprise(random))
        )

    def _shape_oddly(self, random: Random, payload: dict[str, Any]) -> None:
        # Whoever multiplies a string or a list by such numbers has no memory left.
        sizes = (0, 1, -1, 28, 784, 2**31, 10**15, 2**63 - 1, -(2**63), Raw(random.choice(NUMBERS)), 1.0, True, None, [28], "x")
        tensor = payload["inputs"][0]
        tensor["shape"] = random.choice(
            ([], 784, "784", [784], [random.choice(sizes) for _ in range(random.choice((1, 2, 3, 3, 4, 900)))])
        )
        tensor["datatype"] = random.choice((tensor["datatype"], "FP16", "INT64", "BYTES", "BOOL", "fp32", "", None, ["FP32"]))

    def _mutated_bytes(self, random: Random) -> Body:
        payload, tail = self._payload(random)
        head = write(random, payload, is_plain=True)
        if not tail or random.random() < 0.4:
            return self._body(random, mutate_bytes(random, head), tail, origin="mutated")
        return self._body(random, head, mutate_bytes(random, tail), origin="mutated")

    def _lying(self, random: Random) -> Body:
        payload, tail = self._payload(random)
        head = write(random, payload, is_plain=True)
        body = self._body(random, head, tail, origin="mutated")
        lengths = (
            *_LENGTHS,
            *(b"%d" % (len(head) + change) for change in (-1, 1, len(tail), len(tail) + 1)),
            b"%d" % (len(head) // 2),
        )
        body.headers["inference-header-content-length"] = random.choice(lengths)
        if random.random() < 0.3:
            body.headers["content-type"] = random.choice(_OTHER_TYPES)
        return body

    def _made(self, random: Random) -> Body:
        head = _nonsense(random, random.choice(("inputs", "outputs", "parameters", "id")))
        return self._body(random, head, random.randbytes(random.choice((0, 0, 7, 784, 3136))), origin="made")


def _nonsense(random: Random, name: str) -> bytes:
    """JSON, or something like it, that never was a request."""
    kind = random.random()
    if kind < 0.15:
        return random.randbytes(random.choice((0, 1, 8, 100, 5000)))
    if kind < 0.3:
        return write(random, surprise(random))
    if kind < 0.45:
        return write(random, deep(random))
    if kind < 0.75:
        return write(random, {name: Raw(random.choice(_LISTS))})
    value = [surprise(random) for _ in range(random.choice((0, 1, 2, 1025)))]
    return write(random, {name: value, random.choice(("", "x", "inputs", "instances")): surprise(random)})
