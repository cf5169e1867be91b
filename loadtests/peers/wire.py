"""The requests of each protocol, and what their answers say.

    from loadtests.peers.wire import v1_body, v2_body, grpc_request

V1 is KServe's; V2 is the Open Inference Protocol by REST with its extension for binary tensors, and by gRPC.
"""

import importlib
import json
from typing import Any

import numpy as np

from loadtests.peers.forward import Floats

LENGTH_HEADER = "Inference-Header-Content-Length"
GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")


class AnswerError(RuntimeError):
    """An answer that is wrong, or none at all."""


def v1_body(images: Floats) -> bytes:
    """The V1 request for ``images`` (n, 784), each number written with the digits that it has."""
    return json.dumps({"instances": [[float(str(pixel)) for pixel in image] for image in images]}).encode()


def v1_answer(content: bytes) -> tuple[Any, Any]:
    """Labels and probabilities of a V1 answer. Raises `AnswerError`."""
    try:
        predictions = json.loads(content)["predictions"]
        return [row["label"] for row in predictions], np.array([row["probabilities"] for row in predictions], np.float32)
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        message = f"expected a V1 answer, got {content[:100]!r}"
        raise AnswerError(message) from error


def v2_body(images: Floats) -> tuple[bytes, int]:
    """The binary V2 request for ``images`` (n, 784), and the length of its JSON part."""
    content = images.astype("<f4").tobytes()
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "FP32"}
    request = {
        "inputs": [tensor | {"parameters": {"binary_data_size": len(content)}}],
        "parameters": {"binary_data_output": True},
    }
    header = json.dumps(request).encode()
    return header + content, len(header)


def v2_answer(content: bytes, header_length: int) -> tuple[Any, Any]:
    """Labels and probabilities of a binary V2 answer. Raises `AnswerError`."""
    types = {"INT64": "<i8", "FP32": "<f4"}
    tensors, offset = {}, header_length
    try:
        for output in json.loads(content[:header_length])["outputs"]:
            end = offset + output["parameters"]["binary_data_size"]
            tensor = np.frombuffer(content[offset:end], types[output["datatype"]])
            tensors[output["name"]], offset = tensor.reshape(output["shape"]), end
        return tensors["labels"].tolist(), tensors["probabilities"]
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        message = f"expected a binary V2 answer with labels and probabilities, got {content[:100]!r}"
        raise AnswerError(message) from error


def frame(message: bytes) -> bytes:
    """A gRPC message as it is sent: not compressed, its length in four bytes, big end first."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def messages() -> Any:
    """The module of kserve's protobuf classes."""
    # Importing kserve reads the command line, which must have been read by ours before.
    return importlib.import_module("kserve.protocol.grpc.grpc_predict_v2_pb2")


def grpc_request(images: Floats) -> Any:
    """The ModelInferRequest for ``images`` (n, 784), with raw contents."""
    pb = messages()
    tensor = pb.ModelInferRequest.InferInputTensor(name="images", datatype="FP32", shape=images.shape)
    return pb.ModelInferRequest(model_name="digits", inputs=[tensor], raw_input_contents=[images.astype("<f4").tobytes()])


def grpc_answer(answer: Any) -> tuple[Any, Any]:
    """Labels and probabilities of a ModelInferResponse, from raw or typed contents. Raises `AnswerError`."""
    tensors: dict[str, Any] = {}
    for index, output in enumerate(answer.outputs):
        integer = output.datatype == "INT64"
        if answer.raw_output_contents:
            tensor = np.frombuffer(answer.raw_output_contents[index], "<i8" if integer else "<f4")
        else:
            tensor = np.array(output.contents.int64_contents if integer else output.contents.fp32_contents)
        tensors[output.name] = tensor.reshape(output.shape)
    if not {"labels", "probabilities"} <= set(tensors):
        message = f"expected labels and probabilities, got {sorted(tensors)}"
        raise AnswerError(message)
    return tensors["labels"].tolist(), tensors["probabilities"]
