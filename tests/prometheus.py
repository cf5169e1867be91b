"""Debian's Prometheus as the tests run it: on a port of its own, with what it keeps in a folder of the test's."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from model.demo import free_port
from tests.rules.groups import program


class Prometheus:
    """A running Prometheus, as ``prometheus.yaml`` in ``directory`` says."""

    def __init__(self, directory: Path) -> None:
        self._directory, self.url = directory, f"http://127.0.0.1:{free_port()}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant vector."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10)
        assert answer.is_success, f"{expression}: {answer.text}"
        data = answer.json()["data"]
        found: list[dict[str, Any]] = data["result"] if data["resultType"] == "vector" else [{"value": data["result"]}]
        return found

    def value(self, expression: str) -> float:
        """Of the one sample that there is; 0 where there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else 0.0

    def lines(self, expression: str, label: str, begun: float, ended: float) -> dict[str, tuple[list[float], list[float]]]:
        """Times, in seconds since 1970, and values of each series of ``expression``, by its ``label``."""
        asked = {"query": expression, "start": str(begun), "end": str(ended), "step": str(max(1.0, (ended - begun) / 400))}
        answer = httpx.get(f"{self.url}/api/v1/query_range", params=asked, timeout=30)
        assert answer.is_success, f"{expression}: {answer.text}"
        found = {}
        for series in answer.json()["data"]["result"]:
            times, values = zip(*((float(time), float(value)) for time, value in series["values"]), strict=True)
            found[series["metric"][label]] = list(times), list(values)
        return found

    def until(self, is_so: Callable[[], bool], what: str, timeout_seconds: float = 60) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not is_so():
            assert time.monotonic() < deadline, f"not in {timeout_seconds} s: {what}"
            time.sleep(0.2)

    def broken_rules(self) -> list[str]:
        """Rules whose last evaluation failed, with the reason."""
        answer = httpx.get(f"{self.url}/api/v1/rules", timeout=10).raise_for_status().json()
        return [
            f"{rule['name']}: {rule.get('lastError')}"
            for group in answer["data"]["groups"]
            for rule in group["rules"]
            if rule["health"] != "ok"
        ]

    def __enter__(self) -> Self:
        with (self._directory / "log").open("w") as log:
            self._popen = subprocess.Popen(
                [
                    program("prometheus"),
                    "--config.file=prometheus.yaml",
                    "--storage.tsdb.path=data",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.until(self._is_ready, f"Prometheus answers: {(self._directory / 'log').read_text()}")
        return self

    def _is_ready(self) -> bool:
        assert self._popen.poll() is None, (self._directory / "log").read_text()
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=1).is_success
        except httpx.TransportError:
            return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(20)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
