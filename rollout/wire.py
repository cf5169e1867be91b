"""One request and its answer, over REST or gRPC.

A latency that is measured contains the client: where four requests are under way, httpx adds four milliseconds to each, and what
is here a fraction of one. So REST is HTTP/1.1 written out, as far as answers of servers and gateways need it.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import grpc

Kind = Literal["answered", "refused", "failed"]

_REFUSALS = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "OUT_OF_RANGE", "UNIMPLEMENTED"})
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    # A pod that is back after a crash is asked again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class NoAnswerError(Exception):
    """A request that got no answer."""


class UnreachableError(NoAnswerError):
    """One that could not be sent, since nobody listens at the address."""


class LateError(NoAnswerError):
    """One that got no answer in time."""

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__(f"no answer in {timeout_seconds:g} s")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request. For gRPC ``path`` is the method, ``body`` the serialised message, and ``headers`` are its metadata."""

    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Its answer: HTTP's status or gRPC's, headers or trailing metadata by names in lower case.

    ``body`` holds the details where gRPC's status is an error.
    """

    status: str
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def kind(self) -> Kind:
        """Whether the question was answered, refused as its sender's fault, or failed."""
        if self.status in ("200", "OK"):
            return "answered"
        is_refusal = self.status in _REFUSALS or self.status.startswith("4")
        return "refused" if is_refusal else "failed"

    def __str__(self) -> str:
        return f"{self.status} {self.body[:120].decode(errors='replace')}".strip()


class Wire(Protocol):
    """A way to one host."""

    async def ask(self, request: Request, timeout_seconds: float) -> Reply:
        """The answer to ``request``. Raises `NoAnswerError`."""

    async def close(self) -> None:
        """Close its connections."""


class Rest:
    """HTTP/1.1 to ``url``, by the name ``host``. Connections are kept; each has one request at a time."""

    def __init__(self, url: str, host: str) -> None:
        parts = urlsplit(url)
        self._name = host.partition(":")[0]
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._address, self._host = (parts.hostname, parts.port or (443 if self._tls else 80)), host
        self._kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: Request, timeout_seconds: float) -> Reply:
        """The answer to ``request``. Raises `NoAnswerError`."""
        content = self._write(request)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._ask(content)
        except TimeoutError:
            raise LateError(timeout_seconds) from None
        except (OSError, EOFError, ValueError, LookupError, asyncio.LimitOverrunError) as error:
            message = f"the connection broke: {error!r:.120}"
            raise NoAnswerError(message) from error

    async def _ask(self, content: bytes) -> Reply:
        reader, writer = self._take() or await self._open()
        try:
            started = perf_counter()
            # Nobody waits until all is sent: the answer to a body that is too large comes before its end.
            writer.write(content)
            status, headers, body = await _read(reader)
            seconds = perf_counter() - started
        except BaseException:
            writer.close()
            raise
        if headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._kept.append((reader, writer))
        return Reply(status=status, headers=headers, body=body, seconds=seconds)

    def _write(self, request: Request) -> bytes:
        headers = {"host": self._host, "content-length": str(len(request.body)), **request.headers}
        lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + request.body

    def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._kept:
            reader, writer = self._kept.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = self._name if self._tls else None
        try:
            return await asyncio.open_connection(*self._address, ssl=self._tls, server_hostname=name)
        except OSError as error:
            message = f"no connection to {self._address[0]}:{self._address[1]}: {error}"
            raise UnreachableError(message) from error

    async def close(self) -> None:
        """Close its connections."""
        for _, writer in self._kept:
            writer.close()
        self._kept.clear()


async def _read(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    head, _, rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").partition("\r\n")
    lines = (line.partition(":") for line in rest.splitlines() if line)
    headers = {name.lower(): value.strip() for name, _, value in lines}
    status = head.split()[1]
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return status, headers, await _read_chunks(reader)
    if "content-length" in headers:
        return status, headers, await reader.readexactly(int(headers["content-length"]))
    return status, {**headers, "connection": "close"}, await reader.read()


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    # Trailers, and the empty line after them.
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return b"".join(parts)


class Rpc:
    """gRPC to ``url``, in clear text where that begins with http://, by the name ``host``."""

    def __init__(self, url: str, host: str) -> None:
        parts = urlsplit(url)
        is_secure = parts.scheme == "https"
        target = f"{parts.hostname}:{parts.port or (443 if is_secure else 80)}"
        options = [*_OPTIONS, ("grpc.default_authority", host)]
        self._channel: Any = (
            grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options)
            if is_secure
            else grpc.aio.insecure_channel(target, options)
        )

    async def ask(self, request: Request, timeout_seconds: float) -> Reply:
        """The answer to ``request``. Raises `NoAnswerError`."""
        started = perf_counter()
        call = self._channel.unary_unary(request.path)(
            request.body, timeout=timeout_seconds, metadata=tuple(request.headers.items())
        )
        try:
            body: bytes = await call
            status, metadata = "OK", await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            # So say grpc's own connections; a gateway that does not reach a pod says other things.
            if error.code() is grpc.StatusCode.UNAVAILABLE and details.startswith("failed to connect to all addresses"):
                raise UnreachableError(details) from None
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise LateError(timeout_seconds) from None
            status, metadata, body = error.code().name, error.trailing_metadata(), details.encode()
        headers = {name: value for name, value in metadata or () if isinstance(value, str)}
        return Reply(status=status, headers=headers, body=body, seconds=perf_counter() - started)

    async def close(self) -> None:
        """Close its connections."""
        await self._channel.close()
