"""What a roll-out will take, said before it starts. Pure.

It stands on the normal approximation of the same intervals that the verdict uses; rollout/simulation.py tries the verdict itself.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from rollout.evidence import GOLDEN
from rollout.policy import Policy
from rollout.statistics import normal_quantile, requests_needed

# Of two trainings of one configuration: how many images only one of them gets right, in %.
DISCORDANCE_POINTS: Mapping[str, float] = {GOLDEN: 1.3, "rotated": 3.5, "noisy": 2.0}
_OTHER_DISCORDANCE_POINTS = 3.5
_LIKELY = 0.9
_BISECTIONS = 40
_MOST_POINTS, _TINY = 100.0, 1e-9


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast both revisions are asked, together; and how long each share of the traffic lasts, at least."""

    images_per_second: float = 500.0
    requests_per_second: float = 100.0
    step_seconds: float = 60.0
    steps: int = 4


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a verdict takes; of an equal challenger, where it depends on that.

    Args:
        looks: Golden images at each look.
        promoted_by_look: Probability that the accuracy guards of an equal challenger have passed by it.
        images: Golden images, on average,
        most_images: and at most. Each slice takes as many.
        requests: Single requests to each revision until the other guards can pass; latency is judged at doublings.
        minutes: On average,
        most_minutes: and at most; starts of pods come to it.
        promoted_to_points: The largest loss of accuracy that is still promoted with 90 %.
        rolled_back_from_points: The smallest that is rolled back with 90 %.
    """

    looks: tuple[int, ...]
    promoted_by_look: tuple[float, ...]
    images: float
    most_images: int
    requests: int
    minutes: float
    most_minutes: float
    promoted_to_points: float
    rolled_back_from_points: float

    def lines(self) -> list[str]:
        """It in sentences."""
        by_look = ", ".join(
            f"{100 * share:.0f} % by {images:,}" for images, share in zip(self.looks, self.promoted_by_look, strict=True)
        )
        images = f"about {round(self.images, -2):,.0f} on average for an equal challenger ({by_look})"
        return [
            f"golden images: {images}, {self.most_images:,} at most",
            f"requests: {self.requests:,} to each revision, of which none fails",
            f"time: about {self.minutes:.0f} minutes, {self.most_minutes:.0f} at most, and the starts of pods",
            f"with 90 %: a loss of up to {self.promoted_to_points:.2f} points is promoted",
            f"with 90 %: a loss of {self.rolled_back_from_points:.2f} points or more is rolled back; others may be held",
        ]


def plan(policy: Policy, pace: Pace | None = None, discordance_points: Mapping[str, float] = DISCORDANCE_POINTS) -> Plan:
    """The plan for ``policy``, if challenger and champion differ by ``discordance_points`` in each slice where they are equal."""
    pace = pace or Pace()
    margins = {GOLDEN: policy.margin_points, **policy.slice_margin_points}
    by_look = tuple(
        math.prod(
            _pass(margin, discordance_points.get(name, _OTHER_DISCORDANCE_POINTS), policy, look)
            for name, margin in margins.items()
        )
        for look in range(len(policy.looks))
    )
    # Who has not passed at a look goes on to the next.
    steps = zip(policy.looks, (0, *policy.looks[:-1]), (0.0, *by_look[:-1]), strict=True)
    images = sum((stop - start) * (1 - passed) for stop, start, passed in steps)
    requests = policy.latency_requests
    while requests < requests_needed(0, policy.error_rate, alpha=policy.false_promotion):
        requests *= 2
    asked = requests / pace.requests_per_second + pace.steps * pace.step_seconds
    golden = discordance_points.get(GOLDEN, _OTHER_DISCORDANCE_POINTS)
    return Plan(
        looks=policy.looks,
        promoted_by_look=by_look,
        images=images,
        most_images=policy.looks[-1],
        requests=requests,
        minutes=(asked + len(margins) * images / pace.images_per_second) / 60,
        most_minutes=(asked + len(margins) * policy.looks[-1] / pace.images_per_second) / 60,
        promoted_to_points=_largest_loss(policy, golden),
        rolled_back_from_points=_smallest_loss(policy, golden),
    )


def _error_points(discordance: float, loss: float, images: int) -> float:
    """Standard error of the difference in points; each point of loss comes to the discordance."""
    return math.sqrt(max((discordance + loss) * 100 - loss**2, _TINY) / images)


def _pass(margin: float, discordance: float, policy: Policy, look: int, loss: float = 0.0) -> float:
    """Probability that the lower end is above the margin at one look."""
    z = normal_quantile(policy.false_promotion * policy.share_of_look(look))
    return NormalDist().cdf((margin - loss) / _error_points(discordance, loss, policy.looks[look]) - z)


def _fail(discordance: float, policy: Policy, look: int, loss: float) -> float:
    """Probability that the upper end is below 0 at one look."""
    z = normal_quantile(policy.false_alarm_of_guard * policy.share_of_look(look))
    return NormalDist().cdf(loss / _error_points(discordance, loss, policy.looks[look]) - z)


def _largest_loss(policy: Policy, discordance: float) -> float:
    """0 where not even an equal challenger is promoted with 90 %. It passes at last, unless it was rolled back before."""

    def likely(loss: float) -> bool:
        before = sum(_fail(discordance, policy, look, loss) for look in range(len(policy.looks) - 1))
        return _pass(policy.margin_points, discordance, policy, len(policy.looks) - 1, loss) - before >= _LIKELY

    return _halved(lambda loss: not likely(loss), policy.margin_points)


def _smallest_loss(policy: Policy, discordance: float) -> float:
    """It is found out at last, unless it has passed."""

    def likely(loss: float) -> bool:
        passed = sum(_pass(policy.margin_points, discordance, policy, look, loss) for look in range(len(policy.looks)))
        return _fail(discordance, policy, len(policy.looks) - 1, loss) - passed >= _LIKELY

    return _halved(likely, _MOST_POINTS)


def _halved(holds: Callable[[float], bool], high: float) -> float:
    """The loss in points, up to ``high``, from which on ``holds`` does."""
    low = 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
