"""Live requests come from the champion's pods through the API server, and go to the challenger once."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import httpx
import pytest
from kubernetes import client

from model.bundle import Bundle, Floats, Labels
from model.demo import free_port
from rollout import shadow
from rollout.counters import count
from rollout.questions import GrpcQuestions, ProtocolName
from rollout.revision import ENOUGH_FAILURES
from rollout.shadow import PORT, Sample, ShadowError, mirror, parse, sample
from tests.drill.challengers import alter
from tests.drill.graphs import fail_on_ink
from tests.processes import Server
from tests.questions import binary_request, question
from tests.rollout.api_server import ApiServer, PodServer
from tests.rollout.arms import arms_of

Bundles = tuple[Bundle, Bundle]
Questions = tuple[Floats, Labels]
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def shadow_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def champion(bundles: Bundles, shadow_port: int) -> Iterator[Server]:
    flags = ("--shadow_requests", "16", "--shadow_port", str(shadow_port))
    with Server("--model_dir", str(bundles[0].directory), *flags) as running:
        yield running


@pytest.fixture
def cluster(champion: Server, shadow_port: int) -> Iterator[ApiServer]:
    with ApiServer() as running:
        running.pods["digits-1"] = PodServer(url=champion.url, revision="digits-00001", ports={PORT: shadow_port})
        running.pods["digits-2"] = replace(running.pods["digits-1"], ports={})
        yield running


def answered(server: Server) -> int:
    return count(httpx.get(f"{server.url}/metrics", timeout=10).text).requests


def as_user(champion: Server, image: Floats, protocol: ProtocolName) -> None:
    """One request; the next one that is kept is due a tenth of a second later."""
    if protocol == "grpc":
        with grpc.insecure_channel(champion.grpc_address) as channel:
            channel.unary_unary(INFER)(question(image[None], is_raw=True).SerializeToString(), timeout=30)
    else:
        content, headers = binary_request(image[None])
        httpx.post(champion.infer_url, content=content, headers=headers, timeout=30).raise_for_status()


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_what_a_user_asked_the_champion_is_asked_the_challenger_once(
    champion: Server, challenger: Server, cluster: ApiServer, bundles: Bundles, questions: Questions, protocol: ProtocolName
) -> None:
    as_user(champion, questions[0][0], protocol)
    path = INFER if protocol == "grpc" else "/v2/models/digits/infer"
    samples = [one for one in sample(cluster.core, "chiffre", ["digits-1"]) if one.path == path]
    assert samples
    assert samples[-1].id.startswith("digits-1/")
    assert questions[0][0].tobytes() in samples[-1].body
    arms, before = arms_of(champion, challenger, bundles, protocol), answered(challenger)
    found = mirror(samples, arms, most=100)
    assert (found.requests, found.failed) == (len(samples), 0)
    assert answered(challenger) == before + len(samples)
    # What is mirrored is no live request that would be mirrored again.
    ids = [one.id for one in sample(cluster.core, "chiffre", ["digits-1"])]
    assert mirror(samples, arms_of(champion, champion, (bundles[0], bundles[0]), protocol), most=100).failed == 0
    assert [one.id for one in sample(cluster.core, "chiffre", ["digits-1"])] == ids


def test_pods_that_show_nothing_are_left_out_unless_all_do(cluster: ApiServer) -> None:
    assert sample(cluster.core, "chiffre", ["digits-2", "gone", "digits-1"]) == sample(cluster.core, "chiffre", ["digits-1"])
    assert sample(cluster.core, "chiffre", []) == []
    with pytest.raises(
        ShadowError, match=r"pod digits-2: nothing is shown at port 8082 .*refused.*; is shadow\.requests above 0\?"
    ):
        sample(cluster.core, "chiffre", ["digits-2"])
    with pytest.raises(ShadowError, match="pod gone: its ports cannot be forwarded"):
        sample(cluster.core, "chiffre", ["gone"])


def test_another_server_at_the_port_is_said(cluster: ApiServer, champion: Server) -> None:
    cluster.pods["digits-1"].ports[PORT] = int(champion.url.rpartition(":")[2])
    with pytest.raises(ShadowError, match="pod digits-1: expected 200 of /samples, got 404"):
        sample(cluster.core, "chiffre", ["digits-1"])


def test_a_pod_that_does_not_answer_is_not_waited_for(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "_ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cluster.pods["digits-1"].ports[PORT] = silent.getsockname()[1]
        with pytest.raises(ShadowError, match=r"pod digits-1: nothing is shown at port 8082 \(TimeoutError"):
            sample(cluster.core, "chiffre", ["digits-1"])


def test_an_api_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "_POD_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        core = client.CoreV1Api(client.ApiClient(client.Configuration(host=address)))
        with pytest.raises(ShadowError, match=r"pod digits-1: its ports were not forwarded in 0\.5 s"):
            sample(core, "chiffre", ["digits-1"])
    for thread in threading.enumerate():
        if thread.name == "samples of digits-1":
            thread.join(20)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"requests": 7}', b'{"requests": [{"id": 1}]}', b'{"requests": [{"body": "7"}]}']
)
def test_what_is_no_list_of_requests_is_refused(content: bytes) -> None:
    with pytest.raises(ShadowError, match="pod digits-1: expected a list of requests at /samples"):
        parse(content, "digits-1")


def live(number: int, image: Floats) -> Sample:
    content, headers = binary_request(image[None])
    return Sample(id=f"digits-1/{number}", path="/v2/models/digits/infer", headers=headers, body=content)


def test_what_the_challenger_fails_is_counted_and_no_more_than_asked_for_is_sent(
    server: Server, bundle: Bundle, questions: Questions, tmp_path: Path
) -> None:
    samples = [live(number, image) for number, image in enumerate(questions[0])]
    crashing = alter(bundle, tmp_path / "crashing", partial(fail_on_ink, above=0.0))
    with Server("--model_dir", str(crashing.directory)) as faulty:
        arms = arms_of(server, faulty, (bundle, crashing), "rest")
        few = mirror(samples, arms, most=5)
        many = mirror(samples, arms, most=1000)
    assert (few.requests, few.failed) == (5, 5)
    assert "/v2/models/digits/infer: 500" in few.examples[0]
    assert ENOUGH_FAILURES <= many.failed == many.requests < len(samples)


def test_who_asks_for_the_champion_by_its_number_is_not_asked_again(
    server: Server, challenger: Server, bundles: Bundles, questions: Questions
) -> None:
    messages = [question(questions[0][:1], is_raw=True, model_version=version) for version in ("", bundles[0].version)]
    samples = [
        Sample(id=str(number), path=INFER, headers={}, body=message.SerializeToString())
        for number, message in enumerate(messages)
    ]
    found = mirror(samples, arms_of(server, challenger, bundles, "grpc"), most=10)
    assert (found.requests, found.failed) == (1, 0)
    assert GrpcQuestions("digits").names_version(samples[1].body)
