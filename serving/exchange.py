"""One HTTP request and its answer: the body within its limits, the headers that every answer has."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from time import perf_counter
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving.errors import Disconnected, Overloaded, RequestError, TooLarge, TooSlow
from serving.service import Service
from serving.transport import drained, respond, take_cycle

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
JSON = b"application/json"

_BODY_TIMEOUT_SECONDS = 30.0
# A client that is cut off in the middle of sending sees a broken connection instead of the answer: so what is too much is read
# to its end and thrown away, but no longer than this.
_DISCARD_SECONDS = 0.8


class Exchange:
    """A request under ``protocol`` and class of ``route``, which is counted once it is answered.

    ``cycle`` is uvicorn's end of it, where the scope does not have it.
    """

    def __init__(
        self, service: Service, scope: Message, receive: Receive, send: Send, cycle: RequestResponseCycle | None = None
    ) -> None:
        self.service, self.scope = service, scope
        self.receive, self._send = receive, send
        self._cycle = cycle or take_cycle(scope)
        self.started = perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = service.request_id(self.header(b"x-request-id"))
        self.protocol, self.route = "http", "other"
        # What stays where the client goes away before its answer.
        self.status, self.error = "499", ""
        self.has_started = False
        self._held = 0

    def header(self, name: bytes) -> str:
        """A header's value, or nothing."""
        value = self.headers.get(name)
        return value.decode("latin-1") if value else ""

    async def body(self) -> bytes:
        """The whole body. Raises `TooLarge`, `TooSlow`, `Overloaded`, `Disconnected`."""
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            return await self._rest(body)
        if len(body) > self.service.limits.max_body_bytes:
            raise TooLarge(self.service.limits.max_body_bytes)
        return body

    async def _rest(self, first: bytes) -> bytes:
        parts, more = [first], True
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_SECONDS):
                while more:
                    self._hold(len(parts[-1]))
                    part, more = await self._receive_part()
                    parts.append(part)
            self._hold(len(parts[-1]))
        except TimeoutError:
            raise TooSlow(_BODY_TIMEOUT_SECONDS) from None
        except (TooLarge, Overloaded):
            parts.clear()
            await self._discard(more=more)
            raise
        return b"".join(parts)

    def _hold(self, size: int) -> None:
        """Take ``size`` more bytes into memory, if they are not too many."""
        self._held += size
        self.service.pending_bytes += size
        limits = self.service.limits
        if self._held > limits.max_body_bytes:
            raise TooLarge(limits.max_body_bytes)
        if self.service.pending_bytes > limits.max_pending_bytes:
            message = f"body: expected {limits.max_pending_bytes:,} bytes of all requests together, got more at this moment"
            raise Overloaded(message)

    async def _receive_part(self) -> tuple[bytes, bool]:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        return message.get("body", b""), message.get("more_body", False)

    async def _discard(self, *, more: bool) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while more:
                    _, more = await self._receive_part()

    async def disconnected(self) -> None:
        """Until the client goes away, once all of the body was read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def answer(self, status: int, body: bytes, content_type: bytes = JSON, headers: Headers = ()) -> None:
        """Send the whole answer."""
        if self._cycle and self.scope["method"] != "HEAD":
            await drained(self._cycle)
            self.write(status, body, content_type, headers)
            return
        lines = self._begin(status, content_type, headers)
        lines.append((b"content-length", b"%d" % len(body)))
        await self._send({"type": "http.response.start", "status": int(status), "headers": lines})
        await self._send({"type": "http.response.body", "body": body})

    def write(self, status: int, body: bytes, content_type: bytes = JSON, headers: Headers = ()) -> None:
        """Send the whole answer on uvicorn's end of the request."""
        assert self._cycle, "it was given or found"
        lines = self._begin(status, content_type, headers)
        respond(self._cycle, int(status), b"".join([b"%b: %b\r\n" % line for line in lines]), body)

    def _begin(self, status: int, content_type: bytes, headers: Headers) -> list[tuple[bytes, bytes]]:
        self.status, self.has_started = str(int(status)), True
        return [(b"content-type", content_type), *headers, *self.common_headers()]

    async def send(self, message: Message) -> None:
        """Send a part of an answer that kserve's app gives."""
        if message["type"] == "http.response.start":
            self.status, self.has_started = str(message["status"]), True
            message = {**message, "headers": [*message.get("headers", []), *self.common_headers()]}
        await self._send(message)

    async def refuse(self, error: RequestError) -> None:
        """Answer with an error."""
        self.error = str(error)
        headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
        await self.answer(error.status, orjson.dumps({"error": self.error}), headers=headers)

    def common_headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer has: the request's id, the model's lineage, and, while draining, a wish to come back elsewhere."""
        headers = [(b"x-request-id", self.request_id.encode()), *self.service.lineage_headers]
        return [*headers, (b"connection", b"close")] if self.service.is_draining else headers

    def finish(self) -> None:
        """Count it."""
        self.service.pending_bytes -= self._held
        self.service.close(self.protocol, self.route, self.status, self.started, self.request_id, self.error)
