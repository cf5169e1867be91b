"""Counts by second, stages, and where a ramp's knee is."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from loadtests.slo.objectives import Objectives
from loadtests.slo.stages import Span, Stage, find_knee, plan
from loadtests.slo.tally import Count, Tally, together, wilson

OBJECTIVES = Objectives(error_rate=0.001, p95_ms=50, p99_ms=200, cold_start_seconds=5, least_accuracy=0.95)


def tally(*rates: tuple[int, float]) -> tuple[Tally, list[Span]]:
    """Of stages of five seconds, so many requests a second and their latency."""
    found, spans = Tally(), []
    for index, (rate, latency_ms) in enumerate(rates):
        begin = 1000.5 + 5 * index
        for second in range(5):
            for _ in range(rate):
                found.add(kind="V1", sent=begin + second, latency_ms=latency_ms, count=Count(requests=1))
        spans.append(Span(stage=Stage(name=str(index), users=1 << index, seconds=5), begin=begin, end=begin + 5))
    return found, spans


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 0.99, 1.0])
def test_quantiles_are_exact_to_a_tenth_of_a_millisecond(share: float) -> None:
    latencies = np.random.default_rng(0).lognormal(1, 1, 1000)
    count = Count(ticks=Counter((latencies * 10).astype(int).tolist()))
    expected = np.quantile(latencies, share, method="inverted_cdf")
    assert 0 <= count.quantile_ms(share) - expected <= 0.1 + 1e-9
    assert str(Count().quantile_ms(share)) == "nan"


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (95, 100), (9832, 10_000)])
def test_the_interval_is_wilsons(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(0.99, method="wilson")
    assert wilson(right, count) == pytest.approx((expected.low, expected.high))


def test_a_tally_goes_to_json_and_is_added_up() -> None:
    one, _ = tally((3, 1.0))
    one.add(kind="gRPC", sent=1, latency_ms=None, count=Count(requests=1, failed=1), version="7", example="x" * 1000)
    other = Tally.from_json(json.loads(json.dumps(one.to_json())))
    assert other == one
    other.merge(one)
    assert (other.requests, other.by_kind()["V1"].requests, other.by_kind()["gRPC"].failed) == (32, 30, 2)
    assert other.versions == {"7": 2}
    assert [len(example) for example in other.examples] == [len("gRPC: ") + 200]
    other.clear()
    assert other == Tally()


def test_failures_are_kept_up_to_a_bound() -> None:
    found = Tally()
    for index in range(1000):
        found.add(kind="V1", sent=0, latency_ms=None, count=Count(requests=1, failed=1), example=f"failure {index}")
    assert len(found.examples) == 20


def test_a_stage_counts_its_whole_seconds_without_the_first() -> None:
    found, (span,) = tally((100, 1.0))
    assert span.seconds == 3
    assert together(span.counts(found)).requests == 300
    assert span.rate(found) == 100


def test_the_knee_is_the_last_stage_that_brings_more_and_keeps_what_is_promised() -> None:
    rates = ((100, 1.0), (200, 1.0), (300, 2.0), (310, 4.0), (305, 8.0))
    found, spans = tally(*rates)
    knee, passed = find_knee(spans, found, OBJECTIVES)
    assert knee is spans[3]
    assert passed
    assert find_knee(spans[:3], found, OBJECTIVES) == (spans[2], False)
    slow, spans = tally((100, 1.0), (200, 60.0), (400, 1.0))
    assert find_knee(spans, slow, OBJECTIVES) == (spans[0], True)
    slowest, spans = tally((100, 60.0))
    assert find_knee(spans, slowest, OBJECTIVES) == (None, True)
    far = replace(OBJECTIVES, p95_ms=60, p99_ms=210, network_ms=10)
    assert find_knee(spans, tally((100, 59.0))[0], far) == (spans[0], False)


def test_shapes() -> None:
    def users(shape: str, count: int, least: int = 1) -> list[int]:
        return [stage.users for stage in plan(shape, count, step_seconds=1, cold_seconds=5, least=least)]  # type: ignore[arg-type]  # given by name

    assert users("steady", 10) == []
    assert users("knee", 100) == [1, 2, 4, 8, 16, 32, 64, 100]
    assert users("knee", 16, 3) == [3, 6, 12, 16]
    assert users("spike", 50) == [10, 50, 10]
    assert users("spike", 1) == [1, 1, 1]
    assert users("zero", 10) == [10, 10]
