"""What nobody thought of ends with a sentence and 3, never with 1: that says that the challenger was rolled back."""

import json
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest

from rollout import cli
from rollout.__main__ import main
from rollout.cluster import Cluster
from rollout.errors import RolloutError
from rollout.versions import Versions
from tests.processes import run
from tests.rollout.gateway import Gateway


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device"), "error: OSError: [Errno 28] No space left on device\n"),
        (ValueError("looks: expected\nnumbers"), "error: ValueError: looks: expected numbers\n"),
        (json.JSONDecodeError("Expecting value", "x", 0), "error: JSONDecodeError: Expecting value: line 1 column 1 (char 0)\n"),
    ],
)
def test_a_surprise_is_a_sentence(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert surprised(error, monkeypatch) == 3
    assert capsys.readouterr().err == says


@pytest.mark.parametrize("error", [KeyError("version"), RuntimeError()])
def test_a_bug_says_where_it_is(error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert surprised(error, monkeypatch) == 3
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last)")
    assert said.splitlines()[-1] == f"error: {type(error).__name__}{': ' if str(error) else ''}{error}"


def surprised(error: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    def parse(words: list[str]) -> NoReturn:
        del words
        raise error

    monkeypatch.setattr(cli, "parse", parse)
    return main()


def test_the_process_ends_with_that_code(tmp_path: Path) -> None:
    code, said = run("rollout", "verify", "--record", str(tmp_path / "record.json"), "--margin_points", "0")
    assert (code, said) == (3, "error: margin_points: expected points, more than 0 and at most 100, got 0.0")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("- a list")
    code, said = run("rollout", "status", "--release", "digits", KUBECONFIG=str(kubeconfig))
    assert code == 3
    assert said.startswith(f"error: KUBECONFIG: {kubeconfig}: expected a kubeconfig in YAML, got what cannot be read as one: ")


@pytest.mark.parametrize("content", ["- a list", "a text", "{", "{clusters: 3}", "", "\x00"])
def test_what_is_no_kubeconfig_is_refused(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(RolloutError, match=f"^KUBECONFIG: {path}: "):
        Cluster("chiffre")


@pytest.mark.parametrize("content", ["<html>log in</html>", "[]", "{}", '{"model_version": null}'])
def test_what_is_no_answer_of_a_registry_is_refused(content: str) -> None:
    with Gateway({}) as gateway:
        host = urlsplit(gateway.url).netloc
        gateway.routes[host] = gateway.url
        gateway.answers[host] = f"HTTP/1.1 200 OK\r\ncontent-length: {len(content)}\r\n\r\n{content}".encode()
        versions = Versions({"MLFLOW_TRACKING_URI": gateway.url})
        with pytest.raises(RolloutError, match=r"^tracking_uri: .* answered no version of a model, with 200: ") as raised:
            versions.champion("digits")
        versions.close()
    assert str(raised.value).endswith(content)
