"""The server that is fuzzed, from outside: what it answers, counts, and takes of memory."""

import http.client
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from tests.fuzz.body import Body
from tests.processes import Server

HEALTH_PATH = "/v2/models/digits/ready"
# What a client waits; the campaign calls far less slow.
TIMEOUT_SECONDS = 10.0
_RECONNECT_EVERY = 100
_COUNTED = re.compile(r'chiffre_requests_total\{protocol="(\w+)",route="(\w+)",status="(\w+)"\} (\S+)')
_SERVICE = "/inference.GRPCInferenceService/"

Counts = Counter[tuple[str, str, str]]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer of either protocol: ``status`` is a number of HTTP's or a name of gRPC's."""

    status: str
    headers: dict[str, str]
    content: bytes
    error: str
    seconds: float


class Rest:
    """A client of REST, on one connection at a time."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        self._sent = 0

    def send(self, body: Body) -> Reply:
        """Post it. Raises `OSError`, `http.client.HTTPException`."""
        return self.ask("POST", body.target, body.content, body.headers)

    def ask(self, method: str, path: str, content: bytes = b"", headers: dict[str, bytes] | None = None) -> Reply:
        """Raises `OSError`, `http.client.HTTPException`."""
        self._sent += 1
        if self._sent % _RECONNECT_EVERY == 0:
            # Another process may take the next connection.
            self._connection.close()
        started = time.perf_counter()
        try:
            self._connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                self._connection.putheader(name, value)
            self._connection.putheader("content-length", str(len(content)))
            self._connection.endheaders(content)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(status=str(response.status), headers=found, content=answer, error="", seconds=time.perf_counter() - started)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Rpc:
    """A client of gRPC that sends bytes as they are."""

    def __init__(self, port: int) -> None:
        self._port, self._sent = port, 0
        self._channel: Any = None

    def _open(self) -> None:
        # Without a pool of its own a new channel would take the old one's connection.
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self._port}", options)
        self._methods: dict[str, Any] = {}

    def send(self, body: Body) -> Reply:
        """Call the method."""
        self._sent += 1
        if self._sent % _RECONNECT_EVERY == 0:
            self.close()
        if self._channel is None:
            self._open()
        if body.target not in self._methods:
            self._methods[body.target] = self._channel.unary_unary(_SERVICE + body.target)
        metadata = [(name, value.decode()) for name, value in body.headers.items()]
        started = time.perf_counter()
        try:
            content, call = self._methods[body.target].with_call(body.content, timeout=TIMEOUT_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            content, call = b"", error
        seconds = time.perf_counter() - started
        headers = {name: value for name, value in call.trailing_metadata() or () if isinstance(value, str)}
        return Reply(status=call.code().name, headers=headers, content=content, error=call.details() or "", seconds=seconds)

    def close(self) -> None:
        """Close the channel; the next request opens another."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


class Target:
    """A running ``server``."""

    def __init__(self, server: Server, http_port: int, grpc_port: int) -> None:
        self.server, self.http_port, self.grpc_port = server, http_port, grpc_port

    def processes(self) -> list[int]:
        """The server's own number, and those of its workers."""
        main = self.server.popen.pid
        return [main, *map(int, Path(f"/proc/{main}/task/{main}/children").read_text("ascii").split())]

    def memory_mib(self) -> float:
        """What all its processes take, shared pages once."""
        sizes = [
            re.findall(r"^Pss: +(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text("ascii"), re.MULTILINE)
            for process in self.processes()
        ]
        return sum(int(size[0]) for size in sizes) / 1024

    def scrape(self) -> str:
        """The exposition."""
        rest = Rest(self.http_port)
        try:
            return rest.ask("GET", "/metrics").content.decode()
        finally:
            rest.close()

    def counts(self) -> Counts:
        """Requests by protocol, route and status, but for scrapes."""
        found: Counts = Counter()
        for protocol, route, status, value in _COUNTED.findall(self.scrape()):
            if route != "metrics" and float(value):
                found[protocol, route, status] = int(float(value))
        return found

    def value(self, name: str) -> float:
        """A metric without labels."""
        (value,) = re.findall(rf"^{name} (\S+)", self.scrape(), re.MULTILINE)
        return float(value)


class HealthPoller:
    """Asks ten times a second, each time on a new connection, as a kubelet would, whether the server is ready."""

    def __init__(self, port: int) -> None:
        self._port, self._stop = port, threading.Event()
        self.polls, self.slowest, self.bad = 0, 0.0, ""
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            rest = Rest(self._port)
            try:
                reply = rest.ask("GET", HEALTH_PATH)
                self.polls += 1
                self.slowest = max(self.slowest, reply.seconds)
                if reply.status != str(int(HTTPStatus.OK)):
                    self.bad = f"{reply.status} {reply.content[:100]!r}"
            except (OSError, http.client.HTTPException) as error:
                self.bad = repr(error)
            finally:
                rest.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
