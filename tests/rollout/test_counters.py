"""What the servers count of users' requests, by revision, over pods that come, go and start again."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from model.bundle import Bundle, Floats, Labels
from model.demo import free_port
from rollout.counters import Counts, Pod, Reading, count, read, since
from tests.drill.challengers import alter
from tests.drill.graphs import fail_on_ink
from tests.processes import Server
from tests.questions import question
from tests.rollout.api_server import ApiServer, PodServer

Questions = tuple[Floats, Labels]
FIRST, SECOND = "digits-predictor-00001", "digits-predictor-00002"


@pytest.fixture(scope="module")
def faulty(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    crashing = alter(bundle, tmp_path_factory.mktemp("crashing") / "made", partial(fail_on_ink, above=0.5))
    with Server("--model_dir", str(crashing.directory)) as running:
        yield running


@pytest.fixture
def cluster() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


def ask(server: Server, value: float) -> int:
    return httpx.post(server.predict_url, json={"instances": [[value] * 784]}, timeout=30).status_code


def test_requests_and_failures_are_counted_by_revision(server: Server, faulty: Server, cluster: ApiServer) -> None:
    cluster.pods["one"] = PodServer(url=server.url, revision=FIRST)
    cluster.pods["two"] = PodServer(url=faulty.url, revision=SECOND)
    before = read(cluster.core, "chiffre", "digits")
    assert [ask(server, 0.0), ask(server, 2.0)] == [200, 400]
    assert [ask(faulty, 0.0), ask(faulty, 1.0)] == [200, 500]
    # Neither is a prediction.
    assert httpx.get(f"{faulty.url}/v2/models/digits/ready", timeout=10).is_success
    assert httpx.get(f"{faulty.url}/nowhere", timeout=10).status_code == 404
    with grpc.insecure_channel(faulty.grpc_address) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError):
            infer(question(np.ones((1, 28, 28), np.float32), is_raw=True).SerializeToString(), timeout=30)
    found = since(before, read(cluster.core, "chiffre", "digits"))
    assert found == {FIRST: Counts(requests=2), SECOND: Counts(requests=3, failed=2)}


def test_a_pod_that_did_not_answer_at_first_is_left_out_unless_it_was_not_ready(server: Server, cluster: ApiServer) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    cluster.pods["one"] = PodServer(url=server.url, revision=FIRST)
    cluster.pods["two"] = PodServer(url=dead, revision=FIRST)
    cluster.pods["three"] = PodServer(url=dead, revision=SECOND, is_ready=False)
    before = read(cluster.core, "chiffre", "digits")
    assert set(before) == {FIRST}
    assert before[FIRST]["one"]
    assert before[FIRST]["two"] is None
    for name in ("two", "three"):
        cluster.pods[name] = replace(cluster.pods[name], url=server.url, is_ready=True)
    assert ask(server, 0.0) == 200
    after = read(cluster.core, "chiffre", "digits")
    whole = after[SECOND]["three"]
    assert whole
    # Its life is no time with users.
    assert since(before, after) == {FIRST: Counts(requests=1), SECOND: whole.counts}
    assert whole.counts.requests > 1


def test_a_process_that_died_took_a_request_along(bundle: Bundle, cluster: ApiServer) -> None:
    with Server("--model_dir", str(bundle.directory), "--workers", "2") as server:
        cluster.pods["one"] = PodServer(url=server.url, revision=FIRST)
        before = read(cluster.core, "chiffre", "digits")
        children = Path(f"/proc/{server.popen.pid}/task/{server.popen.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        server.wait_for("a worker ended")
        deadline = time.monotonic() + 30
        while not (found := since(before, read(cluster.core, "chiffre", "digits")))[FIRST].deaths:
            assert time.monotonic() < deadline
    assert found == {FIRST: Counts(deaths=1)}


def pods(**found: tuple[int, int, int, int]) -> Reading:
    return {
        FIRST: {
            name: Pod(counts=Counts(requests=requests, failed=failed, deaths=deaths), restarts=restarts)
            for name, (requests, failed, deaths, restarts) in found.items()
        }
    }


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (pods(a=(9, 1, 0, 0)), pods(a=(12, 3, 1, 0)), Counts(requests=3, failed=2, deaths=1)),
        (pods(), pods(a=(5, 1, 0, 0)), Counts(requests=5, failed=1)),
        (pods(a=(9, 1, 0, 0), b=(4, 0, 0, 0)), pods(b=(6, 0, 0, 0)), Counts(requests=2)),
        # A container that started again, whose counts are already higher than before.
        (pods(a=(9, 1, 2, 1)), pods(a=(12, 1, 0, 3)), Counts(requests=12, failed=1, deaths=2)),
        (pods(a=(9, 1, 2, 1)), pods(a=(4, 1, 0, 1)), Counts(requests=4, failed=1)),
    ],
    ids=["counted on", "new", "gone", "started again", "started again just now"],
)
def test_readings_are_compared_pod_by_pod(before: Reading, after: Reading, expected: Counts) -> None:
    assert since(before, after) == {FIRST: expected}


def test_what_are_no_metrics_is_refused() -> None:
    assert count("") == Counts()
    with pytest.raises(ValueError, match="Invalid"):
        count("<html>not { these }</html>")
