"""Roll-outs of challengers that are known: evidence that is drawn instead of gathered, judged by `decide` itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from rollout.decision import Outcome, Policy, Reason, Verdict, decide
from rollout.evidence import Arm, Evidence, Pairs
from rollout.planning import DISCORDANCE_POINTS
from rollout.statistics import Array

# The policy's number of requests is doubled so often, at most.
_MOST_DOUBLINGS = 2
_PAIRED: set[Reason] = {"accuracy_open", "slice_open"}
# Of which images are right for both, the rest are wrong for both; it changes no interval.
_BOTH_RIGHT = 0.97


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A challenger beside its champion, as nobody but a simulation knows them.

    Args:
        name: What it is.
        difference_points: Challenger's accuracy minus the champion's by slice; 0 for one that is not named.
        ratio: Its latencies are so many times the champion's,
        more_ms: and so many milliseconds more.
        median_ms: The champion's latency in quiet times.
        failing: Share of requests that fail, of the challenger;
        champion_failing: of the champion.
        looks: Of the policy, where not its own.
    """

    name: str
    difference_points: Mapping[str, float] | None = None
    ratio: float = 1.0
    more_ms: float = 0.0
    median_ms: float = 5.0
    failing: float = 0.0
    champion_failing: float = 0.0
    looks: tuple[int, ...] = Policy().looks

    @property
    def policy(self) -> Policy:
        """The one it is judged by."""
        return Policy(looks=self.looks)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What was said of it, after how many golden images and requests of one image."""

    outcome: Outcome
    reason: str
    images: int
    requests: int


def roll_out(scenario: Scenario, generator: np.random.Generator) -> Ending:
    """One roll-out: images until nothing about them is open, then requests until the rest is not."""
    policy, evidence = scenario.policy, Evidence()
    for look, images in enumerate(policy.looks):
        evidence = replace(evidence, slices=_more_slices(evidence, images, scenario, generator))
        verdict = decide(evidence, policy, look=look)
        if verdict.outcome == Outcome.ROLLBACK or not _open(verdict) & _PAIRED:
            break
    for doubling in range(_MOST_DOUBLINGS + 1):
        if verdict.outcome == Outcome.ROLLBACK or not _open(verdict) - _PAIRED:
            break
        evidence = _more_requests(evidence, policy.latency_requests << doubling, scenario, generator)
        verdict = decide(evidence, policy, look=look)
    return Ending(outcome=verdict.outcome, reason=verdict.reason, images=images, requests=evidence.challenger.requests)


def _open(verdict: Verdict) -> set[Reason]:
    return {guard.reason for guard in verdict.guards if guard.outcome == Outcome.INCONCLUSIVE}


def _more_slices(evidence: Evidence, images: int, scenario: Scenario, generator: np.random.Generator) -> dict[str, Pairs]:
    return {
        name: _more_pairs(evidence.slices.get(name, Pairs()), images, discordance, scenario, name, generator)
        for name, discordance in DISCORDANCE_POINTS.items()
    }


def _more_requests(evidence: Evidence, requests: int, scenario: Scenario, generator: np.random.Generator) -> Evidence:
    both = latencies(requests - evidence.champion.requests, generator) * scenario.median_ms
    challengers = both[1] * scenario.ratio + scenario.more_ms
    return replace(
        evidence,
        champion=_more_answers(evidence.champion, both[0], scenario.champion_failing, generator),
        challenger=_more_answers(evidence.challenger, challengers, scenario.failing, generator),
    )


def _more_pairs(
    pairs: Pairs, images: int, discordance: float, scenario: Scenario, name: str, generator: np.random.Generator
) -> Pairs:
    """Who is worse differs the more from the champion: each point of difference adds one of discordance."""
    difference = (scenario.difference_points or {}).get(name, 0.0)
    gained, lost = ((discordance + abs(difference) + sign * difference) / 200 for sign in (1, -1))
    both = 1 - gained - lost
    drawn = generator.multinomial(images - pairs.count, [gained, lost, both * _BOTH_RIGHT, both * (1 - _BOTH_RIGHT)])
    return Pairs(
        challenger_only=pairs.challenger_only + int(drawn[0]),
        champion_only=pairs.champion_only + int(drawn[1]),
        both_right=pairs.both_right + int(drawn[2]),
        both_wrong=pairs.both_wrong + int(drawn[3]),
        differing=pairs.differing + int(drawn[0] + drawn[1]),
    )


def _more_answers(arm: Arm, milliseconds: Array, failing: float, generator: np.random.Generator) -> Arm:
    fails = generator.random(len(milliseconds)) < failing
    return replace(
        arm,
        latencies_ms=(*arm.latencies_ms, *milliseconds[~fails].tolist()),
        requests=arm.requests + len(fails),
        failed=arm.failed + int(fails.sum()),
    )


def latencies(count: int, generator: np.random.Generator) -> Array:
    """Latencies (2, count) of two equal revisions asked in turns, the median of quiet times being 1.

    A busy machine: its speed drifts over hundreds of requests, and an eighth of the time it is held up for some 60 of them, for
    both alike; 1 request in 200 meets something of its own, such as a garbage collection.
    """
    starts, ends = generator.geometric(1 / 420, count), generator.geometric(1 / 60, count)
    edges = np.stack([starts, ends], axis=1).cumsum()
    busy = np.searchsorted(edges, np.arange(count), side="right") % 2 == 1
    steps = generator.normal(scale=0.15 * np.sqrt(1 - 0.99**2), size=count)
    drift = _autoregressive(steps, 0.99)
    own = generator.normal(scale=0.3, size=(2, count))
    slow = np.where(generator.random((2, count)) < 1 / 200, 6.0, 0.0)
    lasting: Array = np.exp(own + drift + np.where(busy, 1.2, 0.0)) + slow
    return lasting


def _autoregressive(steps: Array, memory: float) -> Array:
    """Each value is ``memory`` times the one before and a step; ``steps`` (n,)."""
    values, value = np.empty_like(steps), 0.0
    for index, step in enumerate(steps.tolist()):
        value = memory * value + step
        values[index] = value
    return values
