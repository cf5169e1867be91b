"""The command line against a release: promoted, rolled back, held, killed, stopped, refused."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from model.bundle import Bundle
from rollout import location
from rollout.__main__ import main
from tests.processes import ROOT
from tests.rollout.arms import disturb, reweigh
from tests.rollout.site import POLICY, Site, enrol, open_site
from tests.tools import HELM

Command = Callable[..., tuple[int, str]]
ONE, EQUAL, WORSE = (f"mlflow://digits/{number}" for number in (1, 2, 3))


@pytest.fixture(scope="module")
def whole(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    copies = [reweigh(bundle, folder / str(number), lambda weights: weights) for number in (1, 2)]
    with open_site([*copies, reweigh(bundle, folder / "3", disturb)], folder) as site:
        yield site


@pytest.fixture
def site(whole: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    whole.reset()
    for name, value in whole.environment.items():
        monkeypatch.setenv(name, value)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield whole
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in this process: exit code and output."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["rollout", *arguments])
        capsys.readouterr()
        code = main()
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def start(output: Path, version: int = 2, *more: str) -> list[str]:
    return ["start", "--release", "digits", "--model-version", str(version), "--output", str(output), *POLICY, *more]


def champion(site: Site) -> str:
    return str(site.client.get_model_version_by_alias("digits", "champion").version)


def leases(site: Site) -> list[str]:
    return [name for plural, _, name in site.store.objects if plural == "leases"]


def test_an_equal_challenger_is_promoted(site: Site, command: Command, tmp_path: Path) -> None:
    code, said = command(*start(tmp_path))
    assert code == 0, said
    shares = ("0 %", "5 %", "25 %", "50 %", "100 %", "promoted")
    told = [f"roll-out of version 2: {what} (from version 1 of revision 1)" for what in shares]
    assert site.history() == ["Install complete", *told]
    assert site.traffic() == {EQUAL: 100}
    assert champion(site) == "2"
    assert leases(site) == []
    reasons = [event["reason"] for event in site.events()]
    assert reasons == [*["RolloutStep"] * 5, "RolloutPromoted"]
    evidence = json.loads((tmp_path / "evidence.json").read_text())
    assert (evidence["outcome"], evidence["release"], evidence["champion"]["version"]) == ("PROMOTE", "digits", "1")
    assert [step["percent"] for step in evidence["steps"]] == [0, 5, 25, 50, 100]
    assert "| golden | PROMOTE |" in (tmp_path / "summary.md").read_text()
    code, said = command("status", "--release", "digits", "--json")
    assert json.loads(said)["rollout"]["stage"] == "promoted"
    # What is done is done: the same command is a success, and changes nothing.
    history = site.history()
    code, said = command(*start(tmp_path))
    assert code == 0, said
    assert (site.history(), json.loads((tmp_path / "evidence.json").read_text())["steps"]) == (history, evidence["steps"])


def test_a_worse_challenger_is_rolled_back_and_meets_no_user(
    site: Site, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    code, said = command(*start(tmp_path, 3))
    assert code == 1, said
    assert site.history()[-2:] == [
        "roll-out of version 3: putting back, accuracy (from version 1 of revision 1)",
        "roll-out of version 3: rolled back, accuracy (from version 1 of revision 1)",
    ]
    assert site.traffic() == {ONE: 100}
    assert champion(site) == "1"
    assert json.loads((tmp_path / "evidence.json").read_text())["reason"] == "accuracy"
    assert site.events()[-1]["reason"] == "RolloutRolledBack"
    assert "ROLLBACK (accuracy) at 0 %" in (tmp_path / "step.md").read_text()
    assert not (tmp_path / "record.json").exists()


def test_one_that_is_never_ready_is_rolled_back(site: Site, command: Command, tmp_path: Path) -> None:
    site.store.never_ready.add(EQUAL)
    code, said = command(*start(tmp_path, 2, "--ready_seconds", "3"))
    assert code == 1, said
    assert json.loads((tmp_path / "evidence.json").read_text())["reason"] == "not_ready"
    assert site.traffic() == {ONE: 100}


def test_it_pauses_goes_on_and_comes_back(site: Site, command: Command, tmp_path: Path) -> None:
    paused = start(tmp_path, 2, "--pause_at", "25")
    assert command(*paused)[0] == 2
    assert site.traffic() == {ONE: 75, EQUAL: 25}
    code, said = command("status", "--release", "digits")
    assert (code, "25 %, paused" in said) == (0, True)
    assert command("promote", "--release", "digits", "--output", str(tmp_path), *POLICY[:-2])[0] == 0
    assert site.traffic() == {EQUAL: 100}
    assert command("watch", "--release", "digits")[0] == 0
    assert command("rollback", "--release", "digits", "--reason", "the page is slow", "--output", str(tmp_path))[0] == 0
    assert site.history()[-1] == "roll-out of version 2: rolled back, the page is slow (from version 1 of revision 1)"
    assert (site.traffic(), champion(site)) == ({ONE: 100}, "1")
    assert command("watch", "--release", "digits")[0] == 1


def test_the_champion_against_itself(site: Site, command: Command, tmp_path: Path) -> None:
    code, said = command("aa", "--release", "digits", "--rounds", "2", "--output", str(tmp_path), *POLICY[:-2])
    assert code == 0, said
    assert "false alarms: 0 of 2" in said
    assert site.traffic() == {ONE: 100}
    assert "podAnnotations" not in site.helm("get", "values", "digits").replace("podAnnotations: {}", "")
    assert len(json.loads((tmp_path / "alarms.json").read_text())["verdicts"]) == 2
    # Each round asked for itself.
    rounds = [json.loads((tmp_path / f"round-{number}" / "evidence.json").read_text())["steps"] for number in (1, 2)]
    latencies = [[step["evidence"]["challenger"]["latencies_ms"] for step in steps] for steps in rounds]
    assert latencies[0] != latencies[1]


def test_without_a_registry_users_are_put_back_and_the_rest_is_said(
    site: Site, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*start(tmp_path, 2, "--steps", "100"))[0] == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    code, said = command("rollback", "--release", "digits", "--output", str(tmp_path))
    assert (code, "who is called champion is not known: tracking_uri: expected MLflow's address" in said) == (3, True), said
    assert (site.traffic(), champion(site)) == ({ONE: 100}, "2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", site.tracking_uri)
    assert command("rollback", "--release", "digits", "--output", str(tmp_path))[0] == 0
    assert champion(site) == "1"


def test_a_plan_changes_nothing(site: Site, command: Command) -> None:
    code, said = command("plan", "--release", "digits", "--model-version", "2")
    assert (code, "golden images: " in said, "minutes" in said) == (0, True, True)
    assert len(site.history()) == 1


def test_killed_in_the_middle_it_goes_on(site: Site, command: Command, tmp_path: Path) -> None:
    with site.process(*start(tmp_path)) as process:
        process.wait_for(": 5 % (")
        process.popen.kill()
        assert process.wait() == -signal.SIGKILL
    # Its lease names a process that is gone.
    assert leases(site) == ["rollout-digits"]
    code, said = command(*start(tmp_path))
    assert code == 0, said
    assert site.traffic() == {EQUAL: 100}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_stays_and_meanwhile_another_is_refused(
    number: signal.Signals, site: Site, command: Command, tmp_path: Path
) -> None:
    with site.process(*start(tmp_path, 2, "--step_seconds", "60")) as process:
        process.wait_for(": 5 % (")
        code, said = command(*start(tmp_path))
        assert (code, "another roll-out is on, by " in said) == (3, True)
        process.popen.send_signal(number)
        assert process.wait() == 128 + number
        assert "the release stays where it is" in process.output
    assert leases(site) == []
    assert site.traffic() == {ONE: 95, EQUAL: 5}


def test_where_helm_fails_half_way_the_release_is_put_back(site: Site, command: Command, tmp_path: Path) -> None:
    site.store.fail_next.append("servingruntimes")
    code, said = command(*start(tmp_path))
    assert (code, "etcd is away; release digits is where it was" in said) == (3, True)
    assert site.history()[-1] == "Rollback to 1"
    assert site.traffic() == {ONE: 100}
    assert command(*start(tmp_path))[0] == 0


def test_a_helm_that_was_killed_is_waited_for_and_its_upgrade_put_back(
    site: Site, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.store.goes_on.clear()
    words = [
        "upgrade",
        "digits",
        "helm/chiffre",
        "--namespace",
        "chiffre",
        "--reset-then-reuse-values",
        "--set",
        "canary.percent=0",
    ]
    helm = subprocess.Popen([str(HELM), *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(site.history()) == 1:
        assert time.monotonic() < deadline
    helm.kill()
    helm.wait(10)
    site.store.goes_on.set()
    monkeypatch.setattr(location, "_PENDING_SECONDS", 1.0)
    code, said = command(*start(tmp_path))
    assert code == 0, said
    assert "Helm left revision 2 pending-upgrade: putting revision 1 back" in said
    assert site.history()[2] == "Rollback to 1"
    assert site.traffic() == {EQUAL: 100}


def test_a_version_without_a_bundle_is_refused(site: Site, command: Command, bundle: Bundle, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "model.onnx").write_bytes(b"")
    number = enrol(site.client, replace(bundle, directory=empty)).version
    code, said = command(*start(tmp_path, int(number)))
    assert (code, f"version {number} of digits has no bundle.json" in said) == (3, True)


BAD: dict[str, tuple[dict[str, str], list[str], str]] = {
    "release": ({}, ["--release", "figures"], "release: not found"),
    "namespace": ({}, ["--namespace", "elsewhere"], "release: not found"),
    "version": ({}, ["--model-version", "4711"], "model_version: version 4711 of digits: "),
    "champion": ({}, ["--model-version", "1"], "model_version: version 1 is what the release serves already"),
    "number": ({}, ["--model-version", "champion"], "model_version: expected a version's number, got 'champion'"),
    "cluster": ({"KUBECONFIG": "/nonexistent"}, [], "KUBECONFIG: "),
    "helm": ({"PATH": "/nonexistent"}, [], "helm: not found on PATH"),
    "gateway": ({}, ["--gateway", "http://127.0.0.1:9"], "gateway: expected the address of the cluster's ingress"),
    "scheme": ({}, ["--gateway", "localhost"], "gateway: expected the address of the cluster's ingress"),
    "registry": ({}, ["--tracking_uri", "sqlite:///mlflow.db"], "tracking_uri: MLFLOW_TRACKING_URI: expected http"),
    "no registry": ({}, ["--tracking_uri", ""], "tracking_uri: expected MLflow's address"),
    "steps": ({}, ["--steps", "50,5"], "steps: expected rising percentages that end with 100"),
    "pause": ({}, ["--pause_at", "7"], "pause_at: expected 0 or one of the steps below 100"),
    "policy": ({}, ["--error_rate", "2"], "error_rate: expected a share between 0 and 0.5"),
    "path": ({}, ["--gateway", "http://127.0.0.1:9/digits"], "gateway: expected the address of the cluster's ingress"),
    "data": ({}, ["--data_dir", "nowhere"], "data_dir: nowhere/SHA256SUMS: missing"),
    "output": ({}, ["--output", "pyproject.toml"], "output: pyproject.toml is no directory to write to"),
    "image": ({}, ["--image", "chiffre"], "image: expected REPOSITORY:TAG or REPOSITORY@sha256:..."),
    "option": ({}, ["--modelversion", "2"], "unrecognized arguments"),
    "seconds": ({}, ["--step_seconds", "soon"], "expected a number of seconds"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_cannot_be_done_is_said_in_a_sentence_and_changes_nothing(
    case: str, site: Site, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment, words, expected = BAD[case]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, said = command(*start(tmp_path, 2, *words))
    assert (code, said.count("\n")) == (3, 1), said
    assert said.startswith("error: ")
    assert expected in said
    assert len([name for plural, _, name in site.store.objects if plural == "secrets"]) == 1
    assert leases(site) == []


def test_a_release_in_standard_mode_is_refused(site: Site, command: Command, tmp_path: Path) -> None:
    site.install("plain", "--set", "mode=Standard,storageContainer.create=false")
    code, said = command(*start(tmp_path, 2, "--release", "plain"))
    assert (code, "runs in Standard mode, where KServe has no canary" in said) == (3, True)


@pytest.mark.usefixtures("site")
def test_a_cluster_that_does_not_answer_is_said(
    site: Site, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = tmp_path / "kubeconfig"
    shutil.copyfile(site.kubeconfig, dead)
    text = dead.read_text()
    port = text.split("127.0.0.1:")[1].split("\n")[0]
    dead.write_text(text.replace(port, "9"))
    monkeypatch.setenv("KUBECONFIG", str(dead))
    code, said = command(*start(tmp_path))
    assert (code, said.count("\n")) == (3, 1), said
    assert "unreachable" in said


@pytest.mark.usefixtures("site")
def test_the_record_of_a_promotion_is_verified(command: Command, tmp_path: Path) -> None:
    digest = "a" * 64
    # Its image is new, and its model is the champion's.
    words = start(tmp_path, 1, "--image", f"dev.local/chiffre-serve@sha256:{digest}")
    assert command(*words)[0] == 0
    # Begun again when all is done, it records the same once more.
    (tmp_path / "record.json").unlink()
    assert command(*words)[0] == 0
    code, said = command(
        "verify",
        "--record",
        str(tmp_path / "record.json"),
        "--image_digest",
        digest,
        "--error_rate",
        "0.1",
        "--latency_ms",
        "5000",
        "--latency_requests",
        "100",
    )
    assert (code, "a promotion that its evidence bears out" in said) == (0, True), said
    assert command("verify", "--record", str(tmp_path / "record.json"), "--image_digest", "b" * 64)[0] == 1
