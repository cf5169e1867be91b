"""Stages of a run: what is planned, what was, and when a ramp has passed the knee."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.slo.objectives import Objectives
from loadtests.slo.settings import Shape
from loadtests.slo.tally import Count, Tally, together

# Twice the users have to bring this much more, in one of so many stages, or the service is at its end.
_GROWTH, _FLAT_STAGES = 1.1, 2
# The first second of a stage opens connections.
_ONSET_SECONDS = 1
# Of the spike's users, the share that is there before and after.
_SPIKE = 5


@dataclass(frozen=True, kw_only=True)
class Stage:
    """So many users, for so long."""

    name: str
    users: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stage as it was, from ``begin`` to ``end`` in seconds since the epoch."""

    stage: Stage
    begin: float
    end: float

    def counts(self, tally: Tally) -> dict[str, Count]:
        """What was seen in its whole seconds, by kind."""
        return tally.between(self.begin + _ONSET_SECONDS, self.end)

    def all_counts(self, tally: Tally) -> dict[str, Count]:
        """What was sent from its first second to its last."""
        return tally.between(int(self.begin), self.end)

    @property
    def seconds(self) -> int:
        """How many whole seconds those are."""
        return max(0, int(self.end) - -int(-(self.begin + _ONSET_SECONDS) // 1))

    def rate(self, tally: Tally) -> float:
        """Answers per second."""
        count = together(self.counts(tally))
        return (count.requests - count.failed) / max(1, self.seconds)


def plan(shape: Shape, users: int, *, step_seconds: int, cold_seconds: float, least: int = 1) -> list[Stage]:
    """The stages of a shape; none for ``steady``, which lasts as long as Locust is told.

    Those of ``knee`` begin with ``least`` users, one of each kind, and may end early.
    """
    step = float(step_seconds)
    if shape == "knee":
        counts = [least << power for power in range(users.bit_length()) if least << power < users]
        return [Stage(name=f"{count} users", users=count, seconds=step) for count in (*counts, users)]
    if shape == "spike":
        few = max(1, users // _SPIKE)
        return [Stage(name=name, users=n, seconds=step) for name, n in (("before", few), ("spike", users), ("after", few))]
    if shape == "steady":
        return []
    # Requests that are sent while it starts wait for that; all others belong to warm pods.
    return [Stage(name="cold", users=users, seconds=2 * cold_seconds), Stage(name="warm", users=users, seconds=step)]


def is_within(count: Count, objectives: Objectives) -> bool:
    """Whether a stage keeps latency and errors."""
    return (
        count.failed_share <= objectives.error_rate
        and count.quantile_ms(0.95) <= objectives.p95_ms
        and count.quantile_ms(0.99) <= objectives.p99_ms
    )


def find_knee(spans: Sequence[Span], tally: Tally, objectives: Objectives) -> tuple[Span | None, bool]:
    """The stage with the highest rate that keeps the objectives, and whether a ramp has passed it."""
    best, best_rate, flat = None, 0.0, 0
    for span in spans:
        rate = span.rate(tally)
        flat = 0 if rate >= _GROWTH * best_rate else flat + 1
        if not is_within(together(span.counts(tally)), objectives):
            return best, True
        if rate > best_rate:
            best, best_rate = span, rate
        if flat == _FLAT_STAGES:
            return best, True
    return best, False
