"""How long a pod waits for its bundle: the storage initializer, beside MLflow's own client and a Python that does nothing.

    python loadtests/storage.py --bundle build/bundle --rounds 10

All are whole processes, in turn, against one MLflow server on this machine; what they brought is checked. Exit code 1 where the
initializer's median is above the bar.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from loadtests.peers.processes import Running
from model.bundle import Bundle
from model.delivery import connect
from model.demo import free_port

BAR_SECONDS = 0.4
_START_SECONDS, _RUN_SECONDS = 120.0, 60.0
_DOWNLOAD = "import sys, mlflow; mlflow.artifacts.download_artifacts('models:/digits/1', dst_path=sys.argv[1])"


def serve(folder: Path, port: int) -> Running:
    """An MLflow server that keeps everything in ``folder``."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    return Running(command, environment={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}, log=folder / "server.log")


def await_health(uri: str) -> None:
    """Until the server answers. Raises `RuntimeError` where it does not."""
    deadline = time.perf_counter() + _START_SECONDS
    while time.perf_counter() < deadline:
        try:
            if httpx.get(f"{uri}/health", timeout=2).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    message = "the MLflow server did not answer"
    raise RuntimeError(message)


def register(uri: str, bundle: Bundle) -> None:
    """Make the bundle version 1 of digits."""
    client = connect(uri)
    run = client.create_run(client.create_experiment("storage"))
    client.log_artifacts(run.info.run_id, str(bundle.directory), "bundle")
    client.create_registered_model("digits")
    client.create_model_version("digits", f"{run.info.artifact_uri}/bundle", run.info.run_id)


def run_once(command: list[str], uri: str, destination: Path, bundle: Bundle | None) -> float:
    """Seconds that the process took; where there is a bundle, it has to be in ``destination`` then."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    begin = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_RUN_SECONDS, check=True)
    seconds = time.perf_counter() - begin
    if bundle:
        assert Bundle.load(destination) == bundle, "another bundle has no time"
    return seconds


def measure(uri: str, bundle: Bundle, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of each contestant, in turn, each into a new directory; the first round only fills caches."""
    times: dict[str, list[float]] = {"python": [], "storage": [], "storage_again": [], "mlflow": []}
    for number in range(rounds + 1):
        ours, theirs = folder / f"ours{number}", folder / f"theirs{number}"
        theirs.mkdir()
        storage = [sys.executable, "-m", "serving.storage", "mlflow://digits/1", str(ours)]
        commands = {
            "python": ([sys.executable, "-c", "pass"], ours, None),
            "storage": (storage, ours, bundle),
            "storage_again": (storage, ours, bundle),
            "mlflow": ([sys.executable, "-c", _DOWNLOAD, str(theirs)], theirs, bundle),
        }
        for name, (command, destination, expected) in commands.items():
            seconds = run_once(command, uri, destination, expected)
            times[name] += [seconds] if number else []
    return times


def main() -> int:
    """Measure, print a JSON line, and hold the median against the bar."""
    parser = argparse.ArgumentParser(description="Time the storage initializer.")
    parser.add_argument("--bundle", type=Path, default=Path("build/bundle"), help="The bundle's directory.")
    parser.add_argument("--rounds", type=int, default=10, help="Counted runs of each.")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    with tempfile.TemporaryDirectory() as scratch:
        port = free_port()
        uri = f"http://127.0.0.1:{port}"
        with serve(Path(scratch), port):
            await_health(uri)
            register(uri, bundle)
            times = measure(uri, bundle, arguments.rounds, Path(scratch))
    spread = {name: {"min": min(found), "median": statistics.median(found), "max": max(found)} for name, found in times.items()}
    rounded = {name: {key: round(value, 3) for key, value in row.items()} for name, row in spread.items()}
    print(json.dumps({"seconds": rounded, "bar_storage": BAR_SECONDS}))
    return 0 if spread["storage"]["median"] <= BAR_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
