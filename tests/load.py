"""An open-loop load: requests at a constant rate, every second one on a new connection, none sent twice, each answer checked."""

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import grpc
import numpy as np

from model.bundle import Floats
from tests.http1 import Connections, Reply, post
from tests.questions import binary_request, pb, question

Protocol = Literal["v1", "v2_json", "v2_binary", "grpc"]
REST: tuple[Protocol, ...] = ("v1", "v2_json", "v2_binary")

_TIMEOUT_SECONDS = 20.0
_TOLERANCE = 1e-5


class WrongError(AssertionError):
    """An answer that is not the expected one."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Who is asked: REST at ``url``, gRPC at ``grpc_address``, both by the name ``host`` where a gateway goes by names."""

    url: str = ""
    grpc_address: str = ""
    host: str = ""
    model_name: str = "digits"


class Load:
    """Requests of one image each, sent from a thread of its own while this is entered.

    ``expected`` has the probabilities of each image for each version of the model that may answer; which holds is said by the
    version that an answer names. ``versions`` can be narrowed meanwhile, for what is sent from then on; ``phase`` is named in
    ``failures``.
    """

    def __init__(
        self,
        target: Target,
        images: Floats,
        expected: Mapping[str, Floats],
        *,
        rate: float,
        protocols: tuple[Protocol, ...] = (*REST, "grpc"),
    ) -> None:
        self._target, self._expected, self._period, self._protocols = target, expected, 1 / rate, protocols
        self._wire, self._messages = _wire(target, images, protocols), [question(image[None], is_raw=True) for image in images]
        self._stop, self._thread = threading.Event(), threading.Thread(target=lambda: asyncio.run(self._send()), daemon=True)
        self.versions, self.phase = frozenset(expected), ""
        self.due = 0
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []
        self.latencies: list[float] = []
        self.answered_by: Counter[str] = Counter()
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(2 * _TIMEOUT_SECONDS)
        assert not self._thread.is_alive(), "it still sends"

    @property
    def sent(self) -> int:
        """How many requests there were that ended, one way or another."""
        return self.outcomes.total()

    def __str__(self) -> str:
        quantiles = np.quantile(self.latencies or [np.nan], [0.5, 0.99, 1]) * 1000
        times = "p50 {:.1f} ms, p99 {:.1f} ms, at most {:.0f} ms".format(*quantiles)
        head = f"{self.sent} requests, {self.sent / max(self.seconds, 1e-9):.0f}/s: {dict(self.outcomes)}, {times}"
        return "\n".join([f"{head}, by version {dict(self.answered_by)}", *self.failures[:20]])

    def verify(self, *, least_requests: int = 0, least_rate: float = 0.0) -> None:
        """Raise `AssertionError` unless every answer was right, and so many requests came at such a rate."""
        assert self.sent == self.due, f"{self.due} were due; {self}"
        assert set(self.outcomes) == {"right"}, self
        assert self.sent >= least_requests, self
        assert self.sent >= least_rate * self.seconds, self

    async def _send(self) -> None:
        """Open loop: a request is due whether or not the last was answered."""
        loop = asyncio.get_running_loop()
        self._connections = Connections(self._target.url) if self._target.url else None
        self._channel = self._open_channel() if "grpc" in self._protocols else None
        tasks: set[asyncio.Task[None]] = set()
        begun = loop.time()
        for number in itertools.count():
            if self._stop.is_set():
                break
            task = asyncio.create_task(self._one(number, begun + number * self._period))
            tasks.add(task)
            self.due += 1
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(max(0, begun + (number + 1) * self._period - loop.time()))
        self.seconds = loop.time() - begun
        await asyncio.gather(*tasks)
        if self._connections:
            self._connections.close()
        if self._channel:
            await self._channel.close()

    async def _one(self, number: int, due: float) -> None:
        protocol = self._protocols[number % len(self._protocols)]
        # Turns of its own, so that every protocol has both kinds of connection.
        is_new, index = number // len(self._protocols) % 2 == 0, number % len(self._messages)
        versions, phase = self.versions, self.phase
        ask: Callable[..., Awaitable[tuple[str, Floats]]] = self._grpc if protocol == "grpc" else self._rest
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                version, found = await ask(protocol, index, is_new=is_new)
            self._check(version, found, index, versions)
        except ConnectionRefusedError as error:
            outcome, reason = "refused", repr(error)
        except grpc.aio.AioRpcError as error:
            outcome, reason = _judge(error), f"{error.code()} {error.details()}"
        except (WrongError, ValueError, LookupError) as error:
            outcome, reason = "wrong", repr(error)
        except (OSError, EOFError, TimeoutError) as error:
            outcome, reason = "lost", repr(error)
        else:
            outcome, reason = "right", ""
            self.latencies.append(asyncio.get_running_loop().time() - due)
        self.outcomes[outcome] += 1
        if reason:
            moment = time.strftime("%H:%M:%S")
            self.failures.append(f"{moment} {phase}: {outcome}: {protocol}, {'new' if is_new else 'kept'} connection: {reason}")

    def _check(self, version: str, found: Floats, index: int, versions: frozenset[str]) -> None:
        """Raise `WrongError` unless ``found`` is what ``version`` says, one of ``versions``, of the image."""
        self.answered_by[version] += 1
        if version not in versions:
            message = f"version {version!r} answered, expected one of {sorted(versions)}"
            raise WrongError(message)
        expected = self._expected[version][index]
        if found.shape != expected.shape or not np.abs(found - expected).max() < _TOLERANCE:
            message = f"image {index}, version {version}: expected {expected.tolist()}, got {found.tolist()}"
            raise WrongError(message)

    async def _rest(self, protocol: Protocol, index: int, *, is_new: bool) -> tuple[str, Floats]:
        assert self._connections
        reply = await self._connections.ask(self._wire[protocol][index], is_new=is_new)
        if reply.status != 200:
            message = f"{reply.status} {reply.body[:300]!r}"
            raise OSError(message)
        return reply.headers.get("x-model-version", ""), _probabilities(protocol, reply)

    def _open_channel(self, *options: tuple[str, Any]) -> Any:
        name = [("grpc.default_authority", self._target.host)] if self._target.host else []
        return grpc.aio.insecure_channel(self._target.grpc_address, options=[*name, *options])

    async def _grpc(self, protocol: Protocol, index: int, *, is_new: bool) -> tuple[str, Floats]:
        del protocol
        if not is_new:
            return await self._infer(self._channel, index)
        async with self._open_channel(("grpc.use_local_subchannel_pool", 1)) as channel:
            return await self._infer(channel, index)

    async def _infer(self, channel: Any, index: int) -> tuple[str, Floats]:
        stub = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        call = stub(self._messages[index], timeout=_TIMEOUT_SECONDS)
        answer = await call
        version = dict(await call.trailing_metadata()).get("x-model-version", "")
        return version, np.frombuffer(answer.raw_output_contents[1], np.float32)


def _wire(target: Target, images: Floats, protocols: tuple[Protocol, ...]) -> dict[Protocol, list[bytes]]:
    """The requests of each protocol over REST, written once."""
    wire: dict[Protocol, list[bytes]] = {protocol: [] for protocol in protocols if protocol != "grpc"}
    for image in images:
        tensor = {"name": "images", "datatype": "FP32", "shape": [1, 784], "data": image.ravel().tolist()}
        content, headers = binary_request(image[None])
        bodies: dict[Protocol, tuple[str, bytes, dict[str, str]]] = {
            "v1": (":predict", json.dumps({"instances": [image.tolist()]}).encode(), {}),
            "v2_json": ("/infer", json.dumps({"inputs": [tensor]}).encode(), {}),
            "v2_binary": ("/infer", content, {**headers, "content-type": "application/octet-stream"}),
        }
        for protocol, requests in wire.items():
            suffix, body, headers = bodies[protocol]
            path = f"/{protocol[:2]}/models/{target.model_name}{suffix}"
            requests.append(post(target.url, path, target.host, body, {"content-type": "application/json", **headers}))
    return wire


def _probabilities(protocol: Protocol, reply: Reply) -> Floats:
    if protocol == "v2_binary":
        return np.frombuffer(reply.body[-40:], np.float32)
    answer = json.loads(reply.body)
    found = answer["predictions"][0]["probabilities"] if protocol == "v1" else answer["outputs"][1]["data"]
    return np.array(found, np.float32)


def _judge(error: grpc.aio.AioRpcError) -> str:
    """Whose fault it was that a call failed."""
    # Never sent: no connection, or one that the server had said it was closing.
    if error.code() is grpc.StatusCode.UNAVAILABLE and "connect" in (error.details() or "").lower():
        return "refused"
    # Never accepted: grpc tells clients that it closes and from then on cancels calls, also those on their way to it.
    if error.code() is grpc.StatusCode.CANCELLED and error.details() == "CANCELLED":
        return "crossed"
    return "lost"
