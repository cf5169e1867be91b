"""One of two revisions of a release: who it is, what it is asked, and what came of that."""

import asyncio
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from model.bundle import Labels
from rollout.evidence import Arm
from rollout.questions import ProtocolName, questions
from rollout.wire import NoAnswerError, Reply, Request, Rest, Rpc, UnreachableError, Wire

# So many say enough: what else would be asked is not, and what hangs is not waited for any longer.
ENOUGH_FAILURES = 25

VERSION = "x-model-version"
_EXAMPLES = 5
_RETRY_SECONDS = 1.0

Side = Literal["champion", "challenger"]


class ProbeError(Exception):
    """Nobody can be judged: the gateway or the champion does not answer, or somebody else does."""


class LineageError(ProbeError):
    """Another model answered than the one that is meant."""


class NotReadyError(Exception):
    """A challenger that does not wake up."""


class FailedError(Exception):
    """A question that got no answer, or none that makes sense."""


@dataclass(frozen=True, kw_only=True)
class Arms:
    """Who is asked.

    Args:
        gateway: Address that knows both by their hosts, http://HOST:PORT; where it is empty, the hosts are addresses themselves.
        champion_host: For example prev-digits-predictor.chiffre.localhost.
        challenger_host: For example latest-digits-predictor.chiffre.localhost.
        model_name: Name of the model in routes and requests.
        champion_version: What its answers must say in ``x-model-version``.
        challenger_version: What its answers must say.
        protocol: What the service speaks.
        scheme: How the hosts are asked without a gateway, ``http`` or ``https``.
        wake_seconds: How long they may take to be ready, from zero pods, on a node that may have to fetch the image first.
        request_seconds: How long an answer may take.
    """

    gateway: str
    champion_host: str
    challenger_host: str
    model_name: str
    champion_version: str
    challenger_version: str
    protocol: ProtocolName = "rest"
    scheme: str = "http"
    wake_seconds: float = 60.0
    request_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Raise ValueError naming the field that is no address."""
        addresses = {"gateway": self.gateway} if self.gateway else {side: self.address(side) for side in _SIDES}
        for name, address in addresses.items():
            parts = urlsplit(address)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
                message = f"{name}: expected an address like http://127.0.0.1:8080, got {address!r:.80}"
                raise ValueError(message)

    def host(self, side: Side) -> str:
        """By which name a side is asked."""
        return self.champion_host if side == "champion" else self.challenger_host

    def address(self, side: Side) -> str:
        """Where it is asked without a gateway."""
        return f"{self.scheme}://{self.host(side)}"

    def version(self, side: Side) -> str:
        """Which model must answer."""
        return self.champion_version if side == "champion" else self.challenger_version


_SIDES: tuple[Side, ...] = ("champion", "challenger")


class Revision:
    """A side of ``arms``, over connections of its own, which counts what it is asked."""

    def __init__(self, arms: Arms, side: Side) -> None:
        host = arms.host(side)
        self._wire: Wire = (Rpc if arms.protocol == "grpc" else Rest)(arms.gateway or arms.address(side), host)
        self._arms, self._version = arms, arms.version(side)
        self.side, self.name, self.is_asleep = side, f"the {side} at {host}", False
        self.questions = questions(arms.protocol, arms.model_name)
        self.requests = self.failed = 0
        self._examples: list[str] = []

    @property
    def has_failed_enough(self) -> bool:
        """Whether more questions would say nothing new."""
        return self.is_asleep or self.failed >= ENOUGH_FAILURES

    def arm(self, latencies_ms: tuple[float, ...] = ()) -> Arm:
        """What was counted."""
        return Arm(latencies_ms=latencies_ms, requests=self.requests, failed=self.failed, examples=tuple(self._examples))

    def fail(self, what: str, why: object) -> FailedError:
        """Count a request that failed."""
        self.failed += 1
        line = f"{what}: {why}"
        if len(self._examples) < _EXAMPLES:
            self._examples.append(line)
        return FailedError(line)

    async def send(self, request: Request) -> Reply:
        """The answer, whatever it is; not counted. Raises `NoAnswerError`, and `ProbeError` without a gateway or lineage."""
        try:
            reply = await self._wire.ask(request, self._arms.request_seconds)
        except UnreachableError as error:
            if self._arms.gateway:
                message = f"the gateway is not reachable: {error}"
                raise ProbeError(message) from error
            raise
        found = reply.headers.get(VERSION)
        if found != self._version and (found is not None or reply.kind == "answered"):
            who = f"version {found}" if found else "an answer that names none"
            message = f"{self.name}: expected version {self._version} of the model to answer, got {who}"
            raise LineageError(message)
        return reply

    async def ask(self, request: Request) -> Reply:
        """The answer to a good question, which is counted. Raises `FailedError`, `ProbeError`."""
        self.requests += 1
        try:
            reply = await self.send(request)
        except NoAnswerError as error:
            raise self.fail(request.path, error) from error
        if reply.kind != "answered":
            raise self.fail(request.path, reply)
        return reply

    def read(self, request: Request, reply: Reply, count: int) -> Labels:
        """The labels (count,) in an answer to ``request``. Raises `FailedError`, which is counted."""
        try:
            return self.questions.labels(reply, count)
        except ValueError as error:
            raise self.fail(request.path, error) from error

    async def labels(self, request: Request, count: int) -> Labels:
        """The labels (count,) that are the answer to ``request``. Raises `FailedError`, `ProbeError`."""
        return self.read(request, await self.ask(request), count)

    async def yardstick(self, request: Request, count: int) -> Labels:
        """The same of the champion, who may fail once. Raises `ProbeError`."""
        try:
            return await self.labels(request, count)
        except FailedError:
            await asyncio.sleep(_RETRY_SECONDS)
        try:
            return await self.labels(request, count)
        except FailedError as error:
            message = f"{self.name} failed twice, so that there is nothing to compare with: {error}"
            raise ProbeError(message) from error

    async def close(self) -> None:
        """Close its connections."""
        await self._wire.close()
