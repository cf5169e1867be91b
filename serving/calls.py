"""gRPC calls as they come, several at a time.

grpc's own servers hand each call to a thread or to a task, three times the work of what remains here, and so no two calls meet in
one run of the engine. This one takes what has come from the completion queue under both of them, `grpc._cython.cygrpc`. That
layer may change with a release of grpcio: the pin in constraints.txt is the one the tests ran with.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import grpc
from grpc._cython import cygrpc

# Calls of a process that wait; more are answered with RESOURCE_EXHAUSTED.
_MAX_WAITING = 1024
# Messages of a process in memory at once; the other calls wait for their turn to send theirs.
_MAX_MESSAGES = 32
_MESSAGE_SECONDS = 30.0
# Calls that are taken from grpc as they come, even while others are being answered.
_ACCEPTED = 64
# What is taken from the queue before those whose messages came are answered.
_MAX_EVENTS = 256
_TICK_SECONDS = 1.0
_NEVER = float("inf")
_ASKED, _STOPPED = "asked", "stopped"

logger = logging.getLogger("serving")
Metadata = Sequence[tuple[str, str | bytes]]


class Call:
    """A call of a ``method`` with a ``message``, to be answered or refused once; its client may have gone away meanwhile."""

    def __init__(self, event: Any, on_end: Callable[["Call"], None]) -> None:
        self.method: str = event.call_details.method.decode("latin-1")
        self.metadata: Metadata = event.invocation_metadata
        # Until it has come.
        self.message: bytes | None = None
        self.is_answered = self.is_cancelled = False
        self._call, self._on_end = event.call, on_end
        self._due: set[object] = set()

    def answer(self, content: bytes, trailer: Metadata = ()) -> None:
        """Answer with a message and trailing metadata; in any thread."""
        self._finish(grpc.StatusCode.OK, "", trailer, cygrpc.SendMessageOperation(content, 0))

    def refuse(self, code: grpc.StatusCode, details: str, trailer: Metadata = ()) -> None:
        """Answer with an error; in any thread."""
        self._finish(code, details, trailer)

    def _finish(self, code: grpc.StatusCode, details: str, trailer: Metadata, *message: Any) -> None:
        assert not self.is_answered, "a call is answered once"
        if self.is_cancelled:
            return
        self.is_answered = True
        status = cygrpc.SendStatusFromServerOperation(tuple(trailer), code.value[0], details.encode(), 0)
        self.start(cygrpc.SendInitialMetadataOperation((), 0), *message, status)

    def start(self, *operations: Any, then: Callable[[Any], None] = lambda _: None) -> None:
        """Begin ``operations`` together; ``then`` is called in the server's thread with the event of their end."""

        def end(event: Any) -> None:
            self._due.discard(end)
            then(event)
            # A cancelled call may stay without an answer.
            if not self._due and (self.is_answered or self.is_cancelled):
                self._on_end(self)

        self._due.add(end)
        self._call.start_server_batch(operations, end)

    def close(self, event: Any) -> None:
        """The client has gone away, or has its answer."""
        self.is_cancelled = event.batch_operations[0].cancelled()


class CallServer:
    """Hands calls of ``methods`` to ``handle``, in one thread: all those whose messages have come since it returned.

    Raises `RuntimeError` where ``address`` is taken.
    """

    def __init__(
        self,
        handle: Callable[[list[Call]], None],
        methods: Collection[str],
        address: str,
        options: Sequence[tuple[str, Any]],
    ) -> None:
        self._handle, self._methods = handle, methods
        self._queue, self._server = cygrpc.CompletionQueue(), cygrpc.Server(tuple(options), False)
        self._server.register_completion_queue(self._queue)
        if not self._server.add_http2_port(address.encode()):
            message = f"cannot listen at {address}"
            raise RuntimeError(message)
        self._lock = threading.Lock()
        self._is_stopping = self._has_stopped = False
        self._cancel_at = _NEVER
        self._accepted = 0
        self._calls: set[Call] = set()
        self._waiting: deque[Call] = deque()
        # Those whose turn it is, with the time by which their messages must have come, the next one first.
        self._messages: dict[Call, float] = {}
        self._ready: list[Call] = []
        self.stopped = threading.Event()

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()
        for _ in range(_ACCEPTED):
            self._accept()
        threading.Thread(target=self._run, name="grpc", daemon=True).start()

    def stop(self, grace_seconds: float) -> threading.Event:
        """Take no more calls, and cancel those that are still open after ``grace_seconds``; set once all have ended."""
        with self._lock:
            self._cancel_at = time.time() + grace_seconds
            if not self._is_stopping:
                self._is_stopping = True
                # That all calls which were accepted end without success wakes the server's thread.
                self._server.shutdown(self._queue, _STOPPED)
        return self.stopped

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:
            # Better no server than one that leaves its callers waiting; whoever started the process starts another.
            logger.critical("gRPC cannot go on", exc_info=True)
            os._exit(1)

    def _serve(self) -> None:
        tick = 0.0
        while self._accepted or self._calls or not self._has_stopped:
            now = time.time()
            if now >= tick:
                tick = now + _TICK_SECONDS
                self._expire()
            if now >= self._cancel_at:
                self._cancel_at = _NEVER
                self._server.cancel_all_calls()
            self._take_events(min(tick, self._cancel_at))
            ready, self._ready = self._ready, []
            if ready:
                self._answer(ready)
        with self._lock:
            # The end of the shutdown is told before that has returned.
            self._server.destroy()
        self.stopped.set()

    def _take_events(self, until: float) -> None:
        """Wait ``until`` something comes, and take it with all else that has come."""
        for _ in range(_MAX_EVENTS):
            event = self._queue.poll(until)
            if event.completion_type == cygrpc.CompletionType.queue_timeout:
                return
            if event.tag is _ASKED:
                self._begin(event)
            elif event.tag is _STOPPED:
                self._has_stopped = True
            else:
                event.tag(event)
            # An event that lives on keeps its call from ending.
            del event
            until = 0.0

    def _answer(self, calls: list[Call]) -> None:
        try:
            self._handle(calls)
        except Exception:
            # Whatever it was, those who wait must hear of it, and others want an answer.
            logger.exception("internal error")
            for call in calls:
                if not call.is_answered:
                    call.refuse(grpc.StatusCode.INTERNAL, "internal error")
        for call in calls:
            self._messages.pop(call, None)
        self._receive()

    def _accept(self) -> None:
        with self._lock:
            if not self._is_stopping:
                self._accepted += 1
                self._server.request_call(self._queue, self._queue, _ASKED)

    def _begin(self, event: Any) -> None:
        self._accepted -= 1
        if not event.success:
            return
        self._accept()
        call = Call(event, self._end)
        self._calls.add(call)
        call.start(cygrpc.ReceiveCloseOnServerOperation(0), then=call.close)
        if call.method not in self._methods:
            call.refuse(grpc.StatusCode.UNIMPLEMENTED, f"method: expected one of {', '.join(self._methods)}")
        elif len(self._waiting) >= _MAX_WAITING:
            call.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, f"calls: expected at most {_MAX_WAITING} that wait, got as many")
        else:
            self._waiting.append(call)
            self._receive()

    def _receive(self) -> None:
        """Let calls send their messages, as many as may."""
        while self._waiting and len(self._messages) < _MAX_MESSAGES:
            call = self._waiting.popleft()
            # Whoever went away before has ended already.
            if call in self._calls:
                self._messages[call] = time.time() + _MESSAGE_SECONDS
                call.start(cygrpc.ReceiveMessageOperation(0), then=partial(self._take, call))

    def _take(self, call: Call, event: Any) -> None:
        message = event.batch_operations[0].message()
        if message is not None:
            call.message = message
            self._ready.append(call)
        elif not call.is_answered:
            call.refuse(grpc.StatusCode.UNIMPLEMENTED, "message: expected one, got none")

    def _end(self, call: Call) -> None:
        self._calls.discard(call)
        self._messages.pop(call, None)
        self._receive()

    def _expire(self) -> None:
        """Refuse those who do not send the message that others wait for."""
        now = time.time()
        for call, until in self._messages.items():
            if until > now:
                break
            if call.message is None and not call.is_answered:
                call.refuse(grpc.StatusCode.DEADLINE_EXCEEDED, f"message: expected within {_MESSAGE_SECONDS:g} seconds")
