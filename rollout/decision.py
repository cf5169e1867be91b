"""The verdict on a challenger: a pure function of the evidence."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from rollout.evidence import Evidence


class Outcome(StrEnum):
    """What is to be done with the challenger."""

    PROMOTE = "PROMOTE"
    ROLLBACK = "ROLLBACK"
    INCONCLUSIVE = "INCONCLUSIVE"


# The first group promotes, the second rolls back, the third needs more evidence.
Reason = Literal[
    "not_inferior", "worse_within_margin",
    "not_ready", "bad_input", "errors", "accuracy", "slice", "latency",
    "too_few_errors_seen", "accuracy_open", "slice_open", "latency_open",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One comparison: its interval, what was allowed, and what it says by itself."""

    name: str
    outcome: Outcome
    reason: Reason
    estimate: float
    low: float
    high: float
    allowed: float
    unit: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What all guards say together; ``more`` tells what would settle one that is open."""

    outcome: Outcome
    reason: Reason
    sentence: str
    more: str = ""
    guards: tuple[Guard, ...] = ()

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a challenger must show. Margins in absolute points (1 = 1 %), see docs/rollout.md."""

    margin_points: float = 1.0
    slice_margin_points: dict[str, float] = field(default_factory=lambda: {"rotated": 2.0, "noisy": 2.0})
    latency_ratio: float = 1.25
    latency_ms: float = 10.0
    latency_requests: int = 2000
    error_rate: float = 0.001
    false_alarm: float = 0.05
    looks: tuple[int, ...] = (1000, 2500, 5000)


def decide(evidence: Evidence, policy: Policy, *, look: int) -> Verdict:
    """The verdict at look number ``look`` (0, 1, ...), of ``len(policy.looks)``."""
    raise NotImplementedError
