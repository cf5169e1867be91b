"""REST's inference protocols: what a request's body asks, and how the answer to it is written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import orjson

from model.bundle import Floats
from serving import codec, tensors
from serving.engine import Answer
from serving.exchange import JSON, Exchange, Headers
from serving.service import Service
from serving.shadow import HEADERS, MARK, Sample

# Larger bodies, and pictures, are decoded in a thread, so that probes and other requests are answered meanwhile.
_LIGHT_BYTES = 64 * 1024
# As clients write it; what else may be JSON is decoded in a thread too.
_JSON_TYPES = (codec.JSON_TYPE, "")
_RETURN_IMAGES = b"x-return-images"
_LENGTH = tensors.HEADER_LENGTH.encode()
_MARK = MARK.encode()


@dataclass(frozen=True, slots=True)
class Question:
    """Images (n, 28, 28), and the body, content type and headers of the answer to them."""

    images: Floats
    write: Callable[[Answer], tuple[bytes, bytes, Headers]]

    def answer(self, result: Answer | Exception) -> tuple[bytes, bytes, Headers]:
        """What is sent where the engine gave ``result``. Raises it, where that is what went wrong."""
        if isinstance(result, Exception):
            raise result
        return self.write(result)


class Reader(Protocol):
    """A protocol."""

    def is_light(self, exchange: Exchange, body: bytes) -> bool:
        """Whether a request is read in no time."""

    def read(self, exchange: Exchange, body: bytes) -> Question:
        """What is asked. Raises `FieldError`."""


class V1:
    """The V1 protocol."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def is_light(self, exchange: Exchange, body: bytes) -> bool:
        """Whether a request is read in no time."""
        is_json = exchange.header(b"content-type") in _JSON_TYPES and b"ce-specversion" not in exchange.headers
        return is_json and len(body) <= _LIGHT_BYTES and b'"b64"' not in body and b"\\" not in body

    def read(self, exchange: Exchange, body: bytes) -> Question:
        """What is asked. Raises `FieldError`."""
        images = codec.decode(body, exchange.header(b"content-type"), self._service.limits.max_instances)
        shown = images if exchange.header(_RETURN_IMAGES).lower() == "true" else None
        version = self._service.identity.version
        return Question(images, lambda answer: (orjson.dumps(codec.encode(answer, version, shown)), JSON, ()))


class V2:
    """The V2 protocol, in JSON and in binary."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def is_light(self, exchange: Exchange, body: bytes) -> bool:
        """Whether a request is read in no time: a binary tensor is, however long, but not any JSON before it."""
        if len(body) <= _LIGHT_BYTES:
            return True
        length = exchange.header(_LENGTH)
        return length.isdecimal() and len(length) < 12 and int(length) <= _LIGHT_BYTES

    def read(self, exchange: Exchange, body: bytes) -> Question:
        """What is asked. Raises `FieldError`."""
        request = tensors.parse(body, exchange.header(_LENGTH) or None, self._service.limits.max_instances)
        request_id = exchange.request_id if request.id is None else request.id

        def write(answer: Answer) -> tuple[bytes, bytes, Headers]:
            content, json_length = tensors.encode(answer, request, self._service.identity, request_id)
            if json_length is None:
                return content, JSON, ()
            return content, b"application/octet-stream", [(_LENGTH, b"%d" % json_length)]

        return Question(request.images, write)


class Sampled:
    """A protocol of which ``sample`` keeps requests, under ``path``, once they are answered."""

    def __init__(self, reader: Reader, path: str, sample: Sample) -> None:
        self._reader, self._path, self._sample = reader, path, sample

    def is_light(self, exchange: Exchange, body: bytes) -> bool:
        """Whether a request is read in no time."""
        return self._reader.is_light(exchange, body)

    def read(self, exchange: Exchange, body: bytes) -> Question:
        """What is asked. Raises `FieldError`."""
        question, sample = self._reader.read(exchange, body), self._sample
        if exchange.started < sample.due or _MARK in exchange.headers or not sample.claim(exchange.started, len(body)):
            return question

        def write(answer: Answer) -> tuple[bytes, bytes, Headers]:
            content = question.write(answer)
            sample.keep(self._path, {name: value for name in HEADERS if (value := exchange.header(name.encode()))}, body)
            return content

        return Question(question.images, write)
