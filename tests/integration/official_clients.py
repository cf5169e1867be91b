"""The official clients, unchanged, each in a process of its own: their protobuf messages have the same names.

    python -m tests.integration.official_clients triton HTTP_ADDRESS GRPC_ADDRESS < images.npy > probabilities.npy

Each way to ask gives probabilities (n, 10), which are written one after the other.
"""

import asyncio
import io
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import numpy as np

from model.bundle import Floats

TIMEOUT_SECONDS = 20


def ask_triton(http_address: str, grpc_address: str, images: Floats) -> Iterator[Floats]:
    """By tritonclient over HTTP, in binary and JSON, all outputs and chosen ones, and over gRPC."""
    from tritonclient import grpc, http  # noqa: PLC0415 -- see above

    client = http.InferenceServerClient(http_address, connection_timeout=TIMEOUT_SECONDS, network_timeout=TIMEOUT_SECONDS)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.get_server_metadata()["name"] == "kserve"
    (described,) = client.get_model_metadata("digits")["inputs"]
    for binary in (True, False):
        tensor = http.InferInput(described["name"], images.shape, described["datatype"])
        tensor.set_data_from_numpy(images, binary_data=binary)
        yield client.infer("digits", [tensor]).as_numpy("probabilities")
        wanted = [http.InferRequestedOutput("probabilities", binary_data=not binary), http.InferRequestedOutput("labels")]
        result = client.infer("digits", [tensor], outputs=wanted, request_id="mine")
        assert result.get_response()["id"] == "mine"
        assert result.as_numpy("labels").tolist() == result.as_numpy("probabilities").argmax(axis=1).tolist()
        yield result.as_numpy("probabilities")
    client.close()
    channel = grpc.InferenceServerClient(grpc_address)
    assert channel.is_server_live()
    assert channel.is_server_ready()
    assert channel.is_model_ready("digits")
    assert channel.get_model_metadata("digits").inputs[0].name == described["name"]
    typed = grpc.InferInput(described["name"], images.shape, "FP32")
    typed.set_data_from_numpy(images)
    yield channel.infer("digits", [typed], client_timeout=TIMEOUT_SECONDS).as_numpy("probabilities")
    result = channel.infer(
        "digits", [typed], outputs=[grpc.InferRequestedOutput("probabilities")], client_timeout=TIMEOUT_SECONDS
    )
    assert result.as_numpy("labels") is None
    yield result.as_numpy("probabilities")
    channel.close()


async def ask_kserve(http_address: str, grpc_address: str, images: Floats) -> AsyncIterator[Floats]:
    """By kserve's clients over V1, V2 in binary and JSON, and gRPC with raw and typed contents."""
    from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest  # noqa: PLC0415 -- see above
    from kserve.inference_client import RESTConfig  # noqa: PLC0415 -- see above

    url = f"http://{http_address}"
    first = InferenceRESTClient(RESTConfig(protocol="v1", timeout=TIMEOUT_SECONDS))
    assert await first.is_server_live(url)
    assert await first.is_model_ready(url, "digits")
    answer: Any = await first.infer(url, {"instances": images.tolist()}, model_name="digits")
    yield np.array([prediction["probabilities"] for prediction in answer["predictions"]], np.float32)
    second = InferenceRESTClient(RESTConfig(protocol="v2", timeout=TIMEOUT_SECONDS))
    checks: list[Awaitable[bool]] = [
        second.is_server_live(url),
        second.is_server_ready(url),
        second.is_model_ready(url, "digits"),
    ]
    assert all(await asyncio.gather(*checks))
    channel = InferenceGRPCClient(grpc_address, timeout=TIMEOUT_SECONDS)
    checks = [channel.is_server_live(), channel.is_server_ready(), channel.is_model_ready("digits")]
    assert all(await asyncio.gather(*checks))
    for binary in (True, False):
        tensor = InferInput("images", list(images.shape), "FP32")
        tensor.set_data_from_numpy(images, binary_data=binary)
        for parameters in ({}, {"binary_data_output": True}):
            request = InferRequest("digits", [tensor], request_id="mine", parameters=parameters)
            answer = await second.infer(url, request, model_name="digits")
            assert answer.id == "mine"
            yield answer.get_output_by_name("probabilities").as_numpy().astype(np.float32)
        answer = await channel.infer(InferRequest("digits", [tensor], request_id="mine"))
        assert answer.get_output_by_name("labels").as_numpy().shape == (len(images),)
        yield answer.get_output_by_name("probabilities").as_numpy()


async def gather(answers: AsyncIterator[Floats]) -> list[Floats]:
    return [answer async for answer in answers]


def main() -> None:
    name, http_address, grpc_address = sys.argv[1:]
    # kserve reads the command line when it is imported.
    sys.argv[1:] = []
    images = np.load(io.BytesIO(sys.stdin.buffer.read()))
    ways = (
        list(ask_triton(http_address, grpc_address, images))
        if name == "triton"
        else asyncio.run(gather(ask_kserve(http_address, grpc_address, images)))
    )
    stream = io.BytesIO()
    np.save(stream, np.stack(ways))
    sys.stdout.buffer.write(stream.getvalue())


if __name__ == "__main__":
    main()
