"""The KServe predictor: the served model as kserve's ``Model``, behind kserve's data plane and its app.

Importing this imports kserve, which takes longer than all else at the start: `serving.kserve_app` does it later.
"""

from dataclasses import dataclass
from typing import Any

from kserve import InferRequest, InferResponse, Model
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.infer_type import InferOutput

from model.bundle import Floats
from serving import codec, tensors
from serving.engine import Answer
from serving.errors import FieldError
from serving.service import Service
from serving.shadow import MARK


@dataclass(frozen=True)
class Body:
    """A V1 request body as it came, for our own codec to read."""

    content: bytes


@dataclass(frozen=True)
class Question:
    """The images of a request, and the V2 request that they came in."""

    images: Floats
    request: InferRequest | None = None


class DigitModel(Model):  # type: ignore[misc]  # kserve has no types
    """The served digit classifier. It is ready from the start: its bundle was loaded, and has answered, before."""

    def __init__(self, service: Service) -> None:
        super().__init__(service.name)
        self._service = service
        self.ready = True

    async def preprocess(self, payload: Any, headers: dict[str, str] | None = None) -> Question:
        """The images of a V1 body, the data of a cloud event, or a V2 request. Raises `FieldError`."""
        limit = self._service.limits.max_instances
        if isinstance(payload, Body):
            content_type = (headers or {}).get("content-type", "")
            return Question(await self._service.in_thread(codec.decode, payload.content, content_type, limit))
        if isinstance(payload, InferRequest):
            (tensor,) = payload.inputs
            tensors.check_tensor(tensor.name, tensor.datatype, tensor.shape, limit)
            pixels = tensor.as_numpy().ravel()
            return Question(tensors.from_numbers("inputs[0].data", pixels, tensor.datatype, tuple(tensor.shape)), payload)
        return Question(codec.parse_instances(payload, max_instances=limit))

    async def predict(self, payload: Question, headers: dict[str, str] | None = None) -> dict[str, Any] | InferResponse:
        """The response, of the protocol that the request came in."""
        answer = await self._service.batcher_for(is_probe=MARK in (headers or ())).answer(payload.images)
        identity = self._service.identity
        if payload.request is None:
            shown = payload.images if (headers or {}).get("x-return-images", "").lower() == "true" else None
            return codec.encode(answer, identity.version, shown)
        return self._respond(answer, payload.request, (headers or {}).get("x-request-id", ""))

    def _respond(self, answer: Answer, request: InferRequest, request_id: str) -> InferResponse:
        outputs = []
        for name, array in tensors.arrays(answer).items():
            output = InferOutput(name=name, datatype=tensors.OUTPUTS[name], shape=list(array.shape))
            output.set_data_from_numpy(array, binary_data=request.use_binary_outputs)
            outputs.append(output)
        if request.from_grpc and request.request_outputs:
            outputs = [next(output for output in outputs if output.name == wanted.name) for wanted in request.request_outputs]
        identity = self._service.identity
        return InferResponse(
            response_id=request_id if request.id is None else request.id,
            model_name=identity.name,
            model_version=identity.version,
            infer_outputs=outputs,
            from_grpc=request.from_grpc,
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=None if request.from_grpc else request.request_outputs,
        )


class Plane(DataPlane):  # type: ignore[misc]  # kserve has no types
    """kserve's data plane, except that V1 bodies reach the model unparsed, so that each error names a field."""

    def decode(self, body: Any, headers: dict[str, str], *arguments: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """What the model is given, and the attributes of a cloud event. Raises `FieldError`."""
        if options.get("protocol_version") == "v2":
            return super().decode(body, headers, *arguments, **options)  # type: ignore[no-any-return]
        if headers.get("content-type", "").startswith("application/cloudevents"):
            expected = "in a cloud event, a JSON object with a list of instances"
            event = codec.parse_json(body, expected)
            if not isinstance(event, dict) or "data" not in event:
                field = "data"
                raise FieldError(field, expected, "none")
            return event.pop("data"), event
        return Body(body), {name.removeprefix("ce-"): value for name, value in headers.items() if name.startswith("ce-")}
