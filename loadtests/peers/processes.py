"""A contestant's process: started, asked until it answers, weighed, ended.

    with Running(command, environment=environment, log=log) as running:
        ...

Each is a process group of its own, and only that group is ever signalled.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtests.peers.answers import Asker
from loadtests.peers.wire import AnswerError

_POLL_SECONDS = 0.005
_START_SECONDS = 60.0
_STOP_SECONDS = 3.0
# Resting is to use less than a twentieth of a core (100 ticks a second), three times in a row.
_SETTLE_SECONDS, _REST_SECONDS, _REST_TICKS, _RESTS = 30.0, 0.4, 2, 3
_KIB_PER_MIB = 1024


class StartError(RuntimeError):
    """A server that ended or gave no right answer in time."""


class Running:
    """A server's process group while the context lasts; its output goes to ``log``."""

    def __init__(self, command: list[str], *, environment: Mapping[str, str], log: Path) -> None:
        self._command, self._environment, self._log = command, environment, log

    def __enter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self.began = time.perf_counter()
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                self._command,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # SIGINT, because a server may wait for idle connections at SIGTERM; what is left of its group is then killed.
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(_STOP_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def await_answer(self, connect: Callable[[], Asker]) -> float:
        """Seconds from the process's start to the first right answer, each try on a fresh connection.

        Raises `StartError`.
        """
        while True:
            asker = connect()
            try:
                asker.ask(0)
                return time.perf_counter() - self.began
            except AnswerError as error:
                reason = str(error)
            finally:
                asker.close()
            if self.process.poll() is not None or time.perf_counter() - self.began > _START_SECONDS:
                message = f"{reason}; exit code {self.process.poll()}; its last output: {self._tail()}"
                raise StartError(message)
            time.sleep(_POLL_SECONDS)

    def settle(self) -> None:
        """Wait until its processes rest: the first answer comes from the first worker, while others are still being started."""
        deadline = time.perf_counter() + _SETTLE_SECONDS
        resting, before = 0, self._cpu_ticks()
        while resting < _RESTS and time.perf_counter() < deadline:
            time.sleep(_REST_SECONDS)
            now = self._cpu_ticks()
            resting, before = (resting + 1 if now - before <= _REST_TICKS else 0), now

    def _cpu_ticks(self) -> int:
        return sum(cpu_ticks(pid) for pid in descendants(self.process.pid))

    def _tail(self) -> str:
        return " ".join(self._log.read_text(errors="replace").split())[-300:]

    def pss_mib(self) -> float:
        """Proportional set size of the process and all its descendants, MiB."""
        return sum(pss_kib(pid) for pid in descendants(self.process.pid)) / _KIB_PER_MIB


def descendants(root: int) -> list[int]:
    """``root`` and the processes below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # A process may end while we look; its name, in parentheses, may hold anything.
        with contextlib.suppress(OSError):
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_ticks(pid: int) -> int:
    """Ticks of CPU time that a process has used; 0 where it has ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    return 0


def pss_kib(pid: int) -> int:
    """Proportional set size of a process, KiB; 0 where it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
