import json
from dataclasses import replace
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.decision import Outcome, Policy, Reason, Verdict, decide
from rollout.evidence import GOLDEN, Arm, Evidence, Pairs, Watch

POLICY = Policy()
LAST = len(POLICY.looks) - 1


def pairs(gained: int = 20, lost: int = 20, count: int = 5000) -> Pairs:
    both = count - gained - lost
    right = both * 97 // 100
    return Pairs(challenger_only=gained, champion_only=lost, both_right=right, both_wrong=both - right, differing=gained + lost)


@cache
def arm(more_ms: float = 0.0, answered: int = 4000, failed: int = 0, seed: int = 0) -> Arm:
    latencies = np.random.default_rng(seed).lognormal(2, 0.3, answered) + more_ms
    return Arm(latencies_ms=tuple(latencies.tolist()), requests=answered + failed, failed=failed)


def evidence(golden: Pairs | None = None, challenger: Arm | None = None, **slices: Pairs) -> Evidence:
    asked = {GOLDEN: golden or pairs(), "rotated": pairs(80, 80), "noisy": pairs(50, 50), **slices}
    return Evidence(slices=asked, champion=arm(), challenger=challenger or arm(seed=1))


# One of each; the simulation says how often they come.
BY_REASON: dict[Reason, Evidence] = {
    "not_inferior": evidence(),
    "worse_within_margin": evidence(pairs(20, 50)),
    "not_ready": Evidence(not_ready="deadline of 60 s exceeded"),
    "bad_input": replace(evidence(), bad_input=("a picture of 0 bytes: 500",)),
    "errors": evidence(challenger=arm(failed=60)),
    "accuracy": evidence(pairs(30, 105)),
    "slice": evidence(noisy=pairs(50, 300)),
    "latency": evidence(challenger=arm(50, seed=1)),
    "too_few_errors_seen": evidence(challenger=arm(answered=3000, seed=1)),
    "accuracy_open": evidence(pairs(150, 170)),
    "slice_open": evidence(noisy=pairs(50, 150)),
    "latency_open": evidence(challenger=arm(10, seed=1)),
}


def test_the_reasons_are_all_here() -> None:
    assert set(BY_REASON) == set(get_args(Reason))


@pytest.mark.parametrize("reason", BY_REASON)
def test_each_reason_is_reached_and_said(reason: Reason) -> None:
    verdict = decide(BY_REASON[reason], POLICY, look=LAST)
    wanted = Outcome.PROMOTE if reason in ("not_inferior", "worse_within_margin") else Outcome.ROLLBACK
    if reason.endswith(("_open", "_seen")):
        wanted = Outcome.INCONCLUSIVE
    assert (verdict.reason, verdict.outcome) == (reason, wanted)
    assert verdict.sentence.endswith(".")
    assert bool(verdict.more) == (wanted == Outcome.INCONCLUSIVE)


def travelled(content: dict[str, Any]) -> Any:
    return json.loads(json.dumps(content, allow_nan=False))


@pytest.mark.parametrize("reason", BY_REASON)
def test_verdicts_and_evidence_survive_json(reason: Reason) -> None:
    verdict = decide(BY_REASON[reason], POLICY, look=LAST)
    assert Verdict.from_json(travelled(verdict.to_json())) == verdict
    assert decide(Evidence.from_json(travelled(BY_REASON[reason].to_json())), POLICY, look=LAST) == verdict


def test_what_users_met_survives_json_and_is_not_written_where_nobody_was_watched() -> None:
    watch = Watch(number=2, champion=Arm(requests=900), challenger=Arm(requests=700, failed=90))
    watched = replace(evidence(), watch=watch)
    assert Evidence.from_json(travelled(watched.to_json())) == watched
    assert decide(watched, POLICY, look=LAST).reason == "errors"
    assert "watch" not in evidence().to_json()
    for wrong in ({}, {"number": -1}, {**watched.to_json()["watch"], "number": None}):
        with pytest.raises(ValueError, match=r"no evidence|number: expected a whole number"):
            Evidence.from_json({**watched.to_json(), "watch": wrong})


def test_the_sentence_has_the_numbers() -> None:
    sentence = decide(BY_REASON["accuracy"], POLICY, look=LAST).sentence
    for words in ("Golden: ", "of 5,000 images right", "-1.50 (-", "-1 is allowed", "2.7 % of the labels differ"):
        assert words in sentence
    assert "5.2" in decide(BY_REASON["latency"], POLICY, look=LAST).sentence


def test_one_that_is_better_somewhere_is_said_to_be() -> None:
    verdict = decide(evidence(pairs(20, 50), rotated=pairs(400, 60)), POLICY, look=LAST)
    assert verdict.reason == "worse_within_margin"
    assert "worse on golden, within the margin; better on rotated" in verdict.sentence


def test_what_a_fault_needs_comes_before_what_is_open() -> None:
    crashed = replace(BY_REASON["errors"], slices={})
    assert decide(crashed, POLICY, look=0).reason == "errors"


def test_a_challenger_that_fails_no_more_than_the_champion_is_not_at_fault() -> None:
    both = replace(BY_REASON["errors"], champion=arm(failed=60))
    assert decide(both, POLICY, look=LAST).outcome == Outcome.INCONCLUSIVE


def test_labels_that_differ_decide_nothing() -> None:
    strange = evidence(replace(pairs(), differing=5000))
    assert [guard.outcome for guard in decide(strange, POLICY, look=LAST).guards] == [Outcome.PROMOTE] * 5


@pytest.mark.parametrize(("more_ms", "ratio", "outcome"), [(9, 3, "PROMOTE"), (11.5, 1, "ROLLBACK"), (0, 1.2, "PROMOTE")])
def test_latency_needs_both_ratio_and_difference(more_ms: float, ratio: float, outcome: str) -> None:
    """A ratio of 3 is 9 ms more where the champion takes 4.5 ms."""
    base = np.random.default_rng(5).normal(4.5 if ratio == 3 else 30, 0.05, (2, 4000))
    champion, challenger = (
        Arm(latencies_ms=tuple(values.tolist()), requests=4000)
        for values in (base[0], base[1] * (1 if more_ms else ratio) + more_ms)
    )
    verdict = decide(replace(evidence(), champion=champion, challenger=challenger), POLICY, look=LAST)
    assert verdict.outcome == outcome


def test_latency_is_judged_at_doublings_alone() -> None:
    at_4000, at_7999, at_8000 = (
        decide(evidence(challenger=arm(9, answered=count, seed=1)), replace(POLICY, latency_requests=1000), look=LAST).guards[-1]
        for count in (2000, 3999, 4000)
    )
    assert (at_4000.estimate, at_4000.low) == (at_7999.estimate, at_7999.low) != (at_8000.estimate, at_8000.low)


def test_a_later_look_asks_for_more() -> None:
    """Each look has its own part of the probability: what is spent cannot be spent again."""
    assert sum(POLICY.share_of_look(look) for look in range(len(POLICY.looks))) == pytest.approx(1)
    widths = [
        guard.high - guard.low
        for look in range(3)
        for guard in decide(evidence(), POLICY, look=look).guards
        if guard.name == GOLDEN
    ]
    assert widths[0] > widths[1] > widths[2]


DISCORDANT = st.integers(0, 150)


@given(DISCORDANT, DISCORDANT, st.integers(0, LAST))
@settings(max_examples=40, deadline=None)
def test_more_right_answers_never_hurt(gained: int, lost: int, look: int) -> None:
    order = [Outcome.ROLLBACK, Outcome.INCONCLUSIVE, Outcome.PROMOTE]
    # Latency and errors are decided, so that accuracy alone decides.
    fewer, more = (decide(evidence(pairs(gained + extra, lost)), POLICY, look=look).outcome for extra in (0, 5))
    assert order.index(fewer) <= order.index(more)


@given(st.integers(0, 40), st.integers(3400, 4000))
@settings(max_examples=40, deadline=None)
def test_more_failures_never_help(failed: int, answered: int) -> None:
    order = [Outcome.ROLLBACK, Outcome.INCONCLUSIVE, Outcome.PROMOTE]
    fewer, more = (
        decide(evidence(challenger=replace(arm(seed=1), requests=answered + extra, failed=extra)), POLICY, look=LAST).outcome
        for extra in (failed, failed + 1)
    )
    assert order.index(more) <= order.index(fewer)


@given(DISCORDANT, DISCORDANT)
@settings(max_examples=40, deadline=None)
def test_swapped_models_have_the_opposite_difference(gained: int, lost: int) -> None:
    one, other = (
        next(guard for guard in decide(evidence(found), POLICY, look=LAST).guards if guard.name == GOLDEN)
        for found in (pairs(gained, lost), pairs(lost, gained))
    )
    assert one.estimate == -other.estimate
    # The ends fail with different probabilities, so they only lie on either side.
    assert one.low <= -other.estimate <= one.high


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"margin_points": 0}, "margin_points"),
        ({"margin_points": float("nan")}, "margin_points"),
        ({"slice_margin_points": {"noisy": -1}}, "noisy"),
        ({"slice_margin_points": {"golden": 1}}, "slice_margin_points"),
        ({"latency_ratio": 0.9}, "latency_ratio"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"latency_requests": 10}, "latency_requests"),
        ({"error_rate": 0}, "error_rate"),
        ({"false_alarm": 0.5}, "false_alarm"),
        ({"false_promotion": 1}, "false_promotion"),
        ({"looks": ()}, "looks"),
        ({"looks": (1000, 1000)}, "looks"),
        ({"looks": (1000, 5001)}, "looks"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        Policy(**change)


def test_policies_survive_json() -> None:
    policy = Policy(looks=(500, 5000), slice_margin_points={"rotated": 3.0})
    assert Policy.from_json(json.loads(json.dumps(policy.to_json()))) == policy


@pytest.mark.parametrize("content", [{}, {"looks": 3}, {"looks": [10], "other": 1}])
def test_what_is_no_policy_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no policy"):
        Policy.from_json(content)


@pytest.mark.parametrize("content", [{}, {"guards": [{}]}, {"guards": [], "outcome": "PERHAPS"}])
def test_what_is_no_verdict_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no verdict"):
        Verdict.from_json(content)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({}, "no evidence"),
        ({"latencies_ms": [float("nan")]}, "latencies_ms: expected finite"),
        ({"latencies_ms": [], "requests": -1, "failed": 0}, "requests: expected a whole number"),
        ({"latencies_ms": [], "requests": 3, "failed": "1"}, "failed: expected a whole number"),
        ({"latencies_ms": [], "requests": 3, "failed": 4}, "failed: expected at most the 3"),
    ],
)
def test_what_is_no_evidence_is_refused(arm: dict[str, Any], message: str) -> None:
    content = {**evidence().to_json(), "challenger": {"examples": [], **arm}}
    with pytest.raises(ValueError, match=message):
        Evidence.from_json(content)
    with pytest.raises(ValueError, match="both_right: expected a whole number"):
        Evidence.from_json({**evidence().to_json(), "slices": {GOLDEN: {"both_right": 0.5}}})


def test_a_look_or_slice_that_the_policy_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^look: expected 0 to 2, got 3"):
        decide(evidence(), POLICY, look=3)
    with pytest.raises(ValueError, match=r"^slices: the policy has no margin for blurred"):
        decide(evidence(blurred=pairs()), POLICY, look=0)
