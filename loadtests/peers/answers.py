"""Whether a server answers right: before, during and after a load, on connections of our own.

    asker = V1Asker("127.0.0.1", port, truth)
    with Sampler(asker):
        ...  # the load; a wrong answer raises at the end

Right is what the engine itself says, within 1e-4.
"""

import http.client
import importlib
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from loadtests.peers.forward import Floats
from loadtests.peers.wire import (
    GRPC_PATH,
    LENGTH_HEADER,
    AnswerError,
    grpc_answer,
    grpc_request,
    messages,
    v1_answer,
    v1_body,
    v2_answer,
    v2_body,
)

TOLERANCE = 1e-4
SAMPLES_PER_SECOND = 20
TIMEOUT_SECONDS = 10
V1_PATH, V2_PATH = "/v1/models/digits:predict", "/v2/models/digits/infer"


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Real images (n, 784), and the engine's probabilities (n, 10) of them."""

    images: Floats
    probabilities: Floats

    def batch(self, index: int, size: int) -> tuple[Floats, Floats]:
        """``size`` images from ``index`` on, and their probabilities."""
        chosen = np.arange(index, index + size) % len(self.images)
        return self.images[chosen], self.probabilities[chosen]


def compare(labels: list[int], probabilities: Any, expected: Floats) -> None:
    """Raise `AnswerError` where an answer is not the engine's."""
    if np.shape(probabilities) != expected.shape or not np.allclose(probabilities, expected, rtol=0, atol=TOLERANCE):
        message = "wrong probabilities"
        raise AnswerError(message)
    if labels != expected.argmax(axis=1).tolist():
        message = f"wrong labels: {labels[:3]}"
        raise AnswerError(message)


class Asker(Protocol):
    """Asks one question at a time on a connection of its own."""

    def ask(self, index: int) -> int:
        """Bytes of the answer to image ``index``. Raises `AnswerError` where it is not right."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class _HttpAsker:
    def __init__(self, host: str, port: int, truth: Truth) -> None:
        self.truth = truth
        self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        self._connection.close()

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, http.client.HTTPResponse]:
        try:
            try:
                answer = self._send(path, body, headers)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # A server may close a connection that was idle; a fresh one must do.
                self._connection.close()
                answer = self._send(path, body, headers)
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            message = f"no answer: {type(error).__name__} {error}"
            raise AnswerError(message) from error
        if answer.status != http.client.OK:
            message = f"status {answer.status}: {content[:100]!r}"
            raise AnswerError(message)
        return content, answer

    def _send(self, path: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        self._connection.request("POST", path, body, headers)
        return self._connection.getresponse()


class V1Asker(_HttpAsker):
    """Asks by V1, one image at a time."""

    def ask(self, index: int) -> int:
        """See `Asker`."""
        images, expected = self.truth.batch(index, 1)
        content, _ = self._post(V1_PATH, v1_body(images), {"content-type": "application/json"})
        compare(*v1_answer(content), expected)
        return len(content)


class EchoAsker(_HttpAsker):
    """Expects its own body back."""

    def ask(self, index: int) -> int:
        """See `Asker`."""
        body = v1_body(self.truth.batch(index, 1)[0])
        content, _ = self._post(V1_PATH, body, {"content-type": "application/json"})
        if content != body:
            message = "the body did not come back"
            raise AnswerError(message)
        return len(content)


class V2Asker(_HttpAsker):
    """Asks by REST with binary tensors, 32 images at a time."""

    def ask(self, index: int) -> int:
        """See `Asker`."""
        images, expected = self.truth.batch(index, 32)
        body, length = v2_body(images)
        headers = {"content-type": "application/octet-stream", LENGTH_HEADER: str(length)}
        content, answer = self._post(V2_PATH, body, headers)
        compare(*v2_answer(content, int(answer.headers.get(LENGTH_HEADER, "0"))), expected)
        return len(content)


class GrpcAsker:
    """Asks by gRPC, one image at a time."""

    def __init__(self, host: str, port: int, truth: Truth) -> None:
        self._grpc = importlib.import_module("grpc")
        self.truth, self._pb = truth, messages()
        self._channel = self._grpc.insecure_channel(f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)])
        self._infer = self._channel.unary_unary(
            GRPC_PATH,
            request_serializer=self._pb.ModelInferRequest.SerializeToString,
            response_deserializer=self._pb.ModelInferResponse.FromString,
        )

    def ask(self, index: int) -> int:
        """See `Asker`."""
        images, expected = self.truth.batch(index, 1)
        try:
            answer = self._infer(grpc_request(images), timeout=TIMEOUT_SECONDS)
        except self._grpc.RpcError as error:
            message = f"{error.code().name}: {error.details()}"
            raise AnswerError(message) from error
        compare(*grpc_answer(answer), expected)
        return int(answer.ByteSize()) + 5

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class Sampler:
    """Asks for another image about 20 times a second while the context lasts; the first wrong answer is raised at its end."""

    def __init__(self, asker: Asker) -> None:
        self.asked = 0
        self._asker = asker
        self._error: AnswerError | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self._over.wait(1 / SAMPLES_PER_SECOND):
                self._asker.ask(self.asked)
                self.asked += 1
        except AnswerError as error:
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(2 * TIMEOUT_SECONDS)
        if self._error and not error:
            raise self._error
