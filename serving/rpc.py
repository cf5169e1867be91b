"""The gRPC server: the Open Inference Protocol's service, as kserve defines it, with the same codec, engine and counts as REST.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md
"""

import importlib.util
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from serving import tensors
from serving.batcher import Batcher
from serving.calls import Call, CallServer, Metadata
from serving.engine import Answer
from serving.errors import RequestError, UnknownModel, fail
from serving.service import Service
from serving.shadow import MARK, Sample
from serving.tensors import Inference, Output

if TYPE_CHECKING:
    from concurrent.futures import Future

_SERVICE = "inference.GRPCInferenceService"
_MESSAGES = "kserve.protocol.grpc.grpc_predict_v2_pb2"
_CODES = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
# Where the typed contents of a tensor of each datatype are.
_CONTENTS = {"FP32": "fp32_contents", "FP64": "fp64_contents", "UINT8": "uint_contents"}

logger = logging.getLogger("serving")
Handler = Callable[["Exchange", Any], None]


def load_messages() -> ModuleType:
    """kserve's protobuf messages, without the second that importing all of kserve takes; it finds them loaded later."""
    if _MESSAGES not in sys.modules:
        package = importlib.util.find_spec("kserve")
        assert package, "kserve is a dependency"
        assert package.origin
        path = Path(package.origin).parent / "protocol" / "grpc" / "grpc_predict_v2_pb2.py"
        spec = importlib.util.spec_from_file_location(_MESSAGES, path)
        assert spec, "the path ends in .py"
        assert spec.loader
        sys.modules[_MESSAGES] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[_MESSAGES]


class Exchange:
    """A call and its answer, which is counted."""

    def __init__(self, service: Service, call: Call, route: str, lineage: Metadata) -> None:
        self.started = perf_counter()
        self.metadata = call.metadata
        self._service, self._call, self._route = service, call, route
        given = next((value for name, value in call.metadata if name == "x-request-id"), "")
        self._request_id = service.request_id(given if isinstance(given, str) else "")
        self._trailer = (*lineage, ("x-request-id", self._request_id))
        service.metrics.begin()

    def answer(self, response: Any) -> None:
        """Answer with a message."""
        self._call.answer(response.SerializeToString(), self._trailer)
        self._close("OK")

    def refuse(self, error: Exception) -> None:
        """Answer with an error."""
        code, details = grpc.StatusCode.INTERNAL, "internal error"
        if isinstance(error, RequestError):
            code, details = _CODES[error.status], str(error)
        else:
            logger.error(details, exc_info=error)
        self._call.refuse(code, details, self._trailer)
        self._close(code.name, details)

    def keep(self, sample: Sample) -> None:
        """Let ``sample`` have the call, which was answered, if it is due."""
        message = self._call.message or b""
        if self.started >= sample.due and MARK not in dict(self.metadata) and sample.claim(self.started, len(message)):
            sample.keep(self._call.method, {}, message)

    def leave(self) -> None:
        """Its client has gone away."""
        self._close("CANCELLED")

    def _close(self, status: str, error: str = "") -> None:
        self._service.close("grpc", self._route, status, self.started, self._request_id, error)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who asks for an inference, and whether in raw contents."""

    exchange: Exchange
    inference: Inference
    is_raw: bool


class Servicer:
    """The service's methods, but the two that load and unload models, which are closed.

    With ``kserve_infer``, inference is kserve's to answer, with the same model.
    """

    def __init__(self, service: Service, kserve_infer: Callable[[Any, Metadata], "Future[Any]"] | None = None) -> None:
        self._service, self._kserve_infer = service, kserve_infer
        self._pb: Any = load_messages()
        self._lineage = tuple(service.identity.headers.items())
        self._asked: list[_Asked] = []
        methods: dict[str, tuple[str, Handler]] = {
            "ServerLive": ("health", self._server_live),
            "ServerReady": ("health", self._server_ready),
            "ModelReady": ("health", self._model_ready),
            "ServerMetadata": ("metadata", self._server_metadata),
            "ModelMetadata": ("metadata", self._model_metadata),
            "ModelInfer": ("infer", self._infer),
        }
        self._methods = {
            f"/{_SERVICE}/{name}": (route, getattr(self._pb, f"{name}Request"), handler)
            for name, (route, handler) in methods.items()
        }

    def server(self, port: int, options: list[tuple[str, Any]]) -> CallServer:
        """A server on all addresses at ``port``. Raises `RuntimeError` where the port is taken."""
        return CallServer(self.answer, self._methods, f"[::]:{port}", options)

    def answer(self, calls: list[Call]) -> None:
        """Answer calls that came together: the engine runs for all of them at once."""
        for call in calls:
            route, message, handler = self._methods[call.method]
            exchange = Exchange(self._service, call, route, self._lineage)
            if call.is_cancelled:
                exchange.leave()
                continue
            try:
                handler(exchange, parse(message, call.message or b""))
            except Exception as error:  # noqa: BLE001 -- whatever it was, this client must hear of it
                exchange.refuse(error)
        together: dict[Batcher, list[_Asked]] = {}
        for one in self._asked:
            is_probe = MARK in dict(one.exchange.metadata)
            together.setdefault(self._service.batcher_for(is_probe=is_probe), []).append(one)
        self._asked = []
        for batcher, asked in together.items():
            self._answer_inferences(batcher, asked)

    def _answer_inferences(self, batcher: Batcher, asked: list[_Asked]) -> None:
        now = perf_counter()
        try:
            answers = batcher.answer_together(
                [one.inference.images for one in asked], [now - one.exchange.started for one in asked]
            )
        except Exception as error:  # noqa: BLE001 -- as above
            for one in asked:
                one.exchange.refuse(error)
            return
        for one, answer in zip(asked, answers, strict=True):
            one.exchange.answer(self._write(answer, one.inference, is_raw=one.is_raw))
            if self._service.sample:
                one.exchange.keep(self._service.sample)

    def _server_live(self, exchange: Exchange, request: Any) -> None:
        del request
        exchange.answer(self._pb.ServerLiveResponse(live=True))

    def _server_ready(self, exchange: Exchange, request: Any) -> None:
        del request
        exchange.answer(self._pb.ServerReadyResponse(ready=not self._service.is_draining))

    def _model_ready(self, exchange: Exchange, request: Any) -> None:
        self._check_model(request.name, request.version)
        exchange.answer(self._pb.ModelReadyResponse(ready=not self._service.is_draining))

    def _server_metadata(self, exchange: Exchange, request: Any) -> None:
        del request
        exchange.answer(self._pb.ServerMetadataResponse(name="kserve", version=metadata.version("kserve"), extensions=[]))

    def _model_metadata(self, exchange: Exchange, request: Any) -> None:
        self._check_model(request.name, request.version)
        fields = self._service.identity.metadata(*tensors.metadata())
        # The message has no place for them; they are in the trailing metadata.
        del fields["properties"]
        exchange.answer(self._pb.ModelMetadataResponse(**fields))

    def _check_model(self, name: str, version: str) -> None:
        if name != self._service.name:
            raise UnknownModel(name, [self._service.name])
        tensors.check_version(version, self._service.identity.version)

    def _infer(self, exchange: Exchange, request: Any) -> None:
        self._check_model(request.model_name, request.model_version)
        inference = read(request, self._service.limits.max_instances)
        if self._kserve_infer:
            self._kserve_infer(request, exchange.metadata).add_done_callback(partial(_pass_on, exchange))
        else:
            self._asked.append(_Asked(exchange, inference, bool(request.raw_input_contents)))

    def _write(self, answer: Answer, inference: Inference, *, is_raw: bool) -> Any:
        """The response, raw where the request was."""
        identity = self._service.identity
        response = self._pb.ModelInferResponse(model_name=identity.name, model_version=identity.version, id=inference.id or "")
        values = tensors.arrays(answer)
        for output in inference.outputs:
            array = values[output.name]
            tensor = response.outputs.add(name=output.name, datatype=tensors.OUTPUTS[output.name], shape=array.shape)
            if is_raw:
                response.raw_output_contents.append(array.tobytes())
            elif output.name == "labels":
                tensor.contents.int64_contents.extend(array.tolist())
            else:
                tensor.contents.fp32_contents.extend(array.ravel().tolist())
        return response


def _pass_on(exchange: Exchange, result: "Future[Any]") -> None:
    try:
        exchange.answer(result.result())
    except Exception as error:  # noqa: BLE001 -- whatever it was, this client must hear of it
        exchange.refuse(error)


def parse(message: Any, content: bytes) -> Any:
    """The ``message`` in ``content``. Raises `FieldError`."""
    try:
        return message.FromString(content)
    except DecodeError:
        fail("message", f"a {message.DESCRIPTOR.name}", f"{len(content)} bytes that are none")


def read(request: Any, max_instances: int) -> Inference:
    """The images and outputs of a ``ModelInferRequest``. Raises `FieldError`."""
    if len(request.inputs) != 1:
        fail("inputs", f"one tensor, {tensors.INPUT}", f"{len(request.inputs)}")
    tensor = request.inputs[0]
    shape = tensors.check_tensor(tensor.name, tensor.datatype, list(tensor.shape), max_instances)
    raw = request.raw_input_contents
    if raw:
        if len(raw) != 1 or tensor.HasField("contents"):
            fail("raw_input_contents", "one, and then no contents in inputs", f"{len(raw)}")
        images = tensors.from_bytes("raw_input_contents[0]", raw[0], tensor.datatype, shape)
    else:
        # protobuf's repeated numbers become an array without a Python object for each.
        dtype = np.float64 if tensor.datatype != "UINT8" else np.uint64
        pixels = np.array(getattr(tensor.contents, _CONTENTS[tensor.datatype]), dtype)
        images = tensors.from_numbers(f"inputs[0].contents.{_CONTENTS[tensor.datatype]}", pixels, tensor.datatype, shape)
    return Inference(images=images, outputs=_outputs(request), id=request.id)


def _outputs(request: Any) -> tuple[Output, ...]:
    names = [output.name for output in request.outputs]
    for index, name in enumerate(names):
        if name not in tensors.OUTPUTS or name in names[:index]:
            fail(f"outputs[{index}].name", f"each of {', '.join(tensors.OUTPUTS)} at most once", repr(name[:40]))
    return tuple(Output(name=name) for name in names) or tensors.ALL_OUTPUTS
