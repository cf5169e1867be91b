"""What is wrong with an answer, in words; nothing where it is right."""

import json
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from model.bundle import Floats
from serving.engine import Engine
from serving.rpc import load_messages
from tests.fuzz import reference
from tests.fuzz.body import V1_FEEDBACK_PATH, V1_PATH, V2_FEEDBACK_PATH, Body
from tests.fuzz.messages import INFER, MAX_MESSAGE_BYTES
from tests.fuzz.target import Reply

_ATOL = 1e-5
_MOST_LABELLED = 64
_ERROR_BYTES, _ECHO_CHARACTERS = 600, 48
_ERROR = re.compile(r"[^\n]{1,100}: expected [^\n]+", re.DOTALL)
_REFUSED = {"400", "404", "413"}
_RPC_REFUSED = {"INVALID_ARGUMENT", "NOT_FOUND"}
_METHODS = (INFER, "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
_HEADERS = ("x-model-version", "x-request-id")
_BINARY_TYPES = {"INT64": "<i8", "FP32": "<f4"}


class Judge:
    """Compares answers with those of ``engine``, of a bundle of ``version``."""

    def __init__(self, engine: Engine, version: str) -> None:
        self._engine, self._version = engine, version
        self._pb: Any = load_messages()

    def rest(self, body: Body, reply: Reply) -> str:
        """What is wrong with an answer of REST."""
        missing = [name for name in _HEADERS if not reply.headers.get(name)]
        if missing or reply.headers.get("x-model-version") != self._version:
            return f"{reply.status} without {missing or 'the right version'}: {reply.content[:200]!r}"
        if reply.status != "200":
            return self._refusal(body, reply)
        try:
            if body.target in (V1_FEEDBACK_PATH, V2_FEEDBACK_PATH):
                return self._feedback(body, reply)
            return self._v1(body, reply) if body.target == V1_PATH else self._v2(body, reply)
        except (ValueError, KeyError, TypeError) as error:
            return f"200 that makes no sense: {error!r:.300}; {reply.content[:200]!r}"

    def _refusal(self, body: Body, reply: Reply) -> str:
        if reply.status not in _REFUSED:
            return f"status {reply.status}: {reply.content[:300]!r}"
        if body.is_good or _is_plain_v1(body):
            return f"a good request was refused with {reply.status}: {reply.content[:300]!r}"
        if reply.headers.get("content-type") != "application/json":
            return f"an error of type {reply.headers.get('content-type')}"
        try:
            payload = json.loads(reply.content)
        except ValueError:
            return f"an error that is no JSON: {reply.content[:200]!r}"
        if not isinstance(payload, dict) or list(payload) != ["error"] or not isinstance(payload["error"], str):
            return f"an error that is not {{'error': text}}: {reply.content[:200]!r}"
        return _about_error(body, payload["error"], len(reply.content))

    def _v1(self, body: Body, reply: Reply) -> str:
        payload = json.loads(reply.content)
        is_event = "data" in payload
        predictions = (payload["data"] if is_event else payload)["predictions"]
        labels = np.array([prediction["label"] for prediction in predictions])
        probabilities = np.array([prediction["probabilities"] for prediction in predictions], np.float64)
        is_pictures = body.headers.get("content-type", b"").lower().startswith((b"image/png", b"image/jpeg"))
        # Of events and pictures there is no second opinion.
        has_opinion = body.images is None and not is_pictures and not is_event
        images = _opinion(body.content) if has_opinion else None
        return self._compare(body, labels, probabilities, images)

    def _feedback(self, body: Body, reply: Reply) -> str:
        payload = json.loads(reply.content)
        counted, correct, other = (payload[name] for name in ("counted", "correct", "other_version"))
        if (
            payload["model_version"] != self._version
            or not 0 <= correct <= counted <= _MOST_LABELLED
            or (counted == 0) == (other == 0)
        ):
            return f"feedback that does not add up: {payload}"
        if body.is_good and counted != body.count:
            return f"{counted} images were counted, expected {body.count}"
        if body.images is not None and correct != counted:
            return f"{correct} of {counted} labels are correct, which are the engine's own"
        return ""

    def _v2(self, body: Body, reply: Reply) -> str:
        length = reply.headers.get("inference-header-content-length")
        payload = json.loads(reply.content[: int(length)] if length else reply.content)
        tail = reply.content[int(length) :] if length else b""
        outputs = {}
        for output in payload["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size")
            dtype = _BINARY_TYPES[output["datatype"]]
            values = np.array(output["data"], dtype) if size is None else np.frombuffer(tail[:size], dtype)
            outputs[output["name"]] = values.reshape(output["shape"])
            tail = tail[size or 0 :]
        if tail or not outputs or payload["model_name"] != "digits" or payload["model_version"] != self._version:
            return f"a response that does not fit: {len(tail)} bytes too many, {reply.content[:200]!r}"
        images = reference.v2_images(body.content, body.headers.get("inference-header-content-length"))
        return self._compare(body, outputs.get("labels"), outputs.get("probabilities"), images)

    def _compare(
        self, body: Body, labels: npt.NDArray[Any] | None, probabilities: npt.NDArray[Any] | None, images: Floats | None
    ) -> str:
        images = body.images if body.images is not None else images
        count = next(len(values) for values in (labels, probabilities) if values is not None)
        wanted = len(images) if images is not None else body.count if body.is_good else None
        if count != wanted and (wanted is not None or not count):
            return f"{count} predictions, expected {wanted}"
        if probabilities is not None and (wrong := _odd(count, labels, probabilities)):
            return wrong
        if images is None:
            return ""
        expected = self._engine.predict(images)
        if probabilities is not None and not np.allclose(probabilities, expected, atol=_ATOL, rtol=0):
            return f"probabilities are {np.abs(probabilities - expected).max():g} off the engine's own"
        if labels is not None and probabilities is None and (labels != expected.argmax(axis=1)).any():
            return f"labels {labels[:5]}, expected {expected.argmax(axis=1)[:5]}"
        return ""

    def rpc(self, body: Body, reply: Reply) -> str:
        """What is wrong with an answer of gRPC."""
        if _is_of_library(body, reply.status):
            return ""
        if any(not reply.headers.get(name) for name in _HEADERS) or reply.headers["x-model-version"] != self._version:
            return f"{reply.status} without the right metadata: {reply.error[:300]}"
        if reply.status in _RPC_REFUSED and not body.is_good:
            return _about_error(body, reply.error, len(reply.error.encode()))
        if reply.status != "OK":
            return f"status {reply.status}: {reply.error[:300]}"
        return self._response(body, reply) if body.target == INFER else ""

    def _response(self, body: Body, reply: Reply) -> str:
        response = self._pb.ModelInferResponse.FromString(reply.content)
        outputs = {}
        for index, output in enumerate(response.outputs):
            dtype = _BINARY_TYPES[output.datatype]
            if response.raw_output_contents:
                values = np.frombuffer(response.raw_output_contents[index], dtype)
            else:
                contents = output.contents.int64_contents if output.name == "labels" else output.contents.fp32_contents
                values = np.array(contents, dtype)
            outputs[output.name] = values.reshape(list(output.shape))
        if not outputs or response.model_version != self._version:
            return f"a response that does not fit: {len(outputs)} outputs of version {response.model_version!r}"
        try:
            images = reference.grpc_images(body.content)
        except (ValueError, KeyError) as error:
            return f"OK that makes no sense: {error!r:.300}"
        return self._compare(body, outputs.get("labels"), outputs.get("probabilities"), images)


def _odd(count: int, labels: npt.NDArray[Any] | None, probabilities: npt.NDArray[Any]) -> str:
    if probabilities.shape != (count, 10) or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-4):
        return f"probabilities of shape {probabilities.shape} which add up to {probabilities.sum(axis=-1)[:3]}"
    if labels is not None and (labels != probabilities.argmax(axis=1)).any():
        return f"labels {labels[:5]} are not the most probable ones"
    return ""


def _is_of_library(body: Body, status: str) -> bool:
    """Whether gRPC's own library answers so, and the service never sees the request."""
    if status == "UNIMPLEMENTED":
        return body.target not in _METHODS
    if status == "RESOURCE_EXHAUSTED":
        return len(body.content) > MAX_MESSAGE_BYTES
    # What it cannot parse, its threads answer with INTERNAL, its asyncio with UNKNOWN.
    return status in ("INTERNAL", "UNKNOWN") and not reference.is_message(body.target, body.content)


def _is_plain_v1(body: Body) -> bool:
    is_json = body.headers.get("content-type", b"").lower() in (b"", b"application/json") and "ce-specversion" not in body.headers
    return body.target == V1_PATH and is_json and len(body.content) < 1_000_000 and reference.is_good_v1(body.content)


def _opinion(content: bytes) -> Floats | None:
    try:
        return reference.v1_images(content)
    except RecursionError:
        return None


def _about_error(body: Body, error: str, size: int) -> str:
    if not _ERROR.fullmatch(error) or size >= _ERROR_BYTES:
        return f"an error of {size} bytes, expected one line of 'field: expected ...': {error[:300]!r}"
    echoed = next((text for text in _windows(error) if text in body.content), None)
    return f"an error that gives back what was sent, {echoed!r}" if echoed else ""


def _windows(error: str) -> list[bytes]:
    return [error[start : start + _ECHO_CHARACTERS].encode() for start in range(len(error) - _ECHO_CHARACTERS + 1)]
