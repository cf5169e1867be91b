"""What users saw, second by second: small enough for a worker to send, and added up without loss.

Latencies are counted in tenths of a millisecond, so that percentiles of any seconds together are exact to that.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Self

_TICKS_PER_MS = 10
# How many kinds of failure are kept word by word, and how much of each.
_MOST_EXAMPLES, _MOST_CHARACTERS = 20, 200
_CONFIDENCE = 0.99


@dataclass(kw_only=True)
class Count:
    """Requests of one kind in some span of time.

    ``failed`` got no answer or a status that is none, ``wrong`` an answer that no model gives; ``right`` of ``images`` labels in
    the other answers were right. ``ticks`` counts latencies of all that were answered.
    """

    requests: int = 0
    failed: int = 0
    wrong: int = 0
    images: int = 0
    right: int = 0
    ticks: Counter[int] = field(default_factory=Counter)

    def add(self, other: Self) -> None:
        """Count what another has counted, too."""
        self.requests += other.requests
        self.failed += other.failed
        self.wrong += other.wrong
        self.images += other.images
        self.right += other.right
        self.ticks.update(other.ticks)

    @property
    def accuracy(self) -> float:
        """Share of labels that are right; not a number where there are none."""
        return self.right / self.images if self.images else math.nan

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Wilson's score interval of the accuracy, with a confidence of 99 % (Wilson 1927, JASA 22, 209-212)."""
        return wilson(self.right, self.images)

    @property
    def failed_share(self) -> float:
        """Failed requests; not a number where there are none at all."""
        return self.failed / self.requests if self.requests else math.nan

    def quantile_ms(self, share: float) -> float:
        """Within how many milliseconds ``share`` of the answers came; not a number where there are none."""
        rank = max(1, math.ceil(share * self.ticks.total()))
        for tick in sorted(self.ticks):
            rank -= self.ticks[tick]
            if rank <= 0:
                return (tick + 1) / _TICKS_PER_MS
        return math.nan


def wilson(right: int, count: int) -> tuple[float, float]:
    """Bounds of a proportion of which ``right`` of ``count`` were seen, with a confidence of 99 %."""
    if not count:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    share = right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(kw_only=True)
class Tally:
    """Counts by second since the epoch and kind, versions that answered, and what failures said.

    ``requests`` and ``wrong`` are those of all seconds together.
    """

    seconds: dict[int, dict[str, Count]] = field(default_factory=dict)
    versions: Counter[str] = field(default_factory=Counter)
    examples: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    wrong: int = 0

    def clear(self) -> None:
        """Forget all."""
        self.seconds.clear()
        self.versions.clear()
        self.examples.clear()
        self.requests = self.wrong = 0

    def add(
        self, *, kind: str, sent: float, latency_ms: float | None, count: Count, version: str = "", example: str = ""
    ) -> None:
        """Count one request, sent at ``sent`` (seconds since the epoch); ``latency_ms`` is none where it was not answered."""
        if latency_ms is not None:
            count.ticks[int(latency_ms * _TICKS_PER_MS)] += 1
        self._count(int(sent), kind, count)
        if version:
            self.versions[version] += 1
        if example:
            self._keep(f"{kind}: {example[:_MOST_CHARACTERS]}", 1)

    def _count(self, second: int, kind: str, count: Count) -> None:
        self.seconds.setdefault(second, {}).setdefault(kind, Count()).add(count)
        self.requests += count.requests
        self.wrong += count.wrong

    def _keep(self, example: str, times: int) -> None:
        if example in self.examples or len(self.examples) < _MOST_EXAMPLES:
            self.examples[example] += times

    def merge(self, other: "Tally") -> None:
        """Add what another process saw."""
        for second, kinds in other.seconds.items():
            for kind, count in kinds.items():
                self._count(second, kind, count)
        self.versions.update(other.versions)
        for example, times in other.examples.items():
            self._keep(example, times)

    def between(self, begin: float, end: float) -> dict[str, Count]:
        """By kind, the counts of whole seconds from ``begin`` to ``end``."""
        return total(self.seconds[second] for second in self.seconds if begin <= second and second + 1 <= end)

    def by_kind(self) -> dict[str, Count]:
        """All counts, by kind."""
        return total(self.seconds.values())

    def to_json(self) -> dict[str, Any]:
        """Lists and plain values: what a worker sends."""
        rows = [
            [second, kind, count.requests, count.failed, count.wrong, count.images, count.right, list(count.ticks.items())]
            for second, kinds in self.seconds.items()
            for kind, count in kinds.items()
        ]
        return {"rows": rows, "versions": list(self.versions.items()), "examples": list(self.examples.items())}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Tally":
        """The reverse."""
        tally = cls(versions=Counter(dict(content["versions"])), examples=Counter(dict(content["examples"])))
        for second, kind, requests, failed, wrong, images, right, ticks in content["rows"]:
            count = Count(requests=requests, failed=failed, wrong=wrong, images=images, right=right, ticks=Counter(dict(ticks)))
            tally._count(second, kind, count)
        return tally


def total(counted: Iterable[dict[str, Count]]) -> dict[str, Count]:
    """The counts of several spans of time in one, by kind."""
    found: dict[str, Count] = {}
    for kinds in counted:
        for kind, count in kinds.items():
            found.setdefault(kind, Count()).add(count)
    return found


def together(counts: dict[str, Count]) -> Count:
    """The counts of all kinds in one."""
    found = Count()
    for count in counts.values():
        found.add(count)
    return found
