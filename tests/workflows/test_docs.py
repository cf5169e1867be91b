"""The pages about clouds: their commands in their order, and a server with the arguments that Cloud Run gives it."""

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from model.bundle import Bundle
from model.demo import free_port
from tests.processes import Process
from tests.workflows.rehearsal import Rehearsal
from tests.workflows.standin import DIGEST, ROOT

PAGES = [ROOT / "docs" / name for name in ("deploy-gke.md", "deploy-cloud-run.md")]
_PORT = "8080"
# What a release has by itself.
_REUSED = "--reset-then-reuse-values", "--set model.uri=mlflow://digits/1"
# What Cloud Run leaves a process after SIGTERM.
_STOP_SECONDS = 10


def script(page: Path) -> str:
    return "".join(re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL))


@pytest.fixture
def rehearsal(tmp_path: Path) -> Rehearsal:
    return Rehearsal(tmp_path)


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])
def test_the_commands_follow_each_other(rehearsal: Rehearsal, page: Path) -> None:
    done = rehearsal.run(f"set -u\n{script(page)}")
    assert done.code == 0, done.output
    # None was lost in a pipe or a substitution.
    lines = [line for line in script(page).splitlines() if re.match(r"(gcloud|gh|helm|kubectl|locust|make|python) ", line)]
    assert len(done.calls) >= len(lines) > 10
    images = [call[call.index("--image") + 1] for call in done.calls if call[:3] == ["gcloud", "run", "deploy"]]
    registry = "europe-west4-docker.pkg.dev/example-project/ghcr"
    assert images == ([f"{registry}/example/chiffre-serve@{DIGEST}"] if page == PAGES[1] else [])
    # What there is to read for `make page`, and no alias moves without the registry's address.
    created = [call[4] for call in done.calls if call[:4] == ["gcloud", "artifacts", "repositories", "create"]]
    assert created == (["ghcr"] if page == PAGES[1] else [])
    assert all("--tracking_uri" in call for call in done.calls if call[:3] == ["python", "-m", "rollout"])


@pytest.mark.parametrize("section", ["Watch", "Load tests", "Roll out"])
def test_the_readme_s_commands_are_ones_that_there_are(rehearsal: Rehearsal, section: str) -> None:
    (body,) = re.findall(rf"^## {section}$(.*?)^## ", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in re.findall(r"```console\n(.*?)```", body, re.DOTALL) for line in block.splitlines()]
    done = rehearsal.run("set -u\n" + "\n".join(lines).replace(*_REUSED))
    assert done.code == 0, done.output
    assert len(done.calls) >= sum(not line.startswith("export ") for line in lines) > 3


def test_the_commands_of_runbooks_and_of_the_loop_are_ones_that_there_are(rehearsal: Rehearsal) -> None:
    pages = [*sorted((ROOT / "docs" / "runbooks").glob("*.md")), ROOT / "docs" / "loop.md"]
    for page in pages:
        lines = [line for line in script(page).splitlines() if not line.startswith("curl ")]
        done = rehearsal.run("set -u\n" + "\n".join(lines).replace(*_REUSED))
        assert done.code == 0, f"{page.name}: {done.output}"
        assert len(done.calls) >= len(lines), page.name


def arguments(rehearsal: Rehearsal) -> list[str]:
    """What Cloud Run appends to the image's entrypoint, by the Makefile."""
    done = rehearsal.run("make page SERVE=x PROJECT=x REGION=x BUCKET=x PAGE_ACCOUNT=x")
    (call,) = [call for call in done.calls if call[0] == "gcloud"]
    (given,) = [word.removeprefix("--args=") for word in call if word.startswith("--args=")]
    assert call[call.index("--port") + 1] == _PORT
    return given.split(",")


@pytest.fixture
def server(rehearsal: Rehearsal, bundle: Bundle) -> Iterator[tuple[Process, str]]:
    """The server as Cloud Run starts it, but for the directory, and the port, which is one that is free here."""
    port = free_port()
    places = {"--model_dir=/mnt/models": f"--model_dir={bundle.directory}", f"--http_port={_PORT}": f"--http_port={port}"}
    given = arguments(rehearsal)
    assert set(places) < set(given)
    with Process("serving", *(places.get(word, word) for word in given), PORT=str(port)) as process:
        yield process, f"http://127.0.0.1:{port}"


def test_the_server_does_what_cloud_run_asks_of_it(server: tuple[Process, str]) -> None:
    process, url = server
    deadline = time.monotonic() + 120
    with httpx.Client(base_url=url, timeout=10) as client:
        while True:
            try:
                if client.get("/v2/models/digits/ready").is_success:
                    break
            except httpx.TransportError:
                pass
            assert process.popen.poll() is None, process.output
            assert time.monotonic() < deadline, process.output
            time.sleep(0.05)
        assert "<canvas" in client.get("/", headers={"accept": "text/html"}).raise_for_status().text
        body, kind = (ROOT / "data" / "seven.png").read_bytes(), {"content-type": "image/png"}
        answer = client.post("/v1/models/digits:predict", content=body, headers=kind).raise_for_status()
        assert answer.json()["predictions"][0]["label"] == 7
    process.popen.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process.output


def test_the_server_is_told_to_end_before_cloud_run_ends_it(rehearsal: Rehearsal) -> None:
    given = dict(word.removeprefix("--").split("=") for word in arguments(rehearsal))
    assert float(given["drain_seconds"]) + float(given["grace_seconds"]) < _STOP_SECONDS
