"""Both revisions are asked the same; what a challenger does wrong is evidence, what anybody else does wrong is an error."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import Bundle, Floats, Labels
from model.demo import free_port
from rollout import timing
from rollout.evidence import Arm, Pairs
from rollout.lanes import turns
from rollout.probe import Arms, ProbeError, compare, measure
from rollout.questions import ProtocolName
from rollout.revision import ENOUGH_FAILURES
from tests.drill.challengers import alter
from tests.drill.graphs import fail_on_ink
from tests.processes import Server
from tests.rollout.arms import CHALLENGER, CHAMPION, arms_behind, arms_of, expected_pairs, reweigh
from tests.rollout.gateway import Gateway

Bundles = tuple[Bundle, Bundle]
Questions = tuple[Floats, Labels]
PROTOCOLS: tuple[ProtocolName, ...] = ("rest", "grpc")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_answers_are_paired_image_by_image(
    server: Server, challenger: Server, bundles: Bundles, questions: Questions, protocol: ProtocolName
) -> None:
    expected = expected_pairs(bundles, *questions)
    # Or what follows would say nothing.
    assert min(expected.both_right, expected.champion_only, expected.both_wrong, expected.differing) > 0
    pairs, first, second = compare(arms_of(server, challenger, bundles, protocol), *questions)
    assert pairs == expected
    # Once each: 6 batches of 50 and one of 30.
    assert first == second == Arm(requests=7)


def test_both_are_found_by_name_and_no_question_is_kept_as_a_users(
    gateway: Gateway, bundles: Bundles, questions: Questions
) -> None:
    pairs, *_ = compare(arms_behind(gateway, bundles), *questions)
    assert pairs == expected_pairs(bundles, *questions)
    assert len(gateway.heads) == 14
    assert all("x-shadow: 1" in head for head in gateway.heads)


def test_the_champion_beside_itself_differs_nowhere(server: Server, bundles: Bundles, questions: Questions) -> None:
    pairs, *_ = compare(arms_of(server, server, (bundles[0], bundles[0]), "rest"), *questions)
    assert (pairs.count, pairs.champion_only, pairs.challenger_only, pairs.differing) == (330, 0, 0, 0)


def test_images_that_make_the_challenger_fail_count_as_wrong_by_themselves(
    server: Server, bundles: Bundles, questions: Questions, tmp_path: Path
) -> None:
    images, labels = questions
    ink = images.mean(axis=(1, 2))
    limit = float(np.sort(ink)[-4:-2].mean())
    failing = np.flatnonzero(ink > limit)
    crashing = alter(bundles[1], tmp_path / "crashing", partial(fail_on_ink, above=limit))
    with Server("--model_dir", str(crashing.directory)) as faulty:
        pairs, champion, found = compare(arms_of(server, faulty, (bundles[0], crashing), "rest"), images, labels)
    assert pairs == expected_pairs(bundles, images, labels, failing)
    assert champion == Arm(requests=found.requests)
    # Each by itself, and the batches that they were in; what came together with one of those failed too.
    batches = len(set(failing // 50))
    assert len(failing) == 3
    assert len(failing) + batches <= found.failed <= len(failing) + 7
    assert found.requests > 7 + len(failing)
    assert "500" in found.examples[0]


@pytest.mark.parametrize("has_gateway", [True, False])
def test_a_challenger_that_dies_in_the_middle_is_evidence(
    server: Server, gateway: Gateway, bundles: Bundles, questions: Questions, *, has_gateway: bool
) -> None:
    images, labels = (np.concatenate([values] * 15) for values in questions)
    with Server("--model_dir", str(bundles[1].directory)) as dying:
        gateway.routes[CHALLENGER] = dying.url
        # By its address, so that it leads to the champion and sees how far the questions are.
        address = gateway.url.partition("://")[2]
        gateway.routes[address] = server.url
        gateway.on_request = lambda *_: dying.popen.kill() if len(gateway.heads) > 10 else None
        arms = arms_behind(gateway, bundles)
        if not has_gateway:
            arms = arms_of(server, dying, bundles, "rest", champion_host=address)
        pairs, champion, found = compare(arms, images, labels)
    assert 0 < pairs.count < len(labels)
    assert champion.failed == 0
    assert found.failed >= ENOUGH_FAILURES
    assert found.requests < len(labels)
    assert found.examples


def test_answers_that_are_not_numbers_are_failures(server: Server, bundle: Bundle, questions: Questions, tmp_path: Path) -> None:
    images, labels = questions
    senseless = reweigh(bundle, tmp_path / "senseless", lambda weights: weights * np.nan)
    with Server("--model_dir", str(senseless.directory)) as faulty:
        for protocol in PROTOCOLS:
            arms = arms_of(server, faulty, (bundle, senseless), protocol)
            pairs, _, found = compare(arms, images, labels)
            _, timed = measure(arms, images, requests=10, warm_up=0)
            assert pairs.both_right + pairs.challenger_only == 0
            assert found.failed == ENOUGH_FAILURES
            assert "do not add up to 1" in found.examples[0]
            assert (timed.requests, timed.failed, timed.latencies_ms) == (10, 10, ())


def test_a_champion_that_fails_is_no_yardstick(
    challenger: Server, bundle: Bundle, bundles: Bundles, questions: Questions, tmp_path: Path
) -> None:
    crashing = alter(bundle, tmp_path / "crashing", partial(fail_on_ink, above=0.1))
    with Server("--model_dir", str(crashing.directory)) as faulty:
        arms = arms_of(faulty, challenger, (crashing, bundles[1]), "rest")
        with pytest.raises(ProbeError, match=r"the champion at .* failed twice, .*500"):
            compare(arms, *questions)
        with pytest.raises(ProbeError, match=rf"the champion at .* failed {ENOUGH_FAILURES} of"):
            measure(arms, questions[0], requests=200, warm_up=0)


def test_a_champion_may_fail_once(server: Server, gateway: Gateway, bundles: Bundles, questions: Questions) -> None:
    addresses = iter([f"http://127.0.0.1:{free_port()}"])

    def fail_once(host: str, head: str) -> None:
        del head
        if host == CHAMPION:
            gateway.routes[CHAMPION] = next(addresses, server.url)

    gateway.on_request = fail_once
    pairs, champion, _ = compare(arms_behind(gateway, bundles), *questions)
    assert pairs == expected_pairs(bundles, *questions)
    assert champion.failed == 1


ASKING: list[Callable[[Arms, Questions], Any]] = [
    lambda arms, questions: compare(arms, *questions),
    lambda arms, questions: measure(arms, questions[0], requests=20, warm_up=0),
]


@pytest.mark.parametrize("ask", ASKING, ids=["compare", "measure"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("side", ["champion", "challenger"])
def test_another_model_than_the_one_that_is_meant_is_not_judged(
    server: Server,
    challenger: Server,
    bundles: Bundles,
    questions: Questions,
    protocol: ProtocolName,
    side: str,
    ask: Callable[[Arms, Questions], Any],
) -> None:
    arms = arms_of(server, challenger, bundles, protocol, **{f"{side}_version": "99", "wake_seconds": 0.0})
    with pytest.raises(ProbeError, match=f"the {side} at .*: expected version 99 of the model to answer, got version"):
        ask(arms, questions)


@pytest.mark.parametrize("ask", ASKING, ids=["compare", "measure"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_gateway_that_is_not_reachable_is_named(
    server: Server,
    bundles: Bundles,
    questions: Questions,
    protocol: ProtocolName,
    ask: Callable[[Arms, Questions], Any],
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ProbeError, match="the gateway is not reachable"):
        ask(arms_of(server, server, bundles, protocol, gateway=nobody), questions)


def test_a_host_that_the_gateway_does_not_know_is_named(gateway: Gateway, bundles: Bundles, questions: Questions) -> None:
    arms = arms_behind(gateway, bundles, challenger_host="nobody.localhost", wake_seconds=0.0)
    with pytest.raises(ProbeError, match=r"the challenger at nobody\.localhost: the gateway leads nowhere by this host: 404"):
        compare(arms, *questions)


def test_the_first_questions_wait_for_a_model_that_was_asleep(gateway: Gateway, bundles: Bundles, questions: Questions) -> None:
    address = gateway.routes.pop(CHALLENGER)
    timer = threading.Timer(1.0, gateway.routes.update, [{CHALLENGER: address}])
    timer.start()
    pairs, _, found = compare(arms_behind(gateway, bundles), *questions)
    timer.join()
    assert pairs == expected_pairs(bundles, *questions)
    assert found.failed == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_challenger_that_does_not_wake_is_evidence_and_a_champion_an_error(
    server: Server, bundles: Bundles, questions: Questions, protocol: ProtocolName
) -> None:
    arms = arms_of(server, server, bundles, protocol, wake_seconds=0.0)
    nobody = f"127.0.0.1:{free_port()}"
    pairs, champion, found = compare(replace(arms, challenger_host=nobody), *questions)
    assert (pairs, champion, found.requests, found.failed) == (Pairs(), Arm(), 1, 1)
    assert "was not ready after 0 s" in found.examples[0]
    with pytest.raises(ProbeError, match=r"the champion at .* was not ready after 0 s"):
        compare(replace(arms, champion_host=nobody, challenger_version=bundles[0].version), *questions)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_request_is_timed_but_those_of_the_warm_up(
    server: Server, challenger: Server, bundles: Bundles, questions: Questions, protocol: ProtocolName
) -> None:
    for arm in measure(arms_of(server, challenger, bundles, protocol), questions[0][:7], requests=120, warm_up=30):
        assert (arm.requests, arm.failed, len(arm.latencies_ms)) == (150, 0, 120)
        assert min(arm.latencies_ms) > 0


def test_what_a_revision_takes_longer_is_its_own_alone(gateway: Gateway, bundles: Bundles, questions: Questions) -> None:
    gateway.delays[CHALLENGER] = 0.3
    champion, challenger = measure(arms_behind(gateway, bundles), questions[0], requests=24, warm_up=0)
    assert min(challenger.latencies_ms) >= 300
    assert min(champion.latencies_ms) < 300
    hosts = [next(line[6:] for line in head.splitlines() if line.startswith("host: ")) for head in gateway.heads]
    # Both at the same moments: neither is ever ahead by more than what is under way.
    ahead = np.cumsum([1 if host == CHAMPION else -1 for host in hosts])
    assert np.abs(ahead).max() <= 4


def test_timing_ends_at_its_deadline(
    gateway: Gateway, bundles: Bundles, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_DEADLINE_SECONDS", 1.0)
    gateway.delays[CHALLENGER] = 0.2
    begun = time.monotonic()
    champion, challenger = measure(arms_behind(gateway, bundles), questions[0], requests=5000, warm_up=0)
    # 5,000 would take more than four minutes.
    assert time.monotonic() - begun < 60
    assert 0 < challenger.requests == champion.requests < 5000
    assert challenger.failed == 0


def test_an_answer_that_never_comes_is_a_failure(gateway: Gateway, bundles: Bundles, questions: Questions) -> None:
    def hang(host: str, head: str) -> None:
        if host == CHALLENGER and "/ready" not in head:
            gateway.delays[CHALLENGER] = 3600.0

    gateway.on_request = hang
    arms = arms_behind(gateway, bundles, request_seconds=0.5)
    _, found = measure(arms, questions[0], requests=1000, warm_up=0)
    assert ENOUGH_FAILURES <= found.failed <= ENOUGH_FAILURES + 4
    assert "no answer in 0.5 s" in found.examples[0]


def test_who_comes_first_is_balanced_in_each_block_and_drawn() -> None:
    first = list(islice(turns(1), 1000))
    assert all(sum(first[start : start + 10]) == 5 for start in range(0, 1000, 10))
    assert len({tuple(first[start : start + 10]) for start in range(0, 1000, 10)}) > 20
    assert first == list(islice(turns(1), 1000))
    assert first != list(islice(turns(2), 1000))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"gateway": "127.0.0.1:8080"}, "gateway: expected an address like"),
        ({"gateway": "ftp://127.0.0.1"}, "gateway: expected an address like"),
        ({"gateway": "http://127.0.0.1/path"}, "gateway: expected an address like"),
        ({"gateway": "", "champion_host": ""}, "champion: expected an address like"),
    ],
)
def test_a_gateway_that_is_no_address_is_refused(change: dict[str, Any], says: str) -> None:
    arms = Arms(
        gateway="http://127.0.0.1:8080",
        champion_host="prev",
        challenger_host="latest",
        model_name="digits",
        champion_version="1",
        challenger_version="2",
    )
    with pytest.raises(ValueError, match=says):
        replace(arms, **change)
