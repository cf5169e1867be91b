"""Requests of the V2 protocol as its clients write them."""

import json
from typing import Any

import numpy as np

from model.bundle import Floats
from serving.rpc import load_messages

pb: Any = load_messages()


def binary_request(images: Floats, datatype: str = "FP32") -> tuple[bytes, dict[str, str]]:
    """Body and headers of a V2 request in binary, for an answer in binary."""
    pixels = images if datatype == "FP32" else np.round(images * 255).astype(np.uint8)
    size = {"binary_data_size": pixels.nbytes}
    tensor = {"name": "images", "datatype": datatype, "shape": list(images.shape), "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + pixels.tobytes(), {"inference-header-content-length": str(len(head))}


def question(images: Floats, *, is_raw: bool, **fields: Any) -> Any:
    request = pb.ModelInferRequest(model_name="digits", **fields)
    tensor = request.inputs.add(name="images", datatype="FP32", shape=images.shape)
    if is_raw:
        request.raw_input_contents.append(images.tobytes())
    else:
        tensor.contents.fp32_contents.extend(images.ravel().tolist())
    return request
