"""What feedback is counted by: labels beside predictions, in memory that all processes of a server share.

As in `serving.metrics`, each process writes its own row, any of them adds up all, and every series exists from the start.
"""

import mmap
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
from prometheus_client.core import CounterMetricFamily, Metric

from model.bundle import LABELS, Labels

Source = Literal["volunteered", "asked"]
SOURCES: tuple[Source, ...] = get_args(Source)

_PAIRS = len(LABELS) ** 2
# Of a row: for each source the pairs of label and predicted label, then answers of other versions; at its end what was refused.
_SOURCE = _PAIRS + 1
_LIMITED = len(SOURCES) * _SOURCE


class Confusion:
    """The counts of a server of ``version`` with ``workers`` processes. Each process calls `take_row` before it counts."""

    def __init__(self, version: str, *, workers: int = 1) -> None:
        self._version = version
        self._rows = np.frombuffer(mmap.mmap(-1, workers * (_LIMITED + 1) * 8), np.float64).reshape(workers, _LIMITED + 1)
        self.take_row(0)

    def take_row(self, worker: int) -> None:
        """Count as process ``worker``; what its predecessor counted stays."""
        self._row = self._rows[worker]

    def count(self, source: Source, labels: Labels, predicted: Labels) -> None:
        """Count images with ``labels`` (n,) to which this version answers ``predicted`` (n,)."""
        start = SOURCES.index(source) * _SOURCE
        pairs = np.bincount(labels * len(LABELS) + predicted, minlength=_PAIRS)
        self._row[start : start + _PAIRS] += pairs

    def count_other_version(self, source: Source, images: int) -> None:
        """Count ``images`` that another version had answered."""
        self._row[SOURCES.index(source) * _SOURCE + _PAIRS] += images

    def count_limited(self, images: int) -> None:
        """Count ``images`` that came faster than they are taken."""
        self._row[_LIMITED] += images

    def collect(self) -> Iterator[Metric]:
        """The families, for prometheus_client."""
        total = self._rows.sum(axis=0)
        images = CounterMetricFamily(
            "chiffre_feedback_images",
            "Images of feedback by their label and what the version that answered makes of them.",
            labels=["version", "source", "label", "predicted"],
        )
        other = CounterMetricFamily(
            "chiffre_feedback_other_version",
            "Images of feedback on answers that another version gave; they are in no other count.",
            labels=["version", "source"],
        )
        for start, source in zip(range(0, _LIMITED, _SOURCE), SOURCES, strict=True):
            for pair, value in enumerate(total[start : start + _PAIRS].tolist()):
                label, predicted = divmod(pair, len(LABELS))
                images.add_metric([self._version, source, str(LABELS[label]), str(LABELS[predicted])], value)
            other.add_metric([self._version, source], float(total[start + _PAIRS]))
        yield images
        yield other
        limited = CounterMetricFamily(
            "chiffre_feedback_limited", "Images of feedback that came faster than they are taken.", labels=["version"]
        )
        limited.add_metric([self._version], float(total[_LIMITED]))
        yield limited
