"""Send the page's test images to a service and compare its answers with their labels; `helm test` runs this in the serving image.

Exit code 1: wrong answers, a wrong version, or none within the time; the last line says which.
"""

import argparse
import http.client
import json
import sys
import time
from pathlib import Path

import grpc
from PIL import Image

import serving.page
from serving.rpc import load_messages

# Each row of the picture holds images of one digit.
SIDE, COLUMNS = 28, 20
COUNT = 10 * COLUMNS


class WrongAnswerError(Exception):
    """The service answers, but not as it should."""


def digits() -> bytes:
    """The images, row by row."""
    sprite = Image.open(Path(serving.page.__file__).with_name("samples.png"))
    corners = [(column * SIDE, row * SIDE) for row in range(10) for column in range(COLUMNS)]
    return b"".join(sprite.crop((x, y, x + SIDE, y + SIDE)).tobytes() for x, y in corners)


def ask_rest(address: str, model: str, pixels: bytes, timeout: float) -> tuple[list[int], str]:
    """Labels and the model's version, by V2. Raises `OSError` while nobody answers, `WrongAnswerError`."""
    tensor = {"name": "images", "datatype": "UINT8", "shape": [COUNT, SIDE, SIDE], "data": list(pixels)}
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request(
            "POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]}), {"content-type": "application/json"}
        )
        answer = connection.getresponse()
        content = answer.read()
    except http.client.HTTPException as error:
        message = f"no answer: {error!r}"
        raise ConnectionError(message) from error
    finally:
        connection.close()
    # A gateway answers so for a service that it does not know yet.
    if answer.status in (404, 502, 503, 504):
        message = f"{answer.status} {content[:200]!r}"
        raise ConnectionError(message)
    if answer.status != http.client.OK:
        message = f"expected 200, got {answer.status}: {content[:200]!r}"
        raise WrongAnswerError(message)
    outputs = {output["name"]: output for output in json.loads(content)["outputs"]}
    return outputs["labels"]["data"], answer.getheader("x-model-version", "")


def ask_grpc(address: str, model: str, pixels: bytes, timeout: float) -> tuple[list[int], str]:
    """The same by gRPC."""
    messages = load_messages()
    tensor = {"name": "images", "datatype": "UINT8", "shape": [COUNT, SIDE, SIDE]}
    request = messages.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[pixels])
    target = address if ":" in address else f"{address}:80"
    with grpc.insecure_channel(target) as channel:
        method = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            messages.ModelInferRequest.SerializeToString,
            messages.ModelInferResponse.FromString,
        )
        try:
            answer, call = method.with_call(request, timeout=timeout)
        except grpc.RpcError as error:
            kind = error.code()
            unready = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.DEADLINE_EXCEEDED)
            message = f"{kind.name}: {error.details()}"
            raise (ConnectionError if kind in unready else WrongAnswerError)(message) from error
    (position,) = [index for index, output in enumerate(answer.outputs) if output.name == "labels"]
    raw = answer.raw_output_contents
    labels = list(memoryview(raw[position]).cast("q")) if raw else list(answer.outputs[position].contents.int64_contents)
    return labels, dict(call.trailing_metadata()).get("x-model-version", "")


def compare(labels: list[int], version: str, arguments: argparse.Namespace) -> str:
    """One line on good answers. Raises `WrongAnswerError`."""
    right = sum(label == index // COLUMNS for index, label in enumerate(labels))
    if len(labels) != COUNT or right < arguments.least_accuracy * COUNT:
        message = f"{right} of {COUNT} labels are right, expected {arguments.least_accuracy:.0%}"
        raise WrongAnswerError(message)
    if not version or arguments.version not in ("", version):
        message = f"x-model-version: expected {arguments.version or 'a version'}, got {version!r}"
        raise WrongAnswerError(message)
    return f"{right} of {COUNT} labels are right, from version {version}"


def main() -> int:
    """Ask until there is an answer; the exit code."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--address", required=True)
    parser.add_argument("--protocol", choices=("rest", "grpc"), required=True)
    parser.add_argument("--model_name", required=True)
    parser.add_argument("--version", default="")
    parser.add_argument("--timeout_seconds", type=float, required=True)
    parser.add_argument("--least_accuracy", type=float, required=True)
    arguments = parser.parse_args()
    ask = {"rest": ask_rest, "grpc": ask_grpc}[arguments.protocol]
    pixels, deadline = digits(), time.monotonic() + arguments.timeout_seconds
    while True:
        try:
            left = max(1.0, deadline - time.monotonic())
            print(compare(*ask(arguments.address, arguments.model_name, pixels, left), arguments))
        except OSError as error:
            if time.monotonic() > deadline:
                print(f"no answer within {arguments.timeout_seconds:g} s: {error}", file=sys.stderr)
                return 1
            time.sleep(1)
        except WrongAnswerError as error:
            print(error, file=sys.stderr)
            return 1
        else:
            return 0


if __name__ == "__main__":
    sys.exit(main())
