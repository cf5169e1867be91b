"""What answers, whatever the protocol: one loaded model with its batcher, limits, counts and state, in one process."""

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal, TypeVar

from model.bundle import Bundle
from serving.batcher import MAX_QUEUED_IMAGES, Batcher, Uncounted
from serving.codec import MAX_INSTANCES
from serving.engine import Engine
from serving.errors import Disconnected, Overloaded
from serving.feedback import Feedback, Terms
from serving.identity import Identity
from serving.metrics import Metrics
from serving.shadow import Sample

MAX_BODY_BYTES = 32 * 1024 * 1024
# Bodies that are in memory at once, of all requests.
_MAX_PENDING_BYTES = 256 * 1024 * 1024
_DECODERS, _MAX_WAITING_FOR_DECODERS = 2, 64
_SLOW_SECONDS = 1.0
_REQUEST_ID_CHARACTERS = 128

Logged = Literal["none", "failed", "all"]
Result = TypeVar("Result")
logger = logging.getLogger("serving")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may bring along."""

    max_instances: int = MAX_INSTANCES
    max_body_bytes: int = MAX_BODY_BYTES
    max_pending_bytes: int = _MAX_PENDING_BYTES
    max_queued_images: int = MAX_QUEUED_IMAGES


class Service:
    """A loaded model under its ``name``; requests are kept in ``sample``, and feedback taken on ``terms``, where there are any.

    `start` is called in each process that answers.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        *,
        workers: int = 1,
        limits: Limits | None = None,
        log_requests: Logged = "failed",
        sample: Sample | None = None,
        terms: Terms | None = None,
        is_watched: bool = True,
    ) -> None:
        self.name, self.engine, self.limits = name, engine, limits or Limits()
        self.identity = Identity.of(name, engine.bundle, engine.name)
        self.metrics = Metrics(self.identity, engine.bundle, workers=workers, is_watched=is_watched)
        self.lineage_headers = [(name.encode(), value.encode()) for name, value in self.identity.headers.items()]
        self.sample = sample
        self.feedback = Feedback(terms, self.identity, workers=workers) if terms else None
        if self.feedback:
            self.metrics.include(self.feedback.confusion)
        self.is_draining = False
        self.pending_bytes = 0
        self._log_requests = log_requests
        self._waiting_for_decoders = 0

    def start(self, worker: int = 0) -> None:
        """Answer as process ``worker`` from now on."""
        self.metrics.take_row(worker)
        if self.sample:
            self.sample.take_row(worker)
        if self.feedback:
            self.feedback.start(self.engine, worker)
        self.batcher = Batcher(self.engine, self.metrics, max_queued_images=self.limits.max_queued_images)
        self._probed = Batcher(self.engine, Uncounted(), max_queued_images=self.limits.max_queued_images)
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
        self._request_prefix = os.urandom(6).hex()
        self._request_numbers = itertools.count()
        self.first_answer = asyncio.Event()

    def batcher_for(self, *, is_probe: bool) -> Batcher:
        """The one for a request; what a roll-out asks is no traffic, and is not to be seen as drift."""
        return self._probed if is_probe else self.batcher

    @property
    def batchers(self) -> tuple[Batcher, Batcher]:
        """All that answer predictions."""
        return self.batcher, self._probed

    @property
    def bundle(self) -> Bundle:
        """What is served."""
        return self.engine.bundle

    def request_id(self, given: str) -> str:
        """The request's id: the one that was ``given``, if it can stand in a log and a header, or a new one."""
        if given and given.isascii() and given.isprintable():
            return given[:_REQUEST_ID_CHARACTERS]
        return f"{self._request_prefix}-{next(self._request_numbers)}"

    def close(self, protocol: str, route: str, status: str, started: float, request_id: str, error: str = "") -> None:
        """Count an answered request, and log it where that is wished."""
        seconds = perf_counter() - started
        self.metrics.end(protocol, route, status, seconds)
        is_failed = status not in ("200", "OK")
        if self._log_requests == "all" or (self._log_requests == "failed" and (is_failed or seconds > _SLOW_SECONDS)):
            fields = {
                "request_id": request_id,
                "protocol": protocol,
                "route": route,
                "status": status,
                "milliseconds": round(seconds * 1000, 3),
            }
            if error:
                fields["error"] = error
            logger.log(logging.WARNING if is_failed else logging.INFO, "request", extra=fields)

    async def in_thread(
        self, function: Callable[..., Result], *arguments: object, until: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> Result:
        """What ``function`` gives, computed beside the event loop.

        Raises `Overloaded` where too many wait already, and `Disconnected` where ``until`` ends first.
        """
        if self._waiting_for_decoders >= _MAX_WAITING_FOR_DECODERS:
            message = f"queue: expected fewer than {_MAX_WAITING_FOR_DECODERS} large requests, got as many waiting"
            raise Overloaded(message)
        self._waiting_for_decoders += 1
        work = asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)
        waits: list[asyncio.Future[Any]] = [work]
        if until:
            waits.append(asyncio.ensure_future(until()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Disconnected
            return work.result()
        finally:
            self._waiting_for_decoders -= 1
            for wait in waits:
                wait.cancel()
            # An error holds this frame, and this frame the error, and with it the request: until a full garbage collection.
            del work, wait, waits
