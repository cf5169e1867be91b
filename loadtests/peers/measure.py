"""One contestant's figures of one round, and its cold starts.

    bench = Bench(settings=settings, truth=truth)
    figures, notes = bench.round(contestant)

A column whose answers were wrong, or not all answered, has a note instead of a figure.
"""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtests.peers.answers import V1_PATH, V2_PATH, Asker, EchoAsker, GrpcAsker, Sampler, Truth, V1Asker, V2Asker
from loadtests.peers.contestants import Contestant
from loadtests.peers.h2load import LoadError, Target, closed_loop, open_loop, percentile
from loadtests.peers.processes import Running, StartError
from loadtests.peers.report import COLUMNS
from loadtests.peers.venvs import python_of
from loadtests.peers.wire import (
    GRPC_HEADERS,
    GRPC_PATH,
    LENGTH_HEADER,
    AnswerError,
    frame,
    grpc_request,
    v1_body,
    v2_body,
)
from model.demo import free_port

HOST = "127.0.0.1"
CONNECTIONS, V2_CONNECTIONS, V2_BATCH = 64, 16, 32
_CHECKS = 20
_TURNS = 7
# Of the rate that was asked for; less is no open loop any more.
_OPEN_SHARE = 0.95
# On a machine that others use as well, a moment's want of cores is no want of the server's.
_OPEN_TRIES = 3
# Every process computes in one thread of its own. Nothing tells anybody that it is used.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "1",
    "OTEL_SDK_DISABLED": "true",
}
Column = Callable[[], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What holds for all contestants."""

    bundle: Path
    root: Path
    seconds: int
    workers: int = 2


class Bench:
    """Starts contestants and measures them with the same client."""

    def __init__(self, *, settings: Settings, truth: Truth) -> None:
        self.settings, self.truth = settings, truth
        self._bodies = settings.root / "requests"
        self._bodies.mkdir(parents=True, exist_ok=True)
        binary, self._v2_header = v2_body(truth.batch(0, V2_BATCH)[0])
        one = truth.batch(0, 1)[0]
        requests = {"v1": v1_body(one), "v2": binary, "grpc": frame(grpc_request(one).SerializeToString())}
        for name, body in requests.items():
            (self._bodies / name).write_bytes(body)

    def start(self, contestant: Contestant, *, workers: int) -> tuple[Running, int, int]:
        """A server that is not started yet, its HTTP port and its gRPC port."""
        http_port, grpc_port = free_port(), free_port()
        python, settings = python_of(contestant, self.settings.root), self.settings
        values = {"python": python, "http": http_port, "grpc": grpc_port, "workers": workers, "bundle": settings.bundle}
        command = [word.format(**values) for word in contestant.command.split()]
        return (
            Running(command, environment=self._environment(), log=settings.root / "logs" / contestant.name),
            http_port,
            grpc_port,
        )

    def _environment(self) -> Mapping[str, str]:
        # Paths are relative to the repository, where the driver and the servers run; its root is where they are imported from.
        root = Path.cwd()
        places = {
            "PYTHONPATH": str(root),
            "PEER_WEIGHTS": str((self.settings.root / "weights.npz").absolute()),
            "BENTOML_HOME": str((self.settings.root / "bentoml" / "home").absolute()),
        }
        return {**os.environ, **ENVIRONMENT, **places}

    def cold_start(self, contestant: Contestant, *, workers: int) -> float:
        """Seconds from the process's start to the first right V1 answer. Raises `StartError`."""
        running, port, _ = self.start(contestant, workers=workers)
        with running:
            return running.await_answer(lambda: self._v1(contestant, port))

    def _v1(self, contestant: Contestant, port: int) -> Asker:
        kind = EchoAsker if "echo" in contestant.speaks else V1Asker
        return kind(HOST, port, self.truth)

    def duel(self, ours: Contestant, peer: Contestant) -> list[float]:
        """Ours divided by the peer's V1 requests a second with both running, a second of load for one and then for the other.

        Raises `StartError`, `AnswerError` and `LoadError`.
        """
        with ExitStack() as stack:
            mine, theirs = (self._second(contestant, stack) for contestant in (ours, peer))
            # To warm up.
            mine(), theirs()
            return [mine() / theirs() for _ in range(_TURNS)]

    def _second(self, contestant: Contestant, stack: ExitStack) -> Callable[[], float]:
        """What loads a server, which ends with ``stack``, for a second."""
        running, port, _ = self.start(contestant, workers=self.settings.workers)
        stack.enter_context(running).await_answer(lambda: self._v1(contestant, port))
        running.settle()
        asker = self._v1(contestant, port)
        target = self._v1_target(port)(asker.ask(0))
        asker.close()
        return partial(closed_loop, target, connections=CONNECTIONS, seconds=1, warm_up=False)

    def round(self, contestant: Contestant) -> tuple[dict[str, float], dict[str, str]]:
        """Figures by column, and notes by column. A server that does not start has a note for all of them."""
        figures: dict[str, float] = {}
        notes: dict[str, str] = {}
        running, http_port, grpc_port = self.start(contestant, workers=self.settings.workers)
        with running:
            try:
                running.await_answer(lambda: self._v1(contestant, http_port))
            except StartError as error:
                return {}, dict.fromkeys(COLUMNS, str(error))
            running.settle()
            for names, column in self._columns(contestant, http_port, grpc_port, figures):
                try:
                    figures |= column()
                except (AnswerError, LoadError) as error:
                    notes |= dict.fromkeys(names, str(error))
            figures["pss"] = running.pss_mib()
        line = "  ".join(f"{name} {value:,.2f}" for name, value in figures.items())
        print(f"  {contestant.name}: {line} {notes or ''}", file=sys.stderr, flush=True)
        return figures, notes

    def _columns(
        self, contestant: Contestant, http_port: int, grpc_port: int, figures: dict[str, float]
    ) -> list[tuple[tuple[str, ...], Column]]:
        """Names of figures, and what measures them, in order; ``figures`` are those of the round so far."""
        seconds = self.settings.seconds

        def v1(measure: Callable[[Target], dict[str, float]]) -> Column:
            return lambda: self._loaded(self._v1(contestant, http_port), self._v1_target(http_port), measure)

        def half_load(target: Target) -> dict[str, float]:
            return _half_load(target, figures.get("v1_c64"), seconds)

        def closed(name: str, connections: int, images: int = 1) -> Callable[[Target], dict[str, float]]:
            return lambda target: {name: images * closed_loop(target, connections=connections, seconds=seconds)}

        columns = [
            (("v1_c64",), v1(closed("v1_c64", CONNECTIONS))),
            (("v1_c1",), v1(closed("v1_c1", 1))),
            (("p50", "p99"), v1(half_load)),
        ]
        if "v2" in contestant.speaks:
            measure = closed("v2_b32", V2_CONNECTIONS, V2_BATCH)
            asker = V2Asker(HOST, http_port, self.truth)
            columns.append((("v2_b32",), lambda: self._loaded(asker, self._v2_target(http_port), measure)))
        if "grpc" in contestant.speaks:
            rpc, by_grpc = GrpcAsker(HOST, grpc_port, self.truth), closed("grpc_c64", CONNECTIONS)
            columns.append((("grpc_c64",), lambda: self._loaded(rpc, self._grpc_target(grpc_port), by_grpc)))
        return columns

    def _loaded(
        self, asker: Asker, target: Callable[[int], Target], measure: Callable[[Target], dict[str, float]]
    ) -> dict[str, float]:
        """What ``measure`` gives, with answers checked before, during and after. Raises `AnswerError` and `LoadError`."""
        try:
            for index in range(_CHECKS):
                asker.ask(index)
            # The load sends what the answer to image 0 was measured with.
            length = asker.ask(0)
            with Sampler(asker):
                figures = measure(target(length))
            for index in range(_CHECKS):
                asker.ask(index)
        finally:
            asker.close()
        return figures

    def _v1_target(self, port: int) -> Callable[[int], Target]:
        headers = ("content-type: application/json",)
        return self._target(f"http://{HOST}:{port}{V1_PATH}", "v1", headers)

    def _v2_target(self, port: int) -> Callable[[int], Target]:
        headers = ("content-type: application/octet-stream", f"{LENGTH_HEADER}: {self._v2_header}")
        return self._target(f"http://{HOST}:{port}{V2_PATH}", "v2", headers)

    def _grpc_target(self, port: int) -> Callable[[int], Target]:
        return self._target(f"http://{HOST}:{port}{GRPC_PATH}", "grpc", GRPC_HEADERS)

    def _target(self, url: str, body: str, headers: tuple[str, ...]) -> Callable[[int], Target]:
        def with_length(length: int) -> Target:
            return Target(url=url, body=self._bodies / body, headers=headers, answer_bytes=length, http2=body == "grpc")

        return with_length


def _half_load(target: Target, maximum: float | None, seconds: int) -> dict[str, float]:
    """Milliseconds at half of ``maximum`` requests a second. Raises `LoadError`."""
    if maximum is None:
        message = "no rate to take half of"
        raise LoadError(message)
    for _ in range(_OPEN_TRIES):
        milliseconds, reached = open_loop(target, connections=CONNECTIONS, rate=maximum / 2, seconds=seconds)
        if reached >= _OPEN_SHARE * maximum / 2:
            return {"p50": percentile(milliseconds, 50), "p99": percentile(milliseconds, 99)}
    message = f"only {reached:.0f} of {maximum / 2:.0f} requests a second were sent in time"
    raise LoadError(message)
