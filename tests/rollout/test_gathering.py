"""While users are watched: what fails them ends it and rolls back, however much went well before; all else takes its time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from model.bundle import Bundle
from rollout import gathering, guards
from rollout.cluster import Pods, View
from rollout.decision import Outcome, Policy, decide
from rollout.evidence import GOLDEN, Arm, Evidence, Pairs, Watch
from rollout.gathering import Gathering
from rollout.probe import measure
from rollout.users import Users
from tests.processes import Server
from tests.rollout.api_server import ApiServer, PodServer
from tests.rollout.arms import arms_of

OLD, NEW = "digits-predictor-00001", "digits-predictor-00002"
POLICY = Policy()
LAST = len(POLICY.looks) - 1


@dataclass(eq=False)
class Pod(Collector):
    """Counts so many more requests, some of which failed, each time it is read."""

    requests: int = 0
    failed: int = 0
    readings: int = field(default=-1, init=False)

    def collect(self) -> Iterator[CounterMetricFamily]:
        self.readings += 1
        found = CounterMetricFamily("chiffre_requests", "Requests.", labels=["route", "status"])
        found.add_metric(["predict", "200"], self.readings * (self.requests - self.failed))
        found.add_metric(["predict", "500"], self.readings * self.failed)
        yield found


@contextmanager
def cluster_of(**pods: Pod) -> Iterator[ApiServer]:
    """With a pod of each revision, ``old`` and ``new``."""
    running = []
    with ApiServer() as api:
        for name, pod in pods.items():
            registry = CollectorRegistry()
            server, thread = start_http_server(0, "127.0.0.1", registry)
            registry.register(pod)
            # It reads a collector that is new, to know what it has.
            pod.readings = -1
            url = f"http://127.0.0.1:{server.server_port}"
            api.pods[name] = PodServer(url=url, revision={"old": OLD, "new": NEW}[name])
            running.append((server, thread))
        yield api
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join(10)


def view(*, has_champion: bool) -> View:
    pods = Pods(uri="", image="", mark="")
    tags = {"prev": OLD, "latest": NEW} if has_champion else {}
    return View(
        wanted=pods, newest=pods, runtime_image="", is_observed=True, created=NEW, newest_ready=NEW, rolled_out=OLD, tags=tags
    )


def witness(cluster: ApiServer, *, has_champion: bool = False, said: list[str] | None = None) -> Gathering:
    say = (said if said is not None else []).append
    seen = view(has_champion=has_champion)
    users = Users(cluster.core.api_client, "chiffre", "digits", lambda: seen, say)
    return Gathering("data/mnist", POLICY, users, say)


@pytest.fixture(autouse=True)
def _readings_follow_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_WATCH_SECONDS", 0.02)


def good(requests: int = 16_000) -> Evidence:
    """What promotes."""
    drawn = np.random.default_rng(0).lognormal(1, 0.3, (2, 4000)).tolist()
    champion, challenger = (Arm(latencies_ms=tuple(series), requests=requests) for series in drawn)
    pairs = Pairs(both_right=4850, champion_only=10, challenger_only=10, both_wrong=130, differing=25)
    evidence = Evidence(
        slices=dict.fromkeys((GOLDEN, "rotated", "noisy"), pairs), champion=champion, challenger=challenger, watch=Watch(number=3)
    )
    assert decide(evidence, POLICY, look=LAST).outcome is Outcome.PROMOTE
    return evidence


def test_a_challenger_that_fails_only_at_the_last_share_is_rolled_back_at_once() -> None:
    with cluster_of(new=Pod(requests=100, failed=3)) as cluster:
        begun = time.monotonic()
        found = witness(cluster).watch(None, good(), seconds=60)
        assert time.monotonic() - begun < 30
    verdict = decide(found, POLICY, look=LAST)
    assert (verdict.outcome, verdict.reason) == (Outcome.ROLLBACK, "errors")
    assert verdict.sentence.startswith("While users were watched, ")
    assert found.watch.number == 4
    assert found.watch.challenger.requests <= 500
    assert (found.challenger.requests, found.challenger.failed) == (
        16_000 + found.watch.challenger.requests,
        found.watch.challenger.failed,
    )
    # All of it together says nothing of the kind.
    assert decide(replace(found, watch=Watch()), POLICY, look=LAST).outcome is not Outcome.ROLLBACK


def test_failures_that_roll_nothing_back_do_not_end_it() -> None:
    with cluster_of(new=Pod(requests=50_000, failed=5)) as cluster:
        begun = time.monotonic()
        found = witness(cluster).watch(None, good(), seconds=1)
        assert time.monotonic() - begun >= 1
    assert found.watch.challenger.failed > 25
    assert decide(found, POLICY, look=LAST).outcome is Outcome.PROMOTE


@pytest.mark.parametrize("fails", [True, False])
def test_what_both_meet_at_the_same_time_is_nobodys_fault(*, fails: bool) -> None:
    with cluster_of(old=Pod(requests=100, failed=3 if fails else 0), new=Pod(requests=100, failed=3)) as cluster:
        found = witness(cluster, has_champion=True).watch(None, good(), seconds=1 if fails else 60)
    assert found.watch.champion.requests == found.watch.challenger.requests > 0
    assert (decide(found, POLICY, look=LAST).outcome is Outcome.ROLLBACK) != fails


def test_without_evidence_of_before_users_are_watched_all_the_same() -> None:
    with cluster_of(new=Pod(requests=100, failed=3)) as cluster:
        found = witness(cluster).watch(None, Evidence(), seconds=60)
    assert decide(found, POLICY, look=0).reason == "errors"
    with cluster_of(new=Pod(requests=100)) as cluster:
        found = witness(cluster).watch(None, Evidence(), seconds=0.2)
    assert decide(found, POLICY, look=0).outcome is Outcome.INCONCLUSIVE


def test_both_are_asked_meanwhile_and_that_is_not_taken_for_users(
    server: Server, challenger: Server, bundles: tuple[Bundle, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_users(*asked: Any, **more: Any) -> tuple[Arm, Arm]:
        for _ in range(7):
            httpx.post(challenger.predict_url, json={"instances": [[0.0] * 784]}, timeout=30).raise_for_status()
        return measure(*asked, **more)

    monkeypatch.setattr(gathering, "_WATCH_REQUESTS", 20)
    monkeypatch.setattr(gathering, "measure", with_users)
    said: list[str] = []
    with ApiServer() as cluster:
        cluster.pods = {"old": PodServer(url=server.url, revision=OLD), "new": PodServer(url=challenger.url, revision=NEW)}
        asking, arms = witness(cluster, has_champion=True, said=said), arms_of(server, challenger, bundles, "rest")
        found = asking.watch(arms, asking.watch(arms, Evidence(), seconds=0), seconds=0)
    assert said == ["users: 0 requests to the champion, 7 to the challenger"] * 2
    assert found.watch == Watch(number=2, champion=Arm(requests=70), challenger=Arm(requests=77))
    assert (found.champion.requests, found.challenger.requests, len(found.challenger.latencies_ms)) == (140, 154, 40)


def test_users_that_cannot_be_counted_are_said_and_count_as_nothing() -> None:
    said: list[str] = []
    with ApiServer() as cluster:
        gone = witness(cluster, said=said)
    assert gone.watch(None, good(), seconds=0).challenger == good().challenger
    assert said[0].startswith("users' requests are not counted: ")


Rates = Callable[[int], tuple[float, float]]
EQUAL: dict[str, Rates] = {
    "failing as often as is allowed": lambda _: (0.001, 0.001),
    "failing more": lambda _: (0.004, 0.004),
    "a cluster in trouble": lambda watch: (0.02, 0.02) if watch == 2 else (0.0005, 0.0005),
}


def failing(rates: Rates, generator: np.random.Generator) -> bool:
    """Whether a roll-out of 4 watches, looked at after each 500 requests to either, rolls back."""
    arms, evidence = [Arm(), Arm()], Evidence()
    for number in range(5):
        watched = [Arm(), Arm()]
        for _ in range(6):
            drawn = [Arm(requests=500, failed=int(generator.binomial(500, rate))) for rate in rates(number)]
            arms, watched = ([gathering.add_arms(*pair) for pair in zip(both, drawn, strict=True)] for both in (arms, watched))
            now = Watch(number=number, champion=watched[0], challenger=watched[1])
            evidence = Evidence(champion=arms[0], challenger=arms[1], watch=now)
            if guards.errors(evidence, POLICY).outcome is Outcome.ROLLBACK:
                return True
    return False


@pytest.mark.parametrize("kind", EQUAL)
def test_an_equal_challenger_is_seldom_rolled_back_however_often_it_is_looked_at(kind: str) -> None:
    generator = np.random.default_rng(28)
    # The guard may be wrong in 1 % of the roll-outs.
    assert sum(failing(EQUAL[kind], generator) for _ in range(100)) <= 3


def test_one_that_breaks_at_any_share_is_found_out() -> None:
    for share in range(1, 5):
        generator = np.random.default_rng(share)
        broken: Rates = lambda watch, share=share: (0.0, 0.03 if watch == share else 0.0)  # type: ignore[misc] # noqa: E731
        assert sum(failing(broken, generator) for _ in range(20)) == 20
