"""Each command of the README is run: by CI, or here, in the README's order and in a folder of its own."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from model.demo import free_port, stop
from tests.processes import ROOT

README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
CI = ["make demo", "make test"]

# What a command is given beside what the README says, so that it takes seconds; a model that was trained for seconds is below
# the floors.
SHORT = {
    "fit": "--trainer.max_epochs 2 --trainer.limit_train_batches 100 --data.augmentation.elastic_pixels 0",
    "publish": "--floors.recall 0.5 --floors.shift_invariance 0.5 --floors.calibration_error 0.5",
    "train_speed.py": "--rounds 1",
    "startup.py": "--rounds 1 --bundle build/best/bundle",
    "storage.py": "--rounds 1",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose build folder is the test's."""
    path = tmp_path_factory.mktemp("readme")
    for name in ("data", "loadtests", "model", "serving"):
        (path / name).symlink_to(ROOT / name)
    (path / ".venv").symlink_to(sys.prefix)
    return path


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}


def start(command: str, folder: Path) -> subprocess.Popen[bytes]:
    log = (folder / "log").open("ab")
    with log:
        return subprocess.Popen(
            shlex.split(command), cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def await_url(process: subprocess.Popen[bytes], url: str, folder: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        assert time.monotonic() < deadline, f"{url} does not answer"
        try:
            if httpx.get(url, timeout=2).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)


def finish(command: str, folder: Path) -> str:
    done = subprocess.run(
        shlex.split(command),
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_every_command_is_one_that_ci_or_the_test_below_runs() -> None:
    assert set(CI) <= set(COMMANDS)
    assert len(COMMANDS) == len(set(COMMANDS))
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert set(CI) <= set(ci)
    # `make demo` leaves the server up with --keep; the program behind it is run so below.
    kinds = (
        ".venv/bin/python -m ",
        "env MLFLOW_DISABLE_TELEMETRY=true .venv/bin/mlflow server ",
        ".venv/bin/python loadtests/",
        "curl ",
    )
    assert all(command.startswith(kinds) for command in COMMANDS if command not in CI)


def test_the_commands_work_in_the_order_of_the_readme(folder: Path) -> None:
    servers: list[subprocess.Popen[bytes]] = []
    port, replaced = str(free_port()), {"8080": str(free_port()), "8081": str(free_port())}
    try:
        for line in COMMANDS:
            command = line.replace("8080", replaced["8080"]).replace("8081", replaced["8081"]).replace("5000", port)
            extra = next((options for word, options in SHORT.items() if re.search(rf"\b{re.escape(word)}\b", command)), "")
            if " -m serving " in command and "--startup-profile" not in command:
                servers.append(start(command, folder))
                await_url(servers[-1], f"http://127.0.0.1:{replaced['8080']}/v2/models/digits/ready", folder)
            elif "mlflow server" in command:
                servers.append(start(command, folder))
                await_url(servers[-1], f"http://127.0.0.1:{port}/health", folder)
            elif "loadtests/" in command:
                # Whether a bar holds is not for a test to time; that the benchmark measures is.
                done = subprocess.run(
                    [*shlex.split(command), *shlex.split(extra)],
                    cwd=folder,
                    env=environment(),
                    capture_output=True,
                    text=True,
                    timeout=300,
                    check=False,
                )
                assert json.loads(done.stdout.splitlines()[-1]), done.stderr
            elif command not in CI:
                output = finish(f"{command} {extra}", folder)
                if command.startswith("curl") and "predict" in command:
                    assert json.loads(output)["predictions"][0]["label"] == 7
                if " publish " in command:
                    assert "published digits version 1, alias challenger" in output
    finally:
        for server in servers:
            stop(server)
    assert (folder / "build" / "best" / "predictions.csv").exists()


def test_demo_keeps_its_server_until_it_is_interrupted(folder: Path) -> None:
    bundle = folder / "build" / "best" / "bundle"
    if not bundle.exists():
        finish(
            f".venv/bin/python -m model fit --config model/configs/smoke.yaml --trainer.default_root_dir {bundle.parent}", folder
        )
    port = free_port()
    process = start(f".venv/bin/python -m model.demo --bundle {bundle} --keep --http_port {port}", folder)
    try:
        deadline = time.monotonic() + 120
        while "stays up" not in (folder / "log").read_text():
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert httpx.get(f"http://127.0.0.1:{port}/v2/models/digits/ready", timeout=5).is_success
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        stop(process)
    shown = (folder / "log").read_text()
    assert "answer " in shown
    assert "accuracy over the 10,000 test images through HTTP" in shown
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/", timeout=5)


def test_make_alone_lists_every_target() -> None:
    listed = subprocess.run(["/usr/bin/env", "make"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    targets = re.findall(r"^([a-z0-9]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    assert all(f"make {target} " in listed for target in targets)
