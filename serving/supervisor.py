"""Several processes that answer, forked from one that has loaded everything and so shares its memory with them."""

import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

from serving.failures import EXIT_CONFIGURATION
from serving.metrics import Metrics

_TICK_SECONDS = 1.0
# A process whose event loop has not turned for so many ticks hangs.
_MAX_SILENT_TICKS = 10
# A process that dies so soon after its start, so many times in a row, will go on doing so.
_EARLY_SECONDS, _MAX_EARLY_DEATHS = 5.0, 5
STOPPING = {signal.SIGTERM, signal.SIGINT}
_HEARD = STOPPING | {signal.SIGCHLD}

logger = logging.getLogger("serving")


class Supervisor:
    """Keeps a process running for each socket of ``listening``: ``run`` with its number and socket, which gives its exit code."""

    def __init__(
        self, run: Callable[[int, socket.socket], int], metrics: Metrics, listening: list[socket.socket], *, stop_seconds: float
    ) -> None:
        self._run, self._metrics, self._listening = run, metrics, listening
        self._stop_seconds = stop_seconds
        self._workers = range(len(listening))
        self._running: dict[int, int] = {}
        self._started = dict.fromkeys(self._workers, 0.0)
        self._silent = dict.fromkeys(self._workers, 0)
        self._beats = dict.fromkeys(self._workers, -1.0)
        self._early_deaths = 0

    def supervise(self) -> int:
        """Run until a signal, or until a process cannot be kept running; the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        # The collector would write to every object, and so copy the memory that is shared.
        gc.collect()
        gc.freeze()
        for worker in self._workers:
            self._fork(worker)
        while True:
            heard = signal.sigtimedwait(_HEARD, _TICK_SECONDS)
            if heard and heard.si_signo in STOPPING:
                return self._stop(heard.si_signo)
            code = self._replace_dead()
            if code is not None:
                self._stop(signal.SIGTERM)
                return code
            if heard is None:
                self._kill_silent()

    def _fork(self, worker: int) -> None:
        self._started[worker] = time.monotonic()
        self._silent[worker] = 0
        process = os.fork()
        if process:
            self._running[process] = worker
            return
        code = 1
        try:
            # A process that closes its socket must be the last to hold it.
            for other in self._workers:
                if other != worker:
                    self._listening[other].close()
            # Those that stop a process wait until it has handlers for them.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD - STOPPING)
            code = self._run(worker, self._listening[worker])
        finally:
            sys.stderr.flush()
            # Nothing of the supervisor's is to be done a second time.
            os._exit(code)

    def _reap(self) -> list[tuple[int, int]]:
        """Worker and exit code of each process that ended."""
        ended = []
        while self._running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                break
            if process in self._running:
                ended.append((self._running.pop(process), os.waitstatus_to_exitcode(status)))
        return ended

    def _replace_dead(self) -> int | None:
        """Start a process for each that died; an exit code where that makes no sense."""
        for worker, code in self._reap():
            logger.error("a worker ended", extra={"worker": worker, "exit_code": code})
            is_early = time.monotonic() - self._started[worker] < _EARLY_SECONDS
            self._early_deaths = self._early_deaths + 1 if is_early else 0
            if code == EXIT_CONFIGURATION:
                return code
            if self._early_deaths >= _MAX_EARLY_DEATHS:
                logger.critical("workers end as soon as they start")
                return 1
            self._metrics.count_restart()
            self._fork(worker)
        return None

    def _kill_silent(self) -> None:
        for process, worker in self._running.items():
            beats = float(self._metrics.heartbeats[worker])
            self._silent[worker] = self._silent[worker] + 1 if beats == self._beats[worker] else 0
            self._beats[worker] = beats
            if self._silent[worker] >= _MAX_SILENT_TICKS:
                logger.error("a worker hangs", extra={"worker": worker})
                os.kill(process, signal.SIGKILL)

    def _stop(self, number: int) -> int:
        # A socket is closed when the last process closes it, which must not be this one.
        for listening in self._listening:
            listening.close()
        for process in self._running:
            os.kill(process, number)
        deadline = time.monotonic() + self._stop_seconds
        codes = []
        while self._running:
            heard = signal.sigtimedwait(_HEARD, 0.1)
            codes += [code for _, code in self._reap()]
            if time.monotonic() > deadline:
                for process, worker in self._running.items():
                    logger.error("a worker does not stop", extra={"worker": worker})
                    os.kill(process, signal.SIGKILL)
            if heard and heard.si_signo in STOPPING:
                for process in self._running:
                    os.kill(process, heard.si_signo)
        return int(any(codes))
