"""A sound server says no to all that is bad and goes on; one that does not is found out, and nothing waits for it for long."""

import threading
from functools import partial
from pathlib import Path

import pytest
from kubernetes import client

from model.bundle import Bundle
from model.demo import free_port
from rollout.corpus import grpc_cases, rest_cases
from rollout.decision import Policy, decide
from rollout.gathering import Gathering
from rollout.probe import NotReadyError, ProbeError, check_bad_input
from rollout.questions import ProtocolName
from rollout.users import Users
from tests.drill.challengers import alter
from tests.drill.graphs import fail_on_ink
from tests.processes import Server
from tests.rollout.arms import CHALLENGER, arms_behind, arms_of
from tests.rollout.gateway import Gateway

Bundles = tuple[Bundle, Bundle]
PROTOCOLS: tuple[ProtocolName, ...] = ("rest", "grpc")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_sound_server_answers_all_as_it_must(
    server: Server, challenger: Server, bundles: Bundles, protocol: ProtocolName
) -> None:
    assert check_bad_input(arms_of(server, challenger, bundles, protocol)) == ()


def test_a_gateway_changes_nothing_and_sees_only_marked_requests(gateway: Gateway, bundles: Bundles) -> None:
    assert check_bad_input(arms_behind(gateway, bundles)) == ()
    assert len(gateway.heads) == len(list(rest_cases("digits")))
    assert all("x-shadow: 1" in head for head in gateway.heads)
    assert all(case.request.headers["x-shadow"] == "1" for case in grpc_cases("digits"))
    assert {f"host: {CHALLENGER}"} == {line for head in gateway.heads for line in head.splitlines() if line.startswith("host")}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_fails_on_odd_input_is_found_out(
    server: Server, bundle: Bundle, tmp_path: Path, protocol: ProtocolName
) -> None:
    crashing = alter(bundle, tmp_path / "crashing", partial(fail_on_ink, above=0.6))
    with Server("--model_dir", str(crashing.directory)) as faulty:
        lines = check_bad_input(arms_of(server, faulty, (bundle, crashing), protocol))
    assert {line.partition(":")[0].removeprefix("V1, ").removeprefix("V2, ") for line in lines} == {"an image all ink"}
    assert all("expected it to be answered, got " in line for line in lines)


def test_a_server_that_takes_anything_is_found_out(gateway: Gateway, bundles: Bundles) -> None:
    head = f"HTTP/1.1 200 OK\r\nx-model-version: {bundles[1].version}\r\ncontent-length: 2\r\n\r\n"
    gateway.answers[CHALLENGER] = head.encode() + b"{}"
    lines = check_bad_input(arms_behind(gateway, bundles))
    assert len(lines) == 5
    assert lines[0] == "V1, nothing: expected it to be refused, got 200 {}"


def test_a_server_that_dies_of_it_ends_the_check(gateway: Gateway, bundles: Bundles) -> None:
    def die(host: str, head: str) -> None:
        if host == CHALLENGER and "/repository/" in head:
            gateway.routes[CHALLENGER] = f"http://127.0.0.1:{free_port()}"

    gateway.on_request = die
    lines = check_bad_input(arms_behind(gateway, bundles, request_seconds=1.0))
    assert lines == (
        "a path nobody knows: expected it to be refused, got 503 no pods",
        "a path nobody knows: the model was not ready in the 1 s after it",
    )


def test_a_server_that_hangs_is_not_waited_for(gateway: Gateway, bundles: Bundles) -> None:
    def hang(host: str, head: str) -> None:
        del head
        gateway.delays[host] = 3600.0

    gateway.on_request = hang
    lines = check_bad_input(arms_behind(gateway, bundles, request_seconds=0.5))
    assert lines[0] == "V1, nothing: expected an answer, got none: no answer in 0.5 s"
    assert len(lines) == 2


def test_what_fails_once_is_asked_again(gateway: Gateway, challenger: Server, bundles: Bundles) -> None:
    asked: list[str] = []
    # The gateway tells nobody of questions about readiness.
    mended = threading.Timer(0.5, gateway.routes.update, [{CHALLENGER: challenger.url}])

    def fail_once(host: str, head: str) -> None:
        if "/repository/" not in head:
            return
        asked.append(head)
        if len(asked) == 1:
            gateway.routes[host] = f"http://127.0.0.1:{free_port()}"
            mended.start()

    gateway.on_request = fail_once
    assert check_bad_input(arms_behind(gateway, bundles)) == ()
    mended.join()
    assert len(asked) == 2


def test_a_challenger_that_does_not_wake_up_is_not_ready(server: Server, bundles: Bundles) -> None:
    arms = arms_of(server, server, bundles, "rest", challenger_host=f"127.0.0.1:{free_port()}", wake_seconds=0.0)
    with pytest.raises(NotReadyError, match=r"the challenger at .* was not ready after 0 s"):
        check_bad_input(arms)
    users = Users(client.ApiClient(), "chiffre", "digits", lambda: pytest.fail("nobody is to be asked"), print)
    evidence = Gathering("data/mnist", Policy(), users, print).begin(arms)
    assert decide(evidence, Policy(), look=0).reason == "not_ready"


def test_without_a_gateway_nobody_is_judged(server: Server, bundles: Bundles) -> None:
    with pytest.raises(ProbeError, match="the gateway is not reachable"):
        check_bad_input(arms_of(server, server, bundles, "rest", gateway=f"http://127.0.0.1:{free_port()}"))
