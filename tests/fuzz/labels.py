"""Feedback as V1 has it, and as V2, in JSON and in binary: valid, mutated, and odd where only feedback can be."""

from random import Random
from typing import Any

import numpy as np

from model.bundle import Floats
from tests.fuzz.body import V1_FEEDBACK_PATH, V2_FEEDBACK_PATH, Body, draw, mutate_bytes
from tests.fuzz.rest import odd_headers
from tests.fuzz.values import NUMBERS, Raw, mutate, surprise, write

_COUNTS = (1,) * 6 + (2, 3, 7)
_ODD_LABELS: tuple[Any, ...] = (10, -1, 7.0, True, None, "7", [7], 2**63 - 1, -(2**63), {})
_OTHER_VERSIONS = ("", "0", "é", "x" * 128, "x" * 129, "\u0000", 3, None, True, ["3"], {"3": 3})
_OTHER_SOURCES = ("ASKED", "", None, 0, ["asked"], "asked" * 1000)


class Feedback:
    """Labels of MNIST's ``images`` (n, 28, 28), mostly for answers of ``version``; with ``has_tensors`` as V2 has them."""

    def __init__(self, images: Floats, version: str, *, has_tensors: bool) -> None:
        self._images, self._version, self._has_tensors = images, version, has_tensors

    def __call__(self, random: Random) -> Body:
        """A body."""
        return draw(random, (30, self._valid), (30, self._mutated), (20, self._mutated_bytes), (20, self._odd))

    def _payload(self, random: Random) -> tuple[dict[str, Any], bytes, int]:
        count = random.choice(_COUNTS)
        pixels = self._images[random.choices(range(len(self._images)), k=count)]
        labels = np.array(random.choices(range(10), k=count), np.int64)
        origin: dict[str, Any] = {"model_version": self._version}
        if random.random() < 0.5:
            origin["source"] = random.choice(("asked", "volunteered"))
        if not self._has_tensors:
            return {"instances": pixels.tolist(), "labels": labels.tolist(), **origin}, b"", count
        tensors: list[dict[str, Any]] = [
            {"name": "images", "shape": [count, 28, 28], "datatype": "FP32"},
            {"name": "labels", "shape": [count], "datatype": "INT64"},
        ]
        tail = b""
        arrays: tuple[Any, ...] = (pixels, labels)
        for tensor, array in zip(tensors, arrays, strict=True):
            if random.random() < 0.5:
                tensor["parameters"] = {"binary_data_size": array.nbytes}
                tail += array.tobytes()
            else:
                tensor["data"] = array.ravel().tolist()
        return {"inputs": tensors, "parameters": origin}, tail, count

    def _body(self, random: Random, head: bytes, tail: bytes, **about: Any) -> Body:
        headers = odd_headers(random)
        if tail:
            headers["inference-header-content-length"] = b"%d" % len(head)
        return Body(
            content=head + tail, target=V2_FEEDBACK_PATH if self._has_tensors else V1_FEEDBACK_PATH, headers=headers, **about
        )

    def _valid(self, random: Random) -> Body:
        payload, tail, count = self._payload(random)
        return self._body(random, write(random, payload, is_plain=True), tail, origin="valid", is_good=True, count=count)

    def _mutated(self, random: Random) -> Body:
        payload, tail, _ = self._payload(random)
        return self._body(random, write(random, mutate(random, payload)), tail, origin="mutated")

    def _mutated_bytes(self, random: Random) -> Body:
        payload, tail, _ = self._payload(random)
        head = write(random, payload, is_plain=True)
        if tail and random.random() < 0.6:
            return self._body(random, head, mutate_bytes(random, tail), origin="mutated")
        return self._body(random, mutate_bytes(random, head), tail, origin="mutated")

    def _odd(self, random: Random) -> Body:
        """Good but for one thing, which only feedback has."""
        payload, tail, count = self._payload(random)
        origin = payload.get("parameters", payload)
        kind = random.choice(("label", "labels", "version", "source", "key"))
        if kind == "version":
            origin["model_version"] = random.choice(_OTHER_VERSIONS)
        elif kind == "source":
            origin["source"] = random.choice(_OTHER_SOURCES)
        elif kind == "key":
            origin[random.choice(("label", "predicted", "x" * 2000, "signature_name"))] = surprise(random)
        else:
            number = Raw(random.choice(NUMBERS))
            odd = [random.choice((*_ODD_LABELS, number)) for _ in range(count)]
            labels: Any = odd if kind == "label" else random.choice(([], 7, odd * 100, None, {"0": 7}))
            if self._has_tensors:
                payload["inputs"][1] |= {
                    "data": labels,
                    "shape": random.choice(([count], [float(count)], [count, 1], [True], [])),
                }
            else:
                payload["labels"] = labels
        return self._body(random, write(random, payload), tail, origin="mutated")
