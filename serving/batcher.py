"""A micro-batch that never waits: each run takes what one turn of the event loop has received."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from time import perf_counter
from typing import Protocol

import numpy as np

from model.bundle import Floats
from serving.engine import Answer, Engine
from serving.errors import Disconnected, Overloaded
from serving.metrics import COUNT_SECONDS

MAX_QUEUED_IMAGES = 8192
# One run of the engine holds up the event loop: a few milliseconds at this size.
_MAX_BATCH_IMAGES = 512


Deliver = Callable[[Answer | Exception], None]


class Counts(Protocol):
    """What the batches are counted by, such as `serving.metrics.Metrics`."""

    def count_batch(self, images: Floats, answer: Answer, waits: list[float]) -> bool:
        """Count a batch; true asks for a call of `count_images` after `COUNT_SECONDS`."""

    def count_images(self) -> None:
        """Count what was put off."""


class Uncounted:
    """The counts of a batcher whose images are no traffic."""

    def count_batch(self, images: Floats, answer: Answer, waits: list[float]) -> bool:
        """Count nothing, now and later."""
        del images, answer, waits
        return False

    def count_images(self) -> None:
        """Nothing was put off."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    images: Floats
    deliver: Deliver
    is_gone: Callable[[], bool]
    since: float


class Batcher:
    """Answers for images, computed together with those of others that came in the same turn of the event loop."""

    def __init__(self, engine: Engine, counts: Counts, *, max_queued_images: int = MAX_QUEUED_IMAGES) -> None:
        self._engine, self._counts, self._max_queued = engine, counts, max_queued_images
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        self._queued_images = 0
        self._is_scheduled = False
        # Whether the request that asks is the only one that has come.
        self.is_alone: Callable[[], bool] = lambda: False

    def submit(self, images: Floats, deliver: Deliver, is_gone: Callable[[], bool]) -> None:
        """Have the answer for ``images`` (n, 28, 28), or what went wrong, given to ``deliver`` in the next turn.

        Nothing is computed for who ``is_gone`` by then. Raises `Overloaded` where the queue is full.
        """
        # A request larger than the queue is taken by an empty one.
        if self._queue and self._queued_images + len(images) > self._max_queued:
            message = f"queue: expected room for {len(images)} images, got {self._queued_images} waiting"
            raise Overloaded(message)
        self._queue.append(_Waiting(images, deliver, is_gone, perf_counter()))
        self._queued_images += len(images)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    async def answer(self, images: Floats) -> Answer:
        """The answer for ``images`` (n, 28, 28). Raises `Overloaded` where the queue is full."""
        if not self._queue and self.is_alone():
            # Nobody is there to share a batch with: two turns of the event loop are saved.
            return self.answer_now(images)
        future: asyncio.Future[Answer] = self._loop.create_future()
        self.submit(images, partial(_settle, future), future.done)
        return await future

    def answer_now(self, images: Floats) -> Answer:
        """The answer for ``images`` (n, 28, 28), computed alone."""
        answer = self._engine.answer(images)
        self._count(images, answer, [0.0])
        return answer

    def answer_together(self, requests: list[Floats], waits: list[float]) -> list[Answer]:
        """The answer for each of ``requests`` (n, 28, 28), which waited for ``waits`` seconds; in any thread."""
        answers: list[Answer] = []
        while len(answers) < len(requests):
            start = stop = len(answers)
            size = 0
            while stop < len(requests) and (stop == start or size + len(requests[stop]) <= _MAX_BATCH_IMAGES):
                size += len(requests[stop])
                stop += 1
            answers += self._compute(requests[start:stop], waits[start:stop])
        return answers

    def _compute(self, requests: list[Floats], waits: list[float]) -> list[Answer]:
        images = requests[0] if len(requests) == 1 else np.concatenate(requests)
        answer = self._engine.answer(images)
        self._count(images, answer, waits)
        if len(requests) == 1:
            return [answer]
        stops = list(accumulate(map(len, requests)))
        return [answer.part(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]

    def _count(self, images: Floats, answer: Answer, waits: list[float]) -> None:
        if self._counts.count_batch(images, answer, waits):
            self._loop.call_soon_threadsafe(self._loop.call_later, COUNT_SECONDS, self._counts.count_images)

    def _run(self) -> None:
        batch = self._take()
        self._is_scheduled = bool(self._queue)
        if self._is_scheduled:
            # What arrived meanwhile is read first, and health checks are answered.
            self._loop.call_soon(self._run)
        if batch:
            self._answer(batch)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._queue and (not batch or size + len(self._queue[0].images) <= _MAX_BATCH_IMAGES):
            waiting = self._queue.popleft()
            self._queued_images -= len(waiting.images)
            if waiting.is_gone():
                waiting.deliver(Disconnected())
                continue
            batch.append(waiting)
            size += len(waiting.images)
        return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        started = perf_counter()
        try:
            answers = self._compute([waiting.images for waiting in batch], [started - waiting.since for waiting in batch])
        except Exception as error:  # noqa: BLE001 -- whatever it was, each of those who wait must hear of it
            for waiting in batch:
                waiting.deliver(error)
            return
        for waiting, answer in zip(batch, answers, strict=True):
            waiting.deliver(answer)


def _settle(future: "asyncio.Future[Answer]", result: Answer | Exception) -> None:
    if future.done():
        # Whoever was cancelled has gone away.
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
