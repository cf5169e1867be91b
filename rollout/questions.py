"""How images are asked about, and answers read, over REST and gRPC."""

import json
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from google.protobuf.message import DecodeError

from model.bundle import LABELS, Floats, Labels
from rollout.wire import Reply, Request
from serving import shadow, tensors
from serving.rpc import load_messages

ProtocolName = Literal["rest", "grpc"]

# Who sends a request with it asks that it is not kept as a sample of live ones.
MARK = {shadow.MARK: "1"}
LENGTH = tensors.HEADER_LENGTH
SERVICE = "/inference.GRPCInferenceService"
_TOLERANCE = 1e-3
_DTYPES: dict[str, np.dtype[Any]] = {"labels": np.dtype("<i8"), "probabilities": np.dtype("<f4")}
_ODD = (ValueError, LookupError, TypeError, AttributeError, DecodeError)


class Questions(Protocol):
    """A protocol; ``ready`` asks whether the model is."""

    ready: Request

    def batch(self, images: Floats) -> Request:
        """A question about ``images`` (n, 28, 28), written as it costs least."""

    def single(self, image: Floats) -> Request:
        """A question about an image (28, 28), written as users do."""

    def labels(self, reply: Reply, count: int) -> Labels:
        """The labels (count,) in an answer to either. Raises ValueError for what is no answer."""

    def is_ready(self, reply: Reply) -> bool:
        """What an answer to ``ready`` says."""


class RestQuestions:
    """V2 in binary, and V1 in JSON."""

    def __init__(self, model_name: str) -> None:
        self.predict, self.infer = f"/v1/models/{model_name}:predict", f"/v2/models/{model_name}/infer"
        self.ready = Request(path=f"/v2/models/{model_name}/ready", method="GET", headers=MARK)

    def batch(self, images: Floats) -> Request:
        """A question about ``images`` (n, 28, 28)."""
        size = {"binary_data_size": images.nbytes}
        tensor = {"name": "images", "datatype": "FP32", "shape": images.shape, "parameters": size}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        headers = {"content-type": "application/octet-stream", LENGTH: str(len(head)), **MARK}
        return Request(path=self.infer, body=head + images.tobytes(), headers=headers)

    def single(self, image: Floats) -> Request:
        """A question about an image (28, 28)."""
        body = json.dumps({"instances": [image.tolist()]}).encode()
        return Request(path=self.predict, body=body, headers={"content-type": "application/json", **MARK})

    def labels(self, reply: Reply, count: int) -> Labels:
        """The labels (count,) in an answer. Raises ValueError."""
        return _checked(_read_binary if LENGTH in reply.headers else _read_json, reply, count)

    def is_ready(self, reply: Reply) -> bool:
        """Whether the model is ready."""
        return reply.kind == "answered"


def _read_json(reply: Reply) -> tuple[Any, Any]:
    answer = json.loads(reply.body)
    if "predictions" in answer:
        predictions = answer["predictions"]
        return [one["label"] for one in predictions], [one["probabilities"] for one in predictions]
    outputs = {output["name"]: output for output in answer["outputs"]}
    probabilities = outputs["probabilities"]
    return outputs["labels"]["data"], np.reshape(probabilities["data"], probabilities["shape"])


def _read_binary(reply: Reply) -> tuple[Any, Any]:
    length = int(reply.headers[LENGTH])
    found, rest = {}, reply.body[length:]
    for output in json.loads(reply.body[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        found[output["name"]] = np.frombuffer(rest[:size], _DTYPES[output["name"]]).reshape(output["shape"])
        rest = rest[size:]
    return found["labels"], found["probabilities"]


class GrpcQuestions:
    """gRPC with raw contents."""

    def __init__(self, model_name: str) -> None:
        self._pb: Any = load_messages()
        self.model_name, self.infer = model_name, f"{SERVICE}/ModelInfer"
        message = self._pb.ModelReadyRequest(name=model_name)
        self.ready = Request(path=f"{SERVICE}/ModelReady", body=message.SerializeToString(), headers=MARK)

    def batch(self, images: Floats) -> Request:
        """A question about ``images`` (n, 28, 28)."""
        return self.request(self.message(images).SerializeToString())

    def message(self, images: Floats, **changes: Any) -> Any:
        """A message about ``images`` (n, 28, 28), with changes to what it says of its tensor."""
        message = self._pb.ModelInferRequest(model_name=self.model_name, raw_input_contents=[images.tobytes()])
        message.inputs.add(**{"name": "images", "datatype": "FP32", "shape": images.shape, **changes})
        return message

    def names_version(self, body: bytes) -> bool:
        """Whether a message that a server understood asks for a version of the model."""
        return bool(self._pb.ModelInferRequest.FromString(body).model_version)

    def request(self, body: bytes) -> Request:
        """An inference asked for by a message, or by what is none."""
        return Request(path=self.infer, body=body, headers=MARK)

    def single(self, image: Floats) -> Request:
        """A question about an image (28, 28)."""
        return self.batch(image[None])

    def labels(self, reply: Reply, count: int) -> Labels:
        """The labels (count,) in an answer. Raises ValueError."""
        return _checked(self._read, reply, count)

    def _read(self, reply: Reply) -> tuple[Any, Any]:
        message = self._pb.ModelInferResponse.FromString(reply.body)
        raw = zip(message.outputs, message.raw_output_contents, strict=bool(message.raw_output_contents))
        found = {output.name: np.frombuffer(content, _DTYPES[output.name]).reshape(output.shape) for output, content in raw}
        return found["labels"], found["probabilities"]

    def is_ready(self, reply: Reply) -> bool:
        """Whether the model is ready."""
        return reply.kind == "answered" and bool(self._pb.ModelReadyResponse.FromString(reply.body).ready)


def questions(protocol: ProtocolName, model_name: str) -> Questions:
    """Those of a protocol."""
    return GrpcQuestions(model_name) if protocol == "grpc" else RestQuestions(model_name)


def _checked(read: Callable[[Reply], tuple[Any, Any]], reply: Reply, count: int) -> Labels:
    """The labels, where they and the probabilities are possible ones."""
    try:
        found = read(reply)
        labels, probabilities = np.asarray(found[0], np.int64), np.asarray(found[1], np.float64)
    except _ODD as error:
        message = f"an answer that makes no sense: {error!r:.120}"
        raise ValueError(message) from error
    if labels.shape != (count,) or probabilities.shape != (count, len(LABELS)):
        message = f"an answer to {labels.shape} and {probabilities.shape}, expected one to {count} images"
        raise ValueError(message)
    # What is not a number is not close to 1.
    if not (np.abs(probabilities.sum(axis=1) - 1) < _TOLERANCE).all() or (probabilities.argmax(axis=1) != labels).any():
        message = "probabilities that do not add up to 1, or whose largest is not the label's"
        raise ValueError(message)
    return labels
