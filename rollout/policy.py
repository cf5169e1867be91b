"""What a challenger must show, and how often the verdict may err; docs/rollout.md has the reasons."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from model.mnist import GOLDEN_SIZE
from rollout.evidence import GOLDEN


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Margins are in absolute points (1 = 1 %). Raises ValueError that names the field.

    Args:
        margin_points: How much worse than the champion's the accuracy on the golden images may be.
        slice_margin_points: The same of each slice; the roll-out has to ask all of them.
        latency_ratio: How many times the champion's 95th percentile of latency is allowed, or
        latency_ms: how many milliseconds more than it, whichever is more.
        latency_requests: How many answers of each are compared at first; then at each doubling.
        error_rate: Share of requests that may fail.
        false_alarm: Probability of rolling back an equal challenger, over all guards and looks.
        false_promotion: Probability of promoting one that is worse than one of the margins, over all looks.
        looks: Golden images that have been asked at each look.
    """

    margin_points: float = 1.0
    slice_margin_points: Mapping[str, float] = field(default_factory=lambda: {"rotated": 2.0, "noisy": 2.0})
    latency_ratio: float = 1.25
    latency_ms: float = 10.0
    latency_requests: int = 2000
    error_rate: float = 0.001
    false_alarm: float = 0.05
    false_promotion: float = 0.05
    looks: tuple[int, ...] = (1000, 2500, 5000)

    def __post_init__(self) -> None:
        for name, margin in {"margin_points": self.margin_points, **self.slice_margin_points}.items():
            _check(name, margin, "points, more than 0 and at most 100", holds=0 < margin <= 100)
        _check("slice_margin_points", GOLDEN, "a slice's name", holds=GOLDEN not in self.slice_margin_points)
        _check("latency_ratio", self.latency_ratio, "1 or more", holds=1 <= self.latency_ratio < float("inf"))
        _check("latency_ms", self.latency_ms, "0 ms or more", holds=0 <= self.latency_ms < float("inf"))
        _check("latency_requests", self.latency_requests, "100 or more", holds=self.latency_requests >= 100)
        for name in ("error_rate", "false_alarm", "false_promotion"):
            share = getattr(self, name)
            _check(name, share, "a share between 0 and 0.5", holds=0 < share < 0.5)
        rising = bool(self.looks) and all(earlier < later for earlier, later in pairwise((0, *self.looks)))
        # Where there are no more images, a look would not be what the record says of it.
        _check(
            "looks", self.looks, f"rising numbers of images up to {GOLDEN_SIZE}", holds=rising and self.looks[-1] <= GOLDEN_SIZE
        )

    def share_of_look(self, look: int) -> float:
        """What part of a probability of error is spent at ``look``: that of the images which are new in it.

        Lan and DeMets 1983, Biometrika 70:659, with the linear spending function of Kim and DeMets 1987, Biometrika 74:149. The
        parts are added, as if tests at different looks erred independently of one another, so no more than their sum is spent.
        """
        if not 0 <= look < len(self.looks):
            message = f"look: expected 0 to {len(self.looks) - 1}, got {look}"
            raise ValueError(message)
        return (self.looks[look] - (0, *self.looks)[look]) / self.looks[-1]

    @property
    def false_alarm_of_guard(self) -> float:
        """What each of the guards that can err may: any of them rolls back, so their probabilities add up (Bonferroni)."""
        return self.false_alarm / (3 + len(self.slice_margin_points))

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers."""
        return {**asdict(self), "looks": list(self.looks)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Policy":
        """The reverse. Raises ValueError for what is none."""
        try:
            return cls(**{**content, "looks": tuple(content["looks"])})
        except (KeyError, TypeError) as error:
            message = f"this is no policy of a roll-out: {error!r}"
            raise ValueError(message) from error


def _check(name: str, value: object, expected: str, *, holds: bool) -> None:
    if not holds:
        message = f"{name}: expected {expected}, got {value}"
        raise ValueError(message)
