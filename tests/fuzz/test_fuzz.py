"""Ten thousand bodies a protocol, or three hundred, and none of them disturbs the server: see `tests.fuzz.campaign`."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model.bundle import Bundle, Floats
from model.data import MnistData
from model.demo import free_port
from serving.engine import Engine
from serving.rpc import load_messages
from tests.fuzz.body import V1_FEEDBACK_PATH, V1_PATH, V2_FEEDBACK_PATH, V2_PATH, Body
from tests.fuzz.campaign import Campaign, Protocol
from tests.fuzz.checks import Judge
from tests.fuzz.labels import Feedback
from tests.fuzz.messages import INFER, Messages
from tests.fuzz.pictures import Pictures, heavy_pictures, photograph
from tests.fuzz.rest import V1, V2
from tests.fuzz.target import Target
from tests.processes import Server

_IMAGES, _FEW = 48, 2


@pytest.fixture(scope="module")
def target(bundle: Bundle) -> Iterator[Target]:
    http_port, grpc_port = free_port(), free_port()
    # As fast as it comes.
    feedback = ("--feedback", "true", "--feedback_per_second", "1e6")
    ports = ("--http_port", str(http_port), "--grpc_port", str(grpc_port))
    with Server("--model_dir", str(bundle.directory), *ports, "--workers", "2", *feedback) as server:
        yield Target(server, http_port, grpc_port)


@pytest.fixture(scope="module")
def judge(bundle: Bundle) -> Judge:
    return Judge(Engine(bundle), bundle.version)


def v1(images: Floats) -> Protocol:
    known, *large = (_known(V1_PATH, json.dumps({"instances": some.tolist()}).encode(), some) for some in _few_and_many(images))
    return Protocol(name="v1", source=V1(images), known=known, large=tuple(large))


def v2(images: Floats) -> Protocol:
    known, *large = (_known(V2_PATH, _v2_json(some), some) for some in _few_and_many(images))
    return Protocol(name="v2", source=V2(images, is_binary=False), known=known, large=tuple(large))


def v2_binary(images: Floats) -> Protocol:
    known, *large = (_known_binary(some) for some in _few_and_many(images))
    return Protocol(name="v2-binary", source=V2(images, is_binary=True), known=known, large=tuple(large))


def pictures(images: Floats) -> Protocol:
    grey = np.round(images[0] * 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "PNG")
    known = _known(V1_PATH, stream.getvalue(), grey[None].astype(np.float32) / np.float32(255), {"content-type": b"image/png"})
    first = heavy_pictures()
    return Protocol(name="pictures", source=Pictures(images), known=known, large=(photograph(),), first=first)


def grpc(images: Floats) -> Protocol:
    source = Messages(images)
    known, *large = (_known(INFER, _message(some), some) for some in _few_and_many(images))
    return Protocol(name="grpc", source=source, known=known, large=tuple(large), first=tuple(source.oversized()))


def _few_and_many(images: Floats) -> tuple[Floats, Floats, Floats]:
    """Two images, many, and many of which one pixel is none."""
    many = images[np.arange(1024) % len(images)]
    bad = many.copy()
    bad[-1, -1, -1] = -1
    return images[:_FEW], many, bad


def _v2_json(images: Floats) -> bytes:
    tensor = {"name": "images", "shape": [len(images), 784], "datatype": "FP32", "data": images.reshape(-1).tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def _known_binary(images: Floats) -> Body:
    parameters = {"binary_data_size": images.nbytes}
    tensor = {"name": "images", "shape": images.shape, "datatype": "FP32", "parameters": parameters}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return _known(V2_PATH, head + images.tobytes(), images, {"inference-header-content-length": b"%d" % len(head)})


def _message(images: Floats) -> bytes:
    request = load_messages().ModelInferRequest(model_name="digits")
    request.inputs.add(name="images", datatype="FP32", shape=images.shape)
    request.raw_input_contents.append(images.tobytes())
    content: bytes = request.SerializeToString()
    return content


def _known_feedback(images: Floats, labels: list[int], version: str, *, has_tensors: bool) -> Body:
    labels = (labels * len(images))[: len(images)]
    origin = {"model_version": version}
    if has_tensors:
        told = {"name": "labels", "shape": [len(images)], "datatype": "INT64", "data": labels}
        payload = {"inputs": [*json.loads(_v2_json(images))["inputs"], told], "parameters": origin}
    else:
        payload = {"instances": images.tolist(), "labels": labels, **origin}
    body = _known(V2_FEEDBACK_PATH if has_tensors else V1_FEEDBACK_PATH, json.dumps(payload).encode(), images)
    # Of the others nobody knows the labels.
    return body if len(images) == _FEW else replace(body, images=None)


def _known(target: str, content: bytes, images: Floats, headers: dict[str, bytes] | None = None) -> Body:
    is_good = bool(images.min() >= 0)
    return Body(
        content=content,
        target=target,
        origin="valid",
        headers=headers or {},
        is_good=is_good,
        count=len(images),
        images=images,
    )


@pytest.mark.parametrize("make", [v1, v2, v2_binary, pictures, grpc])
def test_no_body_disturbs_the_server(target: Target, judge: Judge, mnist: MnistData, make: Callable[[Floats], Protocol]) -> None:
    images, _ = mnist.split("test").arrays()
    check(Campaign(target, make(images[:_IMAGES]), judge))


def check(campaign: Campaign) -> None:
    campaign.run()
    faults = campaign.faults
    assert not faults, "\n".join([campaign.summary(), *faults[:20], f"and {len(faults) - 20} more" if len(faults) > 20 else ""])


@pytest.mark.parametrize("has_tensors", [False, True], ids=["v1", "v2"])
def test_no_feedback_disturbs_the_server(
    target: Target, judge: Judge, bundle: Bundle, mnist: MnistData, has_tensors: bool
) -> None:
    images, _ = mnist.split("test").arrays()
    source = Feedback(images[:_IMAGES], bundle.version, has_tensors=has_tensors)
    few, many, bad = (some[-64:] for some in _few_and_many(images[:_IMAGES]))
    labels = Engine(bundle).answer(few).labels.tolist()
    known, *large = (_known_feedback(some, labels, bundle.version, has_tensors=has_tensors) for some in (few, many, bad))
    protocol = Protocol(name=f"feedback-{'v2' if has_tensors else 'v1'}", source=source, known=known, large=tuple(large))
    check(Campaign(target, protocol, judge))
