"""What is said of a challenger, in numbers and in a sentence."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal


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
    """One comparison: its interval, what was allowed, and what it says by itself.

    ``more`` tells what would settle it, where it is open.
    """

    name: str
    outcome: Outcome
    reason: Reason
    estimate: float
    low: float
    high: float
    allowed: float
    unit: str
    sentence: str
    more: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What all guards say together; ``more`` tells what would settle those that are open."""

    outcome: Outcome
    reason: Reason
    sentence: str
    more: str = ""
    guards: tuple[Guard, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Verdict":
        """The reverse. Raises ValueError for what is none."""
        try:
            guards = tuple(Guard(**{**guard, "outcome": Outcome(guard["outcome"])}) for guard in content["guards"])
            return cls(**{**content, "outcome": Outcome(content["outcome"]), "guards": guards})
        except (KeyError, TypeError, ValueError) as error:
            message = f"this is no verdict on a challenger: {error!r}"
            raise ValueError(message) from error
