"""The gRPC server: the Open Inference Protocol's service, as kserve defines it, with the same codec, engine and counts as REST.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md

Methods run in threads: grpc's server on an event loop takes half as much time again for each request.
"""

import importlib.util
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from serving import tensors
from serving.engine import Answer
from serving.errors import RequestError, UnknownModel, fail
from serving.service import Service
from serving.tensors import Inference, Output

_SERVICE = "inference.GRPCInferenceService"
_MESSAGES = "kserve.protocol.grpc.grpc_predict_v2_pb2"
_CODES = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
# Where the typed contents of a tensor of each datatype are.
_CONTENTS = {"FP32": "fp32_contents", "FP64": "fp64_contents", "UINT8": "uint_contents"}
_THREADS = 4
# Requests of all connections of a process; more are answered with RESOURCE_EXHAUSTED.
_MAX_CONCURRENT = 1024

logger = logging.getLogger("serving")
Method = Callable[[Any, grpc.ServicerContext], Any]


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


class Servicer:
    """The service's methods, but the two that load and unload models, which are closed."""

    def __init__(self, service: Service, kserve_infer: Method | None = None) -> None:
        self._service, self._kserve_infer = service, kserve_infer
        self._pb: Any = load_messages()
        self._lineage = tuple(service.identity.headers.items())

    def handler(self) -> grpc.GenericRpcHandler:
        """All methods, each counted and with errors as gRPC statuses."""
        methods: dict[str, tuple[str, Method]] = {
            "ServerLive": ("health", self._server_live),
            "ServerReady": ("health", self._server_ready),
            "ModelReady": ("health", self._model_ready),
            "ServerMetadata": ("metadata", self._server_metadata),
            "ModelMetadata": ("metadata", self._model_metadata),
            "ModelInfer": ("infer", self._infer),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                # Messages are parsed by us: grpc keeps some of those that it cannot, and tells nobody.
                partial(self._answer, route, method, getattr(self._pb, f"{name}Request")),
                response_serializer=getattr(self._pb, f"{name}Response").SerializeToString,
            )
            for name, (route, method) in methods.items()
        }
        handler: grpc.GenericRpcHandler = grpc.method_handlers_generic_handler(_SERVICE, handlers)
        return handler

    def _answer(self, route: str, method: Method, message: Any, content: bytes, context: grpc.ServicerContext) -> Any:
        started = perf_counter()
        given = next((value for name, value in context.invocation_metadata() or () if name == "x-request-id"), "")
        request_id = self._service.request_id(given if isinstance(given, str) else "")
        trailer = (*self._lineage, ("x-request-id", request_id))
        status, error = "CANCELLED", ""
        self._service.metrics.begin()
        try:
            if not context.is_active():
                # Its client went away while it waited for a thread.
                return None
            answer = method(parse(message, content), context)
            context.set_trailing_metadata(trailer)
            status = "OK"
        except RequestError as refusal:
            code, error = _CODES[refusal.status], str(refusal)
            status = code.name
            context.set_trailing_metadata(trailer)
            context.abort(code, error)
        except Exception:
            status, error = "INTERNAL", "internal error"
            logger.exception(error)
            context.set_trailing_metadata(trailer)
            context.abort(grpc.StatusCode.INTERNAL, error)
        finally:
            self._service.close("grpc", route, status, started, request_id, error)
        return answer

    def _server_live(self, request: Any, context: Any) -> Any:
        del request, context
        return self._pb.ServerLiveResponse(live=True)

    def _server_ready(self, request: Any, context: Any) -> Any:
        del request, context
        return self._pb.ServerReadyResponse(ready=not self._service.is_draining)

    def _model_ready(self, request: Any, context: Any) -> Any:
        del context
        self._check_model(request.name, request.version)
        return self._pb.ModelReadyResponse(ready=not self._service.is_draining)

    def _server_metadata(self, request: Any, context: Any) -> Any:
        del request, context
        return self._pb.ServerMetadataResponse(name="kserve", version=metadata.version("kserve"), extensions=[])

    def _model_metadata(self, request: Any, context: Any) -> Any:
        del context
        self._check_model(request.name, request.version)
        fields = self._service.identity.metadata(*tensors.metadata())
        # The message has no place for them; they are in the trailing metadata.
        del fields["properties"]
        return self._pb.ModelMetadataResponse(**fields)

    def _check_model(self, name: str, version: str) -> None:
        if name != self._service.name:
            raise UnknownModel(name, [self._service.name])
        tensors.check_version(version, self._service.identity.version)

    def _infer(self, request: Any, context: Any) -> Any:
        self._check_model(request.model_name, request.model_version)
        inference = read(request, self._service.limits.max_instances)
        if self._kserve_infer:
            return self._kserve_infer(request, context)
        answer = self._service.batcher.answer_now(inference.images)
        return self._write(answer, inference, is_raw=bool(request.raw_input_contents))

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


def start_server(servicer: Servicer, port: int, options: list[tuple[str, Any]]) -> grpc.Server:
    """A server on all addresses at ``port``. Raises `RuntimeError` where the port is taken."""
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc")
    server = grpc.server(pool, handlers=[servicer.handler()], options=options, maximum_concurrent_rpcs=_MAX_CONCURRENT)
    server.add_insecure_port(f"[::]:{port}")
    server.start()
    return server
