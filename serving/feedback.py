"""Feedback: what labelled images say about the version that answered for them.

The model predicts again what it is told the labels of, so that nobody has to be believed about what it had answered. These
images are no traffic: they go through a batcher of their own, which counts none of them among the predictions.
"""

from dataclasses import dataclass
from time import monotonic
from typing import Any

from serving.batcher import Batcher, Uncounted
from serving.confusion import Confusion
from serving.engine import Engine
from serving.errors import TooMuch
from serving.identity import Identity
from serving.labelled import MAX_INSTANCES, Labelled

_MAX_QUEUED_IMAGES = 4 * MAX_INSTANCES


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How feedback is taken.

    Args:
        per_second: Images that each process takes a second; `MAX_INSTANCES` more at once after a pause.
        asked_share: Share of the drawings about which the page asks.
    """

    per_second: float = 20.0
    asked_share: float = 0.05


class Bucket:
    """A token bucket: ``per_second`` tokens come, up to ``most``."""

    def __init__(self, per_second: float, most: float) -> None:
        self._per_second, self._most = per_second, most
        self._tokens, self._since = most, monotonic()

    def take(self, tokens: float) -> float:
        """Take ``tokens``, at most as many as it holds, and give 0; or take none, and give the seconds until they are there."""
        now = monotonic()
        self._tokens = min(self._most, self._tokens + (now - self._since) * self._per_second)
        self._since = now
        if tokens > self._tokens:
            return (tokens - self._tokens) / self._per_second
        self._tokens -= tokens
        return 0.0


class Feedback:
    """Takes feedback for a server of ``workers`` processes. `start` is called in each process that answers."""

    def __init__(self, terms: Terms, identity: Identity, *, workers: int = 1) -> None:
        self.terms = terms
        self.confusion = Confusion(identity.version, workers=workers)
        self._version = identity.version
        # A header may lack characters of it.
        self._versions = {identity.version, identity.headers["x-model-version"]}

    def start(self, engine: Engine, worker: int = 0) -> None:
        """Take feedback as process ``worker`` from now on."""
        self.confusion.take_row(worker)
        self._batcher = Batcher(engine, Uncounted(), max_queued_images=_MAX_QUEUED_IMAGES)
        self._bucket = Bucket(self.terms.per_second, MAX_INSTANCES)

    async def take(self, labelled: Labelled) -> dict[str, Any]:
        """Count it; the response. Raises `TooMuch`, and `Overloaded` where the queue is full."""
        images = len(labelled.labels)
        if wait_seconds := self._bucket.take(images):
            self.confusion.count_limited(images)
            raise TooMuch(self.terms.per_second, images, wait_seconds)
        if labelled.model_version not in self._versions:
            self.confusion.count_other_version(labelled.source, images)
            return self._response(other_version=images)
        answer = await self._batcher.answer(labelled.images)
        self.confusion.count(labelled.source, labelled.labels, answer.labels)
        return self._response(counted=images, correct=int((answer.labels == labelled.labels).sum()))

    def _response(self, *, counted: int = 0, correct: int = 0, other_version: int = 0) -> dict[str, Any]:
        """Images that were ``counted`` for this version and ``correct`` by it, or of which an ``other_version`` had answered."""
        return {"counted": counted, "correct": correct, "other_version": other_version, "model_version": self._version}
