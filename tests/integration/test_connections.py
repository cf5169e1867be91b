"""Predictions however their bytes arrive: whole, in parts, one after the other without waiting, from clients that leave."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from model.bundle import Bundle
from model.data import MnistData
from tests.integration.test_metrics import scrape, value
from tests.processes import Server

TIMEOUT_SECONDS = 10


@pytest.fixture(scope="module")
def bodies(mnist: MnistData) -> list[bytes]:
    images = mnist.split("test").images[:8].numpy()
    return [json.dumps({"instances": [image.round(3).tolist()]}).encode() for image in images]


def post(body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    path = b"/v1/models/digits:predict"
    lines = [
        b"POST %b HTTP/%b" % (path, version),
        b"host: x",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join([*lines, b"", body])


def connect(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port or 0), TIMEOUT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answers(connection: socket.socket, count: int) -> Iterator[tuple[int, http.client.HTTPResponse, bytes]]:
    """The next ``count`` answers on a connection."""
    with connection.makefile("rb") as stream:

        class Stream:
            def makefile(self, mode: str) -> object:
                del mode
                return _Kept(stream)

        for _ in range(count):
            response = http.client.HTTPResponse(Stream(), method="POST")  # type: ignore[arg-type]  # all that it asks of a socket
            response.begin()
            yield response.status, response, response.read()


class _Kept:
    """A stream that an answer's end leaves open."""

    def __init__(self, stream: object) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def close(self) -> None:
        """Nothing."""


def predictions(content: bytes) -> object:
    return json.loads(content)["predictions"]


@pytest.fixture(scope="module")
def expected(server: Server, bodies: list[bytes]) -> list[object]:
    headers = {"content-type": "application/json"}
    return [predictions(httpx.post(server.predict_url, content=body, headers=headers, timeout=10).content) for body in bodies]


@pytest.mark.parametrize(
    "size", [1_000_000, 1000, 211, 3], ids=["whole", "in a few parts", "in many parts", "in the smallest parts"]
)
def test_answers_are_the_same_in_any_parts(server: Server, bodies: list[bytes], expected: list[object], size: int) -> None:
    request = post(bodies[0])
    with connect(server) as connection:
        for start in range(0, len(request), size):
            connection.sendall(request[start : start + size])
        ((status, _, content),) = answers(connection, 1)
    assert status == 200
    assert np.allclose(flat(predictions(content)), flat(expected[0]), atol=1e-6)


def flat(found: object) -> list[float]:
    assert isinstance(found, list)
    return [number for one in found for number in (one["label"], *one["probabilities"])]


def test_requests_that_do_not_wait_are_answered_in_their_order(
    server: Server, bodies: list[bytes], expected: list[object]
) -> None:
    bad = b'{"instances":[[1,2]]}'
    with connect(server) as connection:
        connection.sendall(b"".join(map(post, bodies[:4])) + post(bad) + b"".join(map(post, bodies[4:])))
        found = list(answers(connection, 9))
    assert [status for status, _, _ in found] == [200] * 4 + [400] + [200] * 4
    right = [predictions(content) for status, _, content in found if status == 200]
    assert np.allclose([flat(one) for one in right], [flat(one) for one in expected], atol=1e-6)


def test_a_wrong_request_is_answered_like_any_and_the_connection_goes_on(server: Server, bodies: list[bytes]) -> None:
    with connect(server) as connection:
        for body, status in ((b"[", 400), (bodies[0], 200), (b"{}", 400), (bodies[1], 200)):
            connection.sendall(post(body))
            ((found, response, _),) = answers(connection, 1)
            assert found == status
            assert response.headers["x-model-version"]


def test_connections_are_closed_where_that_was_asked(server: Server, bodies: list[bytes]) -> None:
    for request in (post(bodies[0], b"connection: close"), post(bodies[0], version=b"1.0")):
        with connect(server) as connection:
            connection.sendall(request)
            ((status, response, _),) = answers(connection, 1)
            assert status == 200
            assert response.headers["connection"] == "close"
            assert connection.recv(1) == b""


def test_a_client_that_waits_to_be_told_to_go_on_is_told(server: Server, bodies: list[bytes]) -> None:
    head, _, body = post(bodies[0], b"expect: 100-continue").partition(b"\r\n\r\n")
    with connect(server) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        ((status, _, _),) = answers(connection, 1)
    assert status == 200


def test_clients_that_leave_are_counted_and_leave_nothing_in_flight(bundle: Bundle, bodies: list[bytes]) -> None:
    with Server("--model_dir", str(bundle.directory)) as fresh:
        for request in [post(bodies[0]), post(bodies[0])[:-100]] * 20:
            with connect(fresh) as connection:
                connection.sendall(request)
        time.sleep(0.5)
        after = scrape(fresh)
        assert value(after, "chiffre_requests_in_flight") == 1, "the scrape itself"
        answered, left = (
            value(after, "chiffre_requests_total", protocol="v1", route="predict", status=status) for status in ("200", "499")
        )
        assert left >= 20
        assert answered + left == 40
