"""From the start of the server's process to ready, and to its first right answer.

    python loadtests/startup.py --bundle build/bundle --rounds 10

The answer is checked against the bundle's own. Exit code 1 where the median time to ready is above the bar.
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

BAR_SECONDS = 2.0
_TIMEOUT_SECONDS = 60.0


def start_once(bundle: Bundle, expected: int) -> tuple[float, float]:
    """Seconds to ready and to the first right answer. Raises `RuntimeError` where neither comes."""
    port = free_port()
    ports = ["--http_port", str(port), "--grpc_port", str(free_port())]
    command = [sys.executable, "-m", "serving", "--model_dir", str(bundle.directory), *ports]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
            while True:
                try:
                    if client.get("/v2/models/digits/ready").is_success:
                        break
                except httpx.TransportError:
                    time.sleep(0.005)
                if process.poll() is not None or time.perf_counter() - begin > _TIMEOUT_SECONDS:
                    message = "the server did not become ready"
                    raise RuntimeError(message)
            ready = time.perf_counter() - begin
            answer = client.post("/v1/models/digits:predict", json={"instances": [[0.0] * 784]}).raise_for_status().json()
            assert answer["predictions"][0]["label"] == expected, "a wrong answer has no time"
            return ready, time.perf_counter() - begin
    finally:
        stop(process)


def main() -> int:
    """Measure, print a JSON line, and hold the median against the bar."""
    parser = argparse.ArgumentParser(description="Time the server's start.")
    parser.add_argument("--bundle", type=Path, default=Path("build/bundle"), help="The bundle's directory.")
    parser.add_argument("--rounds", type=int, default=10, help="Counted starts.")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    expected = int(Engine(bundle).predict(np.zeros((1, 28, 28), np.float32)).argmax())
    start_once(bundle, expected)
    ready, answered = zip(*(start_once(bundle, expected) for _ in range(arguments.rounds)), strict=True)
    figures = {"ready": ready, "answered": answered}
    spread = {name: {"min": min(times), "median": statistics.median(times), "max": max(times)} for name, times in figures.items()}
    rounded = {name: {key: round(value, 2) for key, value in row.items()} for name, row in spread.items()}
    print(json.dumps({"seconds": rounded, "bar_ready": BAR_SECONDS}))
    return 0 if spread["ready"]["median"] <= BAR_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
