"""Child processes of the tests: the command line, servers, ports. Everything ends with the test that started it."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from model.demo import free_port

ROOT = Path(__file__).parent.parent


class Process:
    """A python module run from the repository's root, whose output is collected as it comes."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.lines: list[str] = []
        self.popen = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout
        for line in self.popen.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, timeout_seconds: float = 120) -> None:
        """Until the output holds ``text``."""
        deadline = time.monotonic() + timeout_seconds
        while text not in self.output:
            assert self.popen.poll() is None, f"ended with {self.popen.returncode} before {text!r}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {text!r} in {timeout_seconds} s:\n{self.output}"
            time.sleep(0.005)

    def wait(self, timeout_seconds: float = 240) -> int:
        """The exit code."""
        code = self.popen.wait(timeout_seconds)
        self._reader.join(5)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(20)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self._reader.join(5)
        if self.popen.stdout:
            self.popen.stdout.close()


def run(*arguments: str, timeout_seconds: float = 240, **environment: str) -> tuple[int, str]:
    """Exit code and output of ``python -m arguments``."""
    with Process(*arguments, **environment) as process:
        return process.wait(timeout_seconds), process.output


class Server(Process):
    """``python -m serving``, ready to answer."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        given = dict(zip(arguments, (*arguments[1:], ""), strict=True))
        # What is not given stays out of the way of other servers, and of the clock.
        usual = {"--http_port": str(free_port()), "--grpc_port": str(free_port()), "--drain_seconds": "0.2"}
        flags = [word for flag, value in usual.items() if flag not in given for word in (flag, value)]
        super().__init__("serving", *arguments, *flags, **environment)
        http_port, grpc_port = ({**usual, **given}[flag] for flag in ("--http_port", "--grpc_port"))
        self.url, self.grpc_address = f"http://127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}"
        self.predict_url = f"{self.url}/v1/models/digits:predict"
        self.infer_url = f"{self.url}/v2/models/digits/infer"

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 60
        while True:
            assert self.popen.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            try:
                if httpx.get(f"{self.url}/v2/models/digits/ready", timeout=1).is_success:
                    return self
            except httpx.TransportError:
                time.sleep(0.05)
