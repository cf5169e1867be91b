"""What is counted, in memory that all processes of a server share: each writes its own row, any of them adds up all.

Rows are plain numbers at fixed places, so that every series exists from the start, a count costs no lock, and a process that
dies leaves behind what it counted. prometheus_client writes the exposition.
"""

import mmap
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from model.bundle import Bundle, Floats
from serving.engine import Answer
from serving.identity import Identity
from serving.quality import Quality, Row
from serving.startup import PHASES

# Seconds; objectives lie between 10 and 250 ms, and the buckets are closest there.
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 2.5, 10.0)
_QUEUE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
# How long, and how many, images may stay uncounted.
COUNT_SECONDS = 0.02
_COUNT_IMAGES = 64
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# (protocol, route class): the pairs there are, so that no request can make a new series.
ROUTES = (
    ("v1", "predict"),
    ("v1", "feedback"),
    ("v1", "health"),
    ("v1", "metadata"),
    ("v2", "infer"),
    ("v2", "feedback"),
    ("v2", "health"),
    ("v2", "metadata"),
    ("grpc", "infer"),
    ("grpc", "health"),
    ("grpc", "metadata"),
    ("http", "page"),
    ("http", "metrics"),
    ("http", "other"),
)
_HTTP = ("200", "400", "404", "405", "408", "413", "429", "499", "500", "503", "other")
_GRPC = ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNIMPLEMENTED", "CANCELLED", "INTERNAL")
_LATENCY_ROUTES = (("v1", "predict"), ("v2", "infer"), ("grpc", "infer"))


@dataclass
class Histogram:
    """A histogram at one place of the rows: a number for each bucket, one for what is above, and the sum."""

    name: str
    documentation: str
    edges: Sequence[float]
    labels: dict[str, str] = field(default_factory=dict)
    start: int = 0

    @property
    def size(self) -> int:
        """How many numbers of a row it takes."""
        return len(self.edges) + 2


class Block(Protocol):
    """Counts that belong together: ``size`` numbers of a row, from ``start`` on, which `Metrics` sets."""

    size: int
    start: int

    def collect(self, total: Row) -> Iterator[Metric]:
        """The families, for prometheus_client, from the sum of all rows."""
        ...


class Metrics:
    """The counts of one server of ``workers`` processes. Each process calls `take_row` before it counts.

    Unless ``is_watched``, nothing is counted of images and answers themselves.
    """

    def __init__(self, identity: Identity, bundle: Bundle, *, workers: int = 1, is_watched: bool = True) -> None:
        self._identity = identity
        self._places: dict[tuple[str, str, str], int] = {}
        for protocol, route in ROUTES:
            for status in _GRPC if protocol == "grpc" else _HTTP:
                self._places[protocol, route, status] = len(self._places)
        place = len(self._places)
        self._in_flight = place
        place += 1
        self._histograms = list(_histograms())
        self._quality = Quality(bundle) if is_watched else None
        self._blocks: list[Block] = [self._quality] if self._quality else []
        parts: list[Histogram | Block] = [*self._histograms, *self._blocks]
        for part in parts:
            part.start = place
            place += part.size
        by_name = {(histogram.name, *histogram.labels.values()): histogram for histogram in self._histograms}
        self._latency = {pair: by_name["chiffre_request_duration_seconds", pair[0]] for pair in _LATENCY_ROUTES}
        self._batch, self._queue = by_name["chiffre_batch_images",], by_name["chiffre_queue_seconds",]
        memory = mmap.mmap(-1, workers * place * 8)
        self._rows = np.frombuffer(memory, np.float64).reshape(workers, place)
        self._since = time.time()
        self._restarts = np.frombuffer(mmap.mmap(-1, 8), np.float64)
        self.heartbeats = np.frombuffer(mmap.mmap(-1, workers * 8), np.float64)
        self._phases = np.frombuffer(mmap.mmap(-1, len(PHASES) * 8), np.float64)
        # The event loop counts, and the threads that answer gRPC.
        self._lock = threading.Lock()
        self._uncounted: list[tuple[Floats, Answer]] = []
        self._uncounted_images = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self.take_row(0)

    def include(self, collector: Collector) -> None:
        """Expose the families of ``collector`` too."""
        self._registry.register(collector)

    def take_row(self, worker: int) -> None:
        """Count as process ``worker``, from 0; what its predecessor had in flight is gone."""
        self._row = self._rows[worker]
        # Single numbers are written several times as fast through a memoryview.
        self._numbers: Any = memoryview(self._row)
        self._numbers[self._in_flight] = 0.0
        self._worker = worker

    def beat(self) -> None:
        """Show the supervisor that this process's event loop turns."""
        self.heartbeats[self._worker] += 1

    def count_restart(self) -> None:
        """Count a process that died and was replaced."""
        self._restarts[0] += 1

    def set_phase(self, phase: str, seconds: float) -> None:
        """How long a phase of the start took."""
        self._phases[PHASES.index(phase)] = seconds

    def begin(self) -> None:
        """A request came."""
        with self._lock:
            self._numbers[self._in_flight] += 1.0

    def end(self, protocol: str, route: str, status: str, seconds: float) -> None:
        """A request was answered with ``status`` after ``seconds``."""
        place = self._places.get((protocol, route, status))
        if place is None:
            place = self._places[protocol, route, "INTERNAL" if protocol == "grpc" else "other"]
        histogram = self._latency.get((protocol, route))
        with self._lock:
            self._numbers[self._in_flight] -= 1.0
            self._numbers[place] += 1.0
            if histogram:
                self._observe(histogram, [seconds])

    def count_batch(self, images: Floats, answer: Answer, waits: list[float]) -> bool:
        """Count the ``images`` (n, 28, 28) of a batch, the answer to them, and how long its requests waited, in seconds.

        What is counted of each image is put off, to be counted with that of other batches: one by one, that costs as much as the
        answer does. True asks for a call of `count_images` after `COUNT_SECONDS`.
        """
        with self._lock:
            self._observe(self._batch, [float(len(images))])
            self._observe(self._queue, waits)
            if not self._quality:
                return False
            is_first = not self._uncounted
            self._uncounted.append((images, answer))
            self._uncounted_images += len(images)
        if self._uncounted_images >= _COUNT_IMAGES:
            self.count_images()
        return is_first

    def count_images(self) -> None:
        """Count what was put off."""
        with self._lock:
            uncounted, self._uncounted, self._uncounted_images = self._uncounted, [], 0
        if not uncounted or not self._quality:
            return
        images = np.concatenate([images for images, _ in uncounted])
        labels = np.concatenate([answer.labels for _, answer in uncounted])
        answers = Answer(labels, np.concatenate([answer.probabilities for _, answer in uncounted]))
        counts = self._quality.count(images, answers)
        with self._lock:
            self._row[self._quality.start : self._quality.start + self._quality.size] += counts

    def _observe(self, histogram: Histogram, values: list[float]) -> None:
        for value in values:
            self._numbers[histogram.start + bisect_left(histogram.edges, value)] += 1.0
        self._numbers[histogram.start + len(histogram.edges) + 1] += sum(values)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """The exposition of all processes together, and its content type, as ``accept`` prefers."""
        self.count_images()
        try:
            encoder, content_type = choose_encoder(accept)
        except TypeError:
            # The library compares a version that is none with numbers.
            encoder, content_type = choose_encoder("")
        return encoder(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """The families, for prometheus_client."""
        total = self._rows.sum(axis=0)
        requests = CounterMetricFamily(
            "chiffre_requests", "Requests by protocol, class of route and status.", labels=["protocol", "route", "status"]
        )
        for labels, place in self._places.items():
            requests.add_metric(labels, total[place])
        yield requests
        yield GaugeMetricFamily("chiffre_requests_in_flight", "Requests not yet answered.", value=total[self._in_flight])
        yield from self._collect_histograms(total)
        for block in self._blocks:
            yield from block.collect(total)
        yield from self._collect_server()

    def _collect_histograms(self, total: Row) -> Iterator[Metric]:
        families: dict[str, HistogramMetricFamily] = {}
        for histogram in self._histograms:
            family = families.setdefault(
                histogram.name,
                HistogramMetricFamily(histogram.name, histogram.documentation, labels=list(histogram.labels)),
            )
            values = total[histogram.start : histogram.start + histogram.size]
            bounds = [*(f"{edge:g}" for edge in histogram.edges), "+Inf"]
            buckets = list(zip(bounds, values[:-1].cumsum().tolist(), strict=True))
            family.add_metric(list(histogram.labels.values()), buckets, float(values[-1]))
        yield from families.values()

    def _collect_server(self) -> Iterator[Metric]:
        names = vars(self._identity)
        info = GaugeMetricFamily("chiffre_model_info", "What serves; always 1.", labels=list(names))
        info.add_metric(list(names.values()), 1)
        yield info
        phases = GaugeMetricFamily("chiffre_startup_seconds", "Seconds that a phase of the start took.", labels=["phase"])
        for phase, seconds in zip(PHASES, self._phases.tolist(), strict=True):
            phases.add_metric([phase], seconds)
        yield phases
        # A pod is first asked when it has counted already. What began a moment ago is all new, and rules add it to the increase.
        yield GaugeMetricFamily("chiffre_start_time_seconds", "When counting began, in seconds since 1970.", value=self._since)
        yield GaugeMetricFamily("chiffre_workers", "Processes that answer.", value=len(self._rows))
        yield CounterMetricFamily("chiffre_worker_restarts", "Processes that died and were replaced.", value=self._restarts[0])


def _histograms() -> Iterator[Histogram]:
    for protocol, _ in _LATENCY_ROUTES:
        yield Histogram(
            "chiffre_request_duration_seconds", "From the request to its answer.", LATENCY_BUCKETS, {"protocol": protocol}
        )
    yield Histogram("chiffre_batch_images", "Images that the engine answered together.", _BATCH_BUCKETS)
    yield Histogram("chiffre_queue_seconds", "From a decoded request to the batch that took it.", _QUEUE_BUCKETS)
