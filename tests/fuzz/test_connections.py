"""What is no HTTP, or breaks off: the server answers 400, or nothing, closes the connection, and goes on."""

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from model.bundle import Bundle
from model.demo import free_port
from tests.fuzz.body import V1_PATH
from tests.fuzz.target import HEALTH_PATH, Rest, Target
from tests.processes import Server

# How long an answer is waited for where none is expected, and where one is.
_SILENT_SECONDS, _READ_SECONDS = 0.3, 2.0
_ENDLESS_BYTES = 4 * 1024 * 1024
_PAYLOAD = b'{"instances":[[' + b",".join([b"0"] * 784) + b"]]}"


@dataclass(frozen=True, kw_only=True)
class Wire:
    """Bytes of a connection, in parts with a pause between them; and the statuses that may be answered."""

    name: str
    parts: tuple[bytes, ...]
    statuses: tuple[str, ...] = ("400",)
    pause_seconds: float = 0.05
    # Whether the client goes away without waiting for an answer.
    is_early: bool = False


def post(*headers: bytes, body: bytes = b"", line: bytes = b"POST " + V1_PATH.encode() + b" HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"host: x", *headers, b"", body])


def get(*headers: bytes) -> bytes:
    return post(*headers, line=b"GET " + HEALTH_PATH.encode() + b" HTTP/1.1")


CHUNKED = b"transfer-encoding: chunked"
LENGTH = b"content-length: %d" % len(_PAYLOAD)
# A request that is not complete is waited for: no answer.
NONE = ("",)

WIRES = [
    Wire(name="nothing", parts=(b"",), statuses=NONE, is_early=True),
    Wire(name="newlines", parts=(b"\r\n\r\n\r\n",), statuses=("", "400")),
    Wire(name="no HTTP", parts=(b"hello\r\n\r\n",)),
    Wire(name="zeros", parts=(bytes(4096),)),
    Wire(name="TLS", parts=(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,)),
    Wire(name="HTTP/2", parts=(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),)),
    Wire(name="HTTP/0.9", parts=(b"GET /\r\n\r\n",), statuses=("200", "400", "505")),
    Wire(name="HTTP/9.9", parts=(post(line=b"GET / HTTP/9.9"),)),
    Wire(name="no version", parts=(post(line=b"GET / "),)),
    Wire(name="a method of nobody", parts=(post(line=b"FROBNICATE / HTTP/1.1"),), statuses=("400", "404", "405")),
    Wire(name="lower case", parts=(post(line=b"get / http/1.1"),)),
    Wire(name="a path with spaces", parts=(post(line=b"GET /a b c HTTP/1.1"),)),
    Wire(name="a path with bytes", parts=(post(line=b"GET /\xff\xfe%zz HTTP/1.1"),), statuses=("400", "404")),
    Wire(name="a path with escapes", parts=(post(line=b"GET /%00%0d%0ax%ff%c0%ae/../%2e%2e HTTP/1.1"),), statuses=("400", "404")),
    Wire(name="a path with surrogates", parts=(post(line=b"GET /%ed%a0%80 HTTP/1.1"),), statuses=("400", "404")),
    Wire(name="a model with a slash", parts=(post(line=b"GET /v1/models/a%2fb HTTP/1.1"),), statuses=("400", "404")),
    Wire(name="a long path", parts=(post(line=b"GET /" + b"x" * 60_000 + b" HTTP/1.1"),), statuses=("400", "404", "414")),
    Wire(
        name="a query",
        parts=(post(line=b"GET " + HEALTH_PATH.encode() + b"?" + b"&a=%zz" * 999 + b" HTTP/1.1"),),
        statuses=("200", "400"),
    ),
    Wire(name="an absolute URL", parts=(post(line=b"GET http://x/v2/health/live HTTP/1.1"),), statuses=("200", "400", "404")),
    Wire(name="an asterisk", parts=(post(line=b"OPTIONS * HTTP/1.1"),), statuses=("400", "404", "405")),
    Wire(name="CONNECT", parts=(post(line=b"CONNECT x:443 HTTP/1.1"),), statuses=("400", "404", "405")),
    Wire(name="a header without a colon", parts=(get(b"nothing"),)),
    Wire(name="a header without a name", parts=(get(b": x"),)),
    Wire(name="a header with a space in its name", parts=(get(b"a b: x"),)),
    Wire(name="a header with a zero", parts=(get(b"x-request-id: a\0b"),)),
    Wire(name="a header with a control character", parts=(get(b"x-request-id: a\x7f\x01b"),)),
    Wire(name="a header with a carriage return", parts=(get(b"x-request-id: a\rb"),)),
    Wire(name="a folded header", parts=(get(b"x-request-id: a", b" b"),), statuses=("200", "400")),
    Wire(name="a large header", parts=(get(b"x: " + b"x" * 1_000_000),), statuses=("200", "400", "431")),
    Wire(name="many headers", parts=(get(*[b"x%d: x" % index for index in range(20_000)]),), statuses=("200", "400", "431")),
    Wire(name="two lengths", parts=(post(LENGTH, b"content-length: 1", body=_PAYLOAD),)),
    Wire(name="a negative length", parts=(post(b"content-length: -1", body=_PAYLOAD),)),
    Wire(name="a length of words", parts=(post(b"content-length: many", body=_PAYLOAD),)),
    Wire(name="a length above 64 bits", parts=(post(b"content-length: " + b"9" * 30, body=_PAYLOAD),)),
    Wire(name="a length and chunks", parts=(post(LENGTH, CHUNKED, body=b"0\r\n\r\n"),)),
    Wire(name="too long by one", parts=(post(b"content-length: %d" % (len(_PAYLOAD) + 1), body=_PAYLOAD),), statuses=NONE),
    Wire(name="too short by one", parts=(post(b"content-length: %d" % (len(_PAYLOAD) - 1), body=_PAYLOAD),)),
    Wire(name="no length", parts=(post(body=_PAYLOAD),)),
    Wire(name="a claim of a terabyte", parts=(post(b"content-length: 1000000000000", body=_PAYLOAD),), statuses=("", "413")),
    Wire(name="an unknown encoding", parts=(post(b"transfer-encoding: gzip", body=_PAYLOAD),), statuses=("400", "501")),
    Wire(name="a chunk of words", parts=(post(CHUNKED, body=b"zz\r\n" + _PAYLOAD),)),
    Wire(name="a chunk of a negative size", parts=(post(CHUNKED, body=b"-5\r\n" + _PAYLOAD),)),
    Wire(name="a chunk above 64 bits", parts=(post(CHUNKED, body=b"f" * 20 + b"\r\n" + _PAYLOAD),)),
    Wire(name="a chunk that is too long", parts=(post(CHUNKED, body=b"5\r\n" + _PAYLOAD),)),
    Wire(name="chunks without an end", parts=(post(CHUNKED, body=b"1\r\n{\r\n"),), statuses=NONE),
    Wire(name="an extension of a chunk", parts=(post(CHUNKED, body=b"1;" + b"x" * 99_999 + b"\r\n{\r\n0\r\n\r\n"),)),
    Wire(name="a trailer", parts=(post(CHUNKED, body=b"1\r\n{\r\n0\r\nx: y\r\n\r\n"),)),
    Wire(name="slow head", parts=tuple(bytes([byte]) for byte in get()[:40]), statuses=NONE, pause_seconds=0.01),
    Wire(name="slow body", parts=(post(LENGTH), _PAYLOAD[:5], _PAYLOAD[5:]), statuses=("200",), pause_seconds=0.3),
    Wire(name="early close in the head", parts=(post(LENGTH)[:30],), statuses=NONE, is_early=True),
    Wire(name="early close in the body", parts=(post(LENGTH, body=_PAYLOAD[:50]),), statuses=NONE, is_early=True),
    Wire(name="early close before the answer", parts=(post(LENGTH, body=_PAYLOAD),), statuses=("", "200"), is_early=True),
    Wire(name="pipelined", parts=(get() * 50,), statuses=("200",)),
    Wire(name="pipelined and then nonsense", parts=(get() + b"hello\r\n\r\n",), statuses=("200", "400")),
    Wire(name="an upgrade", parts=(get(b"connection: upgrade", b"upgrade: websocket"),), statuses=("200", "400", "426")),
    Wire(
        name="an upgrade to HTTP/2",
        parts=(get(b"connection: upgrade", b"upgrade: h2c", b"http2-settings: AA"),),
        statuses=("200", "400"),
    ),
]


@pytest.fixture(scope="module")
def target(bundle: Bundle) -> Iterator[Target]:
    http_port, grpc_port = free_port(), free_port()
    ports = ("--http_port", str(http_port), "--grpc_port", str(grpc_port))
    with Server("--model_dir", str(bundle.directory), *ports) as server:
        yield Target(server, http_port, grpc_port)


def send(port: int, wire: Wire) -> str:
    """The status of the first answer, or nothing."""
    seconds = _SILENT_SECONDS if "" in wire.statuses else _READ_SECONDS
    # The server may close before all was sent.
    with suppress(ConnectionError, TimeoutError), socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        for part in wire.parts:
            connection.sendall(part)
            time.sleep(wire.pause_seconds)
        if not wire.is_early:
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            answer.read()
            return str(answer.status)
    return ""


@pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])
def test_no_connection_disturbs_the_server(target: Target, wire: Wire) -> None:
    lines = len(target.server.lines)
    status = send(target.http_port, wire)
    assert status in wire.statuses
    rest = Rest(target.http_port)
    answer = rest.ask("POST", V1_PATH, _PAYLOAD)
    rest.close()
    assert answer.status == "200", answer.content
    assert answer.seconds < _READ_SECONDS
    assert not [line for line in target.server.lines[lines:] if "Traceback" in line]


@pytest.mark.parametrize(
    ("start", "rest"),
    [(b"GET /", b"x"), (b"GET / HTTP/1.1\r\nx: ", b"x"), (b"GET / HTTP/1.1\r\n", b"a: b\r\n"), (b"GET / HTTP/1.1\r\n", b"a")],
    ids=["path", "header", "headers", "name"],
)
def test_an_endless_head_is_cut_off(target: Target, start: bytes, rest: bytes) -> None:
    part = rest * (65_536 // len(rest))
    try:
        with socket.create_connection(("127.0.0.1", target.http_port), timeout=_READ_SECONDS) as connection:
            connection.sendall(start)
            for _ in range(_ENDLESS_BYTES // len(part)):
                connection.sendall(part)
            answer = connection.recv(100)
            end = answer.split()[1].decode() if answer else "closed"
    except ConnectionError:
        end = "closed"
    except TimeoutError:
        end = "the server waits for more"
    assert end in ("closed", "400", "414", "431")


@pytest.mark.parametrize("line", [b"a: b\r\n", b"a" * 100], ids=["lines", "one line"])
@pytest.mark.parametrize("end", [b"0\r\n", b"1;"], ids=["trailers", "a chunk's extension"])
def test_what_comes_beside_a_body_is_cut_off_too(target: Target, end: bytes, line: bytes) -> None:
    part = line * (65_536 // len(line))
    connection = socket.create_connection(("127.0.0.1", target.http_port), timeout=_READ_SECONDS)
    with connection, suppress(ConnectionError):
        connection.sendall(f"GET {HEALTH_PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode() + end)
        for _ in range(_ENDLESS_BYTES // len(part)):
            connection.sendall(part)
        # Were it open, this would wait.
        while connection.recv(65_536):
            pass


def test_after_all_of_them_nothing_is_in_flight_and_nothing_was_restarted(target: Target) -> None:
    deadline = time.monotonic() + 5
    while target.value("chiffre_requests_in_flight") != 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert target.value("chiffre_requests_in_flight") == 1
    assert target.value("chiffre_worker_restarts_total") == 0
    assert target.server.popen.poll() is None
