"""The verdict on a challenger: a pure function of the evidence. docs/rollout.md has the statistics."""

# ruff: noqa: PLC0414 -- these are part of this module's contract
from collections.abc import Iterable

from rollout import guards
from rollout.evidence import GOLDEN, Evidence
from rollout.policy import Policy as Policy
from rollout.verdict import Guard as Guard
from rollout.verdict import Outcome as Outcome
from rollout.verdict import Reason as Reason
from rollout.verdict import Verdict as Verdict

_WORST_FIRST = (Outcome.ROLLBACK, Outcome.INCONCLUSIVE, Outcome.PROMOTE)


def decide(evidence: Evidence, policy: Policy, *, look: int) -> Verdict:
    """The verdict at look number ``look`` (0, 1, ...), of ``len(policy.looks)``.

    Any guard rolls back; all have to pass for a promotion (intersection-union test, Berger 1982, Technometrics 24:295). Raises
    ValueError for a look that the policy has not, and for a slice without a margin.
    """
    unknown = set(evidence.slices) - {GOLDEN, *policy.slice_margin_points}
    if unknown:
        message = f"slices: the policy has no margin for {', '.join(sorted(unknown))}"
        raise ValueError(message)
    if evidence.not_ready:
        return _say([guards.fault("ready", "not_ready", f"the challenger did not become ready: {evidence.not_ready}")])
    heard = [
        *([guards.fault("bad_input", "bad_input", _bad_input(evidence.bad_input))] if evidence.bad_input else []),
        guards.errors(evidence, policy),
        *(guards.accuracy(name, evidence, policy, look) for name in (GOLDEN, *policy.slice_margin_points)),
        guards.latency(evidence, policy),
    ]
    return _say(heard)


def _bad_input(lines: tuple[str, ...]) -> str:
    return f"{len(lines)} of the requests that must be refused were answered wrongly: {lines[0]}"


def _say(heard: list[Guard]) -> Verdict:
    """The worst of what was ``heard``; the first of those gives the reason."""
    outcome = next(outcome for outcome in _WORST_FIRST if any(guard.outcome == outcome for guard in heard))
    deciding = [guard for guard in heard if guard.outcome == outcome]
    worse = [guard for guard in deciding if guard.reason == "worse_within_margin"]
    more = "; ".join(guard.more for guard in deciding if guard.more)
    sentence = _capitalised("; ".join([*(guard.sentence for guard in deciding), *_remarks(deciding)]))
    return Verdict(outcome=outcome, reason=(worse or deciding)[0].reason, sentence=sentence, more=more, guards=tuple(heard))


def _remarks(deciding: Iterable[Guard]) -> list[str]:
    """What deserves a word in a promotion: where the challenger is surely worse, though allowed, and where it is better."""
    paired = [guard for guard in deciding if guard.unit == "points" and guard.outcome == Outcome.PROMOTE]
    worse = [guard.name for guard in paired if guard.high < 0]
    better = [guard.name for guard in paired if guard.low > 0]
    return [
        *([f"worse on {', '.join(worse)}, within the margin"] if worse else []),
        *([f"better on {', '.join(better)}"] if better else []),
    ]


def _capitalised(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}."
