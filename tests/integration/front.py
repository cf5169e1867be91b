"""A server in front of MLflow's, which does to its answers what networks, proxies and full registries do."""

import http.client
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Front"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.clients.add(self.client_address)
        self.server.script(self)

    def fetch(self) -> tuple[int, bytes]:
        """What MLflow answers, asked with the same credentials."""
        upstream = http.client.HTTPConnection(urlsplit(self.server.upstream).netloc, timeout=30)
        sent = {name: value for name, value in self.headers.items() if name == "Authorization"}
        upstream.request("GET", self.path, headers=sent)
        answer = upstream.getresponse()
        status, body = answer.status, answer.read()
        upstream.close()
        return status, body

    def send(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        """An answer, which says that it has ``length`` bytes."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if length not in (None, len(body)):
            self.close_connection = True

    def pass_on(self) -> None:
        self.send(*self.fetch())

    def log_message(self, *_: object) -> None:
        """Tests read what was asked from `Front.asked`."""


class Front(ThreadingHTTPServer):
    """Answers by ``script``, which may pass on what ``upstream`` says."""

    daemon_threads = True

    def __init__(
        self, upstream: str, script: Callable[[Handler], None] = Handler.pass_on, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream, self.script = upstream, script
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.clients: set[tuple[str, int]] = set()
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.address = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that left, or trusts no such certificate, is what the test is about."""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
