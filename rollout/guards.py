"""What each comparison of challenger and champion says by itself. Pure."""

import math
from dataclasses import replace

import numpy as np

from rollout.evidence import GOLDEN, Arm, Evidence, Pairs
from rollout.policy import Policy
from rollout.statistics import Interval, failure_rate, normal_quantile, paired_difference, requests_needed, tails
from rollout.verdict import Guard, Outcome, Reason

_POINTS = 100.0


def errors(evidence: Evidence, policy: Policy) -> Guard:
    """The share of requests that fail: at fault once it is surely more than the champion's and than the policy allows.

    In all of the roll-out, or while users were watched the last time, so that what fails only at a higher share is not thinned
    by what went well before. It passes once it is surely no more than the policy allows.
    """
    watch, champion = evidence.watch, evidence.champion
    # Half of the probability is for the whole, half for the watches, of which each next one gets half of what is left; and a
    # roll-back stands on two bounds.
    alarm = policy.false_alarm_of_guard / 4
    whole = _errors(evidence.challenger, champion, _most(champion, alarm), policy, alarm)
    if whole.outcome is Outcome.ROLLBACK or not watch.number:
        return whole
    alarm *= 0.5**watch.number
    # Trouble of the cluster hits both at the same time. A champion that nobody knows anything of excuses nothing.
    champion = watch.champion if watch.champion.requests else champion
    latest = _errors(watch.challenger, champion, _most(champion, alarm) if champion.requests else 0.0, policy, alarm)
    if latest.outcome is not Outcome.ROLLBACK:
        return whole
    return replace(latest, sentence=f"while users were watched, {latest.sentence}")


def _most(arm: Arm, alarm: float) -> float:
    return failure_rate(arm.failed, arm.requests, low_alpha=alarm, high_alpha=alarm).high


def _errors(challenger: Arm, champion: Arm, most: float, policy: Policy, alarm: float) -> Guard:
    """The guard over these requests, of a champion that fails ``most`` of its own; ``alarm`` is the probability of each bound."""
    found = failure_rate(challenger.failed, challenger.requests, low_alpha=alarm, high_alpha=policy.false_promotion)
    outcome, more = Outcome.INCONCLUSIVE, ""
    reason: Reason = "too_few_errors_seen"
    if found.low > max(policy.error_rate, most):
        outcome, reason = Outcome.ROLLBACK, "errors"
    elif found.high <= policy.error_rate:
        outcome, reason = Outcome.PROMOTE, "not_inferior"
    else:
        more = _more_requests(challenger, policy)
    shown = _scaled(found, 100)
    sentence = (
        f"{challenger.failed:,} of {challenger.requests:,} requests to the challenger failed, {_span(shown, '.2f')} %, and "
        f"{champion.failed:,} of {champion.requests:,} to the champion; {100 * policy.error_rate:g} % is allowed"
    )
    return _guard("errors", outcome, reason, shown, allowed=100 * policy.error_rate, unit="%", sentence=sentence, more=more)


def _more_requests(arm: Arm, policy: Policy) -> str:
    wanted = requests_needed(arm.failed, policy.error_rate, alpha=policy.false_promotion) - arm.requests
    return f"errors: {wanted:,} more requests of which none fails"


def accuracy(name: str, evidence: Evidence, policy: Policy, look: int) -> Guard:
    """The accuracy on one kind of images, paired.

    The golden ones are at fault once the challenger is surely worse, unless it is surely within the margin too. A slice, whose
    images nobody has sent, is at fault only once the challenger is surely worse by more than its margin.
    """
    golden = name == GOLDEN
    margin = policy.margin_points if golden else policy.slice_margin_points[name]
    pairs, share = evidence.slices.get(name, Pairs()), policy.share_of_look(look)
    if not pairs.count:
        return _unasked(name, margin)
    alphas = {"low_alpha": policy.false_promotion * share, "high_alpha": policy.false_alarm_of_guard * share}
    found = _scaled(paired_difference(pairs.challenger_only, pairs.champion_only, pairs.count, **alphas), _POINTS)
    outcome, more = Outcome.INCONCLUSIVE, ""
    reason: Reason = "accuracy_open" if golden else "slice_open"
    if found.low > -margin:
        outcome, reason = Outcome.PROMOTE, "worse_within_margin" if found.high < 0 else "not_inferior"
    elif found.high < (0 if golden else -margin):
        outcome, reason = Outcome.ROLLBACK, "accuracy" if golden else "slice"
    else:
        more = _more_images(name, pairs, margin, policy, look)
    sentence = _accuracy_sentence(name, pairs, found, margin)
    return _guard(name, outcome, reason, found, allowed=-margin, unit="points", sentence=sentence, more=more)


def _accuracy_sentence(name: str, pairs: Pairs, found: Interval, margin: float) -> str:
    theirs, ours = pairs.both_right + pairs.champion_only, pairs.both_right + pairs.challenger_only
    return (
        f"{name}: {100 * ours / pairs.count:.2f} % of {pairs.count:,} images right against the champion's "
        f"{100 * theirs / pairs.count:.2f} %, {_span(found, '+.2f')} points; {-margin:+g} is allowed; "
        f"{100 * pairs.differing / pairs.count:.1f} % of the labels differ"
    )


def _unasked(name: str, margin: float) -> Guard:
    reason: Reason = "accuracy_open" if name == GOLDEN else "slice_open"
    sentence, nothing = f"{name}: no images were asked", Interval(estimate=0, low=-_POINTS, high=_POINTS)
    more = f"{name}: its images have to be asked"
    return _guard(name, Outcome.INCONCLUSIVE, reason, nothing, allowed=-margin, unit="points", sentence=sentence, more=more)


def _more_images(name: str, pairs: Pairs, margin: float, policy: Policy, look: int) -> str:
    """What the next look will bring, or how many images it takes if the difference stays what it is."""
    if look + 1 < len(policy.looks):
        return f"{name}: the next look, at {policy.looks[look + 1]:,} images"
    difference = (pairs.challenger_only - pairs.champion_only) / pairs.count
    deviation = math.sqrt((pairs.challenger_only + pairs.champion_only) / pairs.count - difference**2)
    fault = 0 if name == GOLDEN else -margin / _POINTS
    distance, alpha = max(
        (difference + margin / _POINTS, policy.false_promotion), (fault - difference, policy.false_alarm_of_guard)
    )
    if distance * deviation <= 0:
        return f"{name}: more images"
    wanted = (normal_quantile(alpha * policy.share_of_look(look)) * deviation / distance) ** 2
    return f"{name}: about {float(f'{max(wanted, pairs.count + 1):.2g}'):,.0f} images, if the difference stays what it is"


def latency(evidence: Evidence, policy: Policy) -> Guard:
    """The 95th percentile: at fault once both its ratio to the champion's and its difference are surely more than allowed.

    It passes once either is surely allowed. It is judged at ``latency_requests`` answers of each and at each doubling, with half
    of what is left of the probability of error each time, so that judging again in between changes nothing.
    """
    answers = min(len(evidence.champion.latencies_ms), len(evidence.challenger.latencies_ms))
    if answers < policy.latency_requests:
        return _unmeasured(answers, policy)
    doublings = (answers // policy.latency_requests).bit_length() - 1
    judged, share = policy.latency_requests << doublings, 0.5 ** (doublings + 1)
    champion, challenger = (np.array(arm.latencies_ms[:judged]) for arm in (evidence.champion, evidence.challenger))
    found = tails(champion, challenger)
    # Two ways to pass, each with half the probability.
    alphas = {"low_alpha": policy.false_alarm_of_guard * share, "high_alpha": policy.false_promotion * share / 2}
    ratio, difference = found.ratio(**alphas), found.difference(**alphas)
    outcome, more = Outcome.INCONCLUSIVE, ""
    reason: Reason = "latency_open"
    if ratio.high <= policy.latency_ratio or difference.high <= policy.latency_ms:
        outcome, reason = Outcome.PROMOTE, "not_inferior"
    elif ratio.low > policy.latency_ratio and difference.low > policy.latency_ms:
        outcome, reason = Outcome.ROLLBACK, "latency"
    else:
        more = f"latency: {2 * judged:,} answers of each, {2 * judged - answers:,} more"
    sentence = (
        f"p95 latency {found.challenger:.1f} ms against {found.champion:.1f} ms over {judged:,} requests each: "
        f"{_span(ratio, '.2f')} times and {_span(difference, '+.1f')} ms; "
        f"{policy.latency_ratio:g} times or {policy.latency_ms:+g} ms is allowed"
    )
    return _guard("latency", outcome, reason, ratio, allowed=policy.latency_ratio, unit="times", sentence=sentence, more=more)


def _unmeasured(answers: int, policy: Policy) -> Guard:
    # Nothing bounds it, but JSON has no infinity.
    nothing = Interval(estimate=0, low=0, high=0)
    return _guard(
        "latency",
        Outcome.INCONCLUSIVE,
        "latency_open",
        nothing,
        allowed=policy.latency_ratio,
        unit="times",
        sentence=f"latency: {answers:,} answers of each are too few to compare",
        more=f"latency: {policy.latency_requests - answers:,} more answers of each",
    )


def fault(name: str, reason: Reason, sentence: str) -> Guard:
    """What needs no statistics."""
    nothing = Interval(estimate=1, low=1, high=1)
    return _guard(name, Outcome.ROLLBACK, reason, nothing, allowed=0, unit="", sentence=sentence)


def _guard(
    name: str, outcome: Outcome, reason: Reason, found: Interval, *, allowed: float, unit: str, sentence: str, more: str = ""
) -> Guard:
    return Guard(
        name=name,
        outcome=outcome,
        reason=reason,
        estimate=found.estimate,
        low=found.low,
        high=found.high,
        allowed=allowed,
        unit=unit,
        sentence=sentence,
        more=more,
    )


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(estimate=interval.estimate * factor, low=interval.low * factor, high=interval.high * factor)


def _span(interval: Interval, digits: str) -> str:
    return f"{interval.estimate:{digits}} ({interval.low:{digits}} to {interval.high:{digits}})"
