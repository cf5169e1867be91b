"""Whole answers on uvicorn's connections.

By ASGI an answer is two messages, for each of which uvicorn makes a system call, and checks each header once more; and a request
is a task, which takes two more turns of the event loop. For the hot routes that is a third of the whole work.
"""

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

# uvicorn itself would take a head of any size into memory, and its parser then no longer pauses for others.
MAX_HEAD_BYTES = 64 * 1024
_ERROR = b'{"error":"headers: expected at most %d bytes, got more"}' % MAX_HEAD_BYTES
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_ERROR), _ERROR)
)
_CLOSE = b"connection: close\r\n"
# Where a request's scope has uvicorn's end of it.
_CYCLE = "chiffre.cycle"


class App(Protocol):
    """An ASGI application that answers some requests without a task of their own."""

    def is_hot(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether `take` is to be asked for a request."""

    def take(self, cycle: RequestResponseCycle) -> bool:
        """Begin to answer a request that is all there; false leaves it to a task."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection to an `App`; each request knows its end of it, and the requests' heads have a limit."""

    _head_bytes = 0
    _is_in_head = _is_in_body = False
    # A hot request whose body is read.
    _held: RequestResponseCycle | None = None

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        # What is part of a body is taken off again; trailers, and what a chunk says of itself, stay.
        self._head_bytes += len(data)
        super().data_received(data)
        if self._held:
            # The rest of its body may take any time: a task waits for that.
            self._release()
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            if not self._is_in_body:
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Begin a request."""
        self._is_in_body, self._head_bytes = True, 0
        self._is_in_head = True
        super().on_headers_complete()
        self._is_in_head = False

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is there."""
        super().on_message_complete()
        self._is_in_body, self._head_bytes = False, 0
        if self._held:
            if cast("App", self.app).take(self._held):
                self._held = None
            else:
                self._release()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: "ASGI3Application") -> None:
        # Not those that waited for an answer to the request before.
        if self._is_in_head and cast("App", self.app).is_hot(cast("dict[str, Any]", cycle.scope)):
            self._held = cycle
            return
        cast("dict[str, Any]", cycle.scope)[_CYCLE] = cycle
        super()._start_asgi_task(cycle, app)

    def _release(self) -> None:
        cycle, self._held = self._held, None
        assert cycle, "one is held"
        self._start_asgi_task(cycle, self.app)


def take_cycle(scope: MutableMapping[str, Any]) -> RequestResponseCycle | None:
    """uvicorn's end of the request of ``scope``, where it has one of ours: taken out of it, since it holds the scope itself."""
    cycle: RequestResponseCycle | None = scope.pop(_CYCLE, None)
    return cycle


async def drained(cycle: RequestResponseCycle) -> None:
    """Until the client has read what was written before."""
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()


def respond(cycle: RequestResponseCycle, status: int, headers: bytes, body: bytes) -> None:
    """Answer a request that is not HEAD as a whole, ``headers`` being lines that end in CRLF."""
    if cycle.disconnected:
        return
    if _CLOSE in headers:
        cycle.keep_alive = False
    elif not cycle.keep_alive:
        headers += _CLOSE
    usual = b"".join([b"%b: %b\r\n" % line for line in cycle.default_headers])
    cycle.transport.write(b"%b%b%bcontent-length: %d\r\n\r\n%b" % (STATUS_LINE[status], usual, headers, len(body), body))
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
