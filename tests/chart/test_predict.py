"""What `helm test` runs, and the command in the notes, against a real server."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from model.bundle import Bundle
from model.demo import free_port
from tests.chart.rendering import containers, notes, render
from tests.processes import ROOT, Server


def predict(server: Server, values: dict[str, Any], **flags: str) -> subprocess.CompletedProcess[str]:
    """Run the test container's command here, with other values for some of its flags."""
    container = containers(render(values))["predict"]
    script, *rest = container["args"]
    given = dict(zip(rest[::2], rest[1::2], strict=True))
    address = server.grpc_address if values.get("protocol") == "grpc" else server.url.removeprefix("http://")
    given |= {"--address": address, "--least_accuracy": "0.9", **{f"--{name}": value for name, value in flags.items()}}
    command = [sys.executable, *container["command"][1:], script, *[word for pair in given.items() for word in pair]]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_right_answers_pass(server: Server, bundle: Bundle, protocol: str) -> None:
    done = predict(server, {"protocol": protocol, "model": {"uri": "pvc://models/digits"}})
    assert done.returncode == 0, done.stderr
    assert "of 200 labels are right" in done.stdout
    assert f"from version {bundle.version}\n" in done.stdout


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_another_version_fails(server: Server, bundle: Bundle, protocol: str) -> None:
    done = predict(server, {"protocol": protocol, "model": {"uri": "mlflow://digits/17"}})
    assert done.returncode == 1
    assert done.stderr == f"x-model-version: expected 17, got '{bundle.version}'\n"


@pytest.mark.parametrize(
    ("flags", "says"), [({"least_accuracy": "1.01"}, "expected 101%"), ({"model_name": "letters"}, "no answer")]
)
def test_wrong_answers_and_models_fail(server: Server, flags: dict[str, str], says: str) -> None:
    done = predict(server, {"model": {"uri": "pvc://models/digits"}}, timeout_seconds="1", **flags)
    assert done.returncode == 1
    assert says in done.stderr


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_no_answer_fails_when_the_time_is_over(server: Server, protocol: str) -> None:
    values = {"protocol": protocol, "model": {"uri": "pvc://models/digits"}}
    done = predict(server, values, address=f"127.0.0.1:{free_port()}", timeout_seconds="1")
    assert done.returncode == 1
    assert done.stderr.startswith("no answer within 1 s: ")


def test_the_command_in_the_notes_gives_what_they_say(server: Server) -> None:
    said = notes("knative-rest")
    assert "The answer's label is 7" in said
    (command,) = [line.strip() for line in said.splitlines() if line.strip().startswith("curl ")]
    environment = {**os.environ, "GATEWAY": server.url, "HOST": "digits-predictor.chiffre.example"}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout)["predictions"][0]["label"] == 7


@pytest.mark.parametrize("name", ["knative-grpc", "canary"])
def test_notes_of_other_ways(name: str) -> None:
    said = notes(name)
    assert ("curl" in said) == (name == "canary")
    assert ("10 % of the traffic" in said) == (name == "canary")
    assert "helm test digits --namespace chiffre" in said
