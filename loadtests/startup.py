"""From the start of the server's process to ready and to its first right answer, and how it answers right after that.

    python loadtests/startup.py --bundle build/bundle --rounds 10

The server imports kserve behind its first answer: the 99th percentile of the first five seconds says what that costs. Answers
are checked against the bundle's own. Exit code 1 where the median time to ready is above the bar.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np

from model.bundle import Bundle
from model.demo import free_port, stop
from serving.engine import Engine

BAR_SECONDS = 1.0
_TIMEOUT_SECONDS = 60.0
_EARLY_REQUESTS, _EARLY_PERIOD_SECONDS = 500, 0.01
_QUESTION = {"instances": [[0.0] * 784]}


def start_once(bundle: Bundle, expected: int) -> dict[str, float]:
    """Seconds to ready and to the first right answer, and the 99th percentile of an answer in the first five seconds.

    Raises `RuntimeError` where the server does not become ready.
    """
    port = free_port()
    ports = ["--http_port", str(port), "--grpc_port", str(free_port())]
    command = [sys.executable, "-m", "serving", "--model_dir", str(bundle.directory), *ports]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
            await_ready(process, client, begin + _TIMEOUT_SECONDS)
            ready = time.perf_counter() - begin
            ask(client, expected)
            answered = time.perf_counter() - begin
            latencies = [ask(client, expected) for _ in range(_EARLY_REQUESTS)]
    finally:
        stop(process)
    return {"ready": ready, "answered": answered, "early_p99": statistics.quantiles(latencies, n=100)[98]}


def await_ready(process: subprocess.Popen[bytes], client: httpx.Client, deadline: float) -> None:
    """Until the server is ready. Raises `RuntimeError` where it does not become so."""
    while True:
        try:
            if client.get("/v2/models/digits/ready").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.005)
        if process.poll() is not None or time.perf_counter() > deadline:
            message = "the server did not become ready"
            raise RuntimeError(message)


def ask(client: httpx.Client, expected: int) -> float:
    """Seconds that an answer took; the next is asked for in the next hundredth of a second."""
    begin = time.perf_counter()
    answer = client.post("/v1/models/digits:predict", json=_QUESTION).raise_for_status().json()
    seconds = time.perf_counter() - begin
    assert answer["predictions"][0]["label"] == expected, "a wrong answer has no time"
    time.sleep(max(0.0, _EARLY_PERIOD_SECONDS - seconds))
    return seconds


def main() -> int:
    """Measure, print a JSON line, and hold the median against the bar."""
    parser = argparse.ArgumentParser(description="Time the server's start.")
    parser.add_argument("--bundle", type=Path, default=Path("build/bundle"), help="The bundle's directory.")
    parser.add_argument("--rounds", type=int, default=10, help="Counted starts.")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    expected = int(Engine(bundle).predict(np.zeros((1, 28, 28), np.float32)).argmax())
    starts = [start_once(bundle, expected) for _ in range(arguments.rounds)]
    figures = {name: [start[name] for start in starts] for name in starts[0]}
    spread = {name: {"min": min(times), "median": statistics.median(times), "max": max(times)} for name, times in figures.items()}
    rounded = {name: {key: round(value, 3) for key, value in row.items()} for name, row in spread.items()}
    print(json.dumps({"seconds": rounded, "bar_ready": BAR_SECONDS}))
    return 0 if spread["ready"]["median"] <= BAR_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
