"""A real server: good answers on the V1 protocol, and a clear 4xx for everything else."""

import base64
import gzip
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model.bundle import Bundle
from model.data import MnistData
from serving.engine import Engine
from tests.processes import Process, Server

JSON = {"content-type": "application/json"}
GOOD = [[0.0] * 784]
EVENT = {"ce-id": "1", "ce-source": "test", "ce-type": "t", "ce-specversion": "1.0", "content-type": "application/json"}
STRUCTURED = {"content-type": "application/cloudevents+json"}


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def png(size: tuple[int, int] = (28, 28), fill: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size, fill).save(stream, "PNG")
    return stream.getvalue()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def instance(pixel: Any) -> bytes:
    return encode({"instances": [[pixel, *[0.0] * 783]]})


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A request, and what its error must say: the field, and what was expected there."""

    name: str
    says: str
    body: bytes | Callable[[], bytes] = b""
    status: int = 400
    method: str = "POST"
    path: str = "/v1/models/digits:predict"
    headers: dict[str, str] = field(default_factory=lambda: JSON)


BAD = [
    Bad(name="empty body", says="body: expected a JSON object", body=b""),
    Bad(name="no JSON", says="body: expected a JSON object", body=b"hello"),
    Bad(name="cut JSON", says="body: expected a JSON object", body=b'{"instances": [[0.0'),
    Bad(name="trailing JSON", says="body: expected a JSON object", body=encode({"instances": GOOD}) + b"}"),
    Bad(name="invalid UTF-8", says="body: expected a JSON object", body=b'{"instances": "\xff\xfe"}'),
    Bad(name="lone surrogate", says="body: expected a JSON object", body=b'{"instances": "\\ud800"}'),
    Bad(name="UTF-16", says="body: expected a JSON object", body=encode({"instances": GOOD}).decode().encode("utf-16")),
    Bad(name="gzip", says="body: expected a JSON object", body=gzip.compress(encode({"instances": GOOD}))),
    Bad(
        name="nesting of 5,000 lists",
        says="body: expected a JSON object",
        body=b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ),
    Bad(name="nesting of 5,000 objects", says="body: expected a JSON object", body=b'{"instances":' * 5000 + b"0" + b"}" * 5000),
    Bad(name="nesting of 500", says="instances[0]", body=b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}"),
    Bad(name="a list", says="body: expected a JSON object with a list of instances, got a list", body=b"[]"),
    Bad(name="a number", says="body: expected a JSON object with a list of instances, got 7", body=b"7"),
    Bad(name="null", says="body: expected a JSON object with a list of instances, got null", body=b"null"),
    Bad(name="NaN", says="body: expected a JSON object", body=instance(float("nan"))),
    Bad(name="Infinity", says="body: expected a JSON object", body=instance(float("inf"))),
    Bad(name="1e999", says="body: expected a JSON object", body=instance("X").replace(b'"X"', b"1e999")),
    Bad(name="wrong key", says="instances: expected a list of images", body=encode({"images": GOOD})),
    Bad(name="V2 body", says="instances: expected a list of images", body=encode({"inputs": []})),
    Bad(
        name="unknown key",
        says="body: expected no key but instances and signature_name, got 'threshold'",
        body=encode({"instances": GOOD, "threshold": 1}),
    ),
    Bad(name="instances an object", says="instances: expected a list of images", body=encode({"instances": {"0": GOOD}})),
    Bad(name="instances a string", says="instances: expected a list of images", body=encode({"instances": "7"})),
    Bad(name="instances null", says="instances: expected a list of images", body=encode({"instances": None})),
    Bad(name="no instances", says="instances: expected 1 to 1024 images, got 0", body=encode({"instances": []})),
    Bad(name="too many instances", says="instances: expected 1 to 1024 images, got 1025", body=encode({"instances": [0] * 1025})),
    Bad(name="an instance a number", says="instances[1]: expected 28 rows", body=encode({"instances": [GOOD[0], 7]})),
    Bad(name="an instance null", says="instances[0]: expected 28 rows", body=encode({"instances": [None]})),
    Bad(name="an instance a string", says="instances[0]: expected 28 rows", body=encode({"instances": ["7"]})),
    Bad(name="an empty instance", says="instances[0]: expected 28 rows", body=encode({"instances": [[]]})),
    Bad(
        name="783 numbers",
        says="instances[0]: expected 28 rows of 28 numbers, 784 numbers",
        body=encode({"instances": [[0.0] * 783]}),
    ),
    Bad(name="27x28", says="instances[0]: expected 28 rows, got 27", body=encode({"instances": [[[0.0] * 28] * 27]})),
    Bad(
        name="28x27",
        says="instances[0][0]: expected a row of 28 numbers, got 27",
        body=encode({"instances": [[[0.0] * 27] * 28]}),
    ),
    Bad(name="29 rows", says="instances[0]: expected 28 rows, got 29", body=encode({"instances": [[[0.0] * 28] * 29]})),
    Bad(
        name="ragged rows", says="instances[0][27]: expected a row", body=encode({"instances": [[*[[0.0] * 28] * 27, [0.0] * 5]]})
    ),
    Bad(name="a row a number", says="instances[0][1]: expected a row", body=encode({"instances": [[[0.0] * 28, *[0.0] * 27]]})),
    Bad(
        name="28x28x1",
        says="instances[0], pixel 0: expected a number from 0 to 1",
        body=encode({"instances": [[[[0.0]] * 28] * 28]}),
    ),
    Bad(name="a string pixel", says='instances[0], pixel 0: expected a number from 0 to 1, got "0.5"', body=instance("0.5")),
    Bad(name="a boolean pixel", says="instances[0], pixel 0: expected a number from 0 to 1, got true", body=instance(True)),
    Bad(name="a null pixel", says="instances[0], pixel 0: expected a number from 0 to 1, got null", body=instance(None)),
    Bad(name="an object pixel", says="instances[0], pixel 0: expected a number from 0 to 1", body=instance({"v": 1})),
    Bad(name="below 0", says="instances[0], pixel 0: expected a number from 0 to 1, got -0.1", body=instance(-0.1)),
    Bad(name="above 1", says="instances[0], pixel 0: expected a number from 0 to 1, got 1.0001", body=instance(1.0001)),
    Bad(name="bytes 0 to 255", says="instances[0], pixel 0: expected a number from 0 to 1, got 255", body=instance(255)),
    Bad(name="a huge integer", says="instances[0], pixel 0", body=instance("X").replace(b'"X"', b"1" + b"0" * 30)),
    Bad(
        name="the bad one is the last", says="instances[2], pixel 783", body=encode({"instances": [*GOOD * 2, [*[0.0] * 783, 2]]})
    ),
    Bad(name="bad base64", says="instances[0].b64: expected a base64 string", body=encode({"instances": [{"b64": "?"}]})),
    Bad(name="base64 not ASCII", says="instances[0].b64: expected a base64 string", body=encode({"instances": [{"b64": "é"}]})),
    Bad(
        name="base64 a number", says="instances[0].b64: expected a base64 string, got 5", body=encode({"instances": [{"b64": 5}]})
    ),
    Bad(name="base64 empty", says="instances[0].b64: expected a PNG or JPEG image", body=encode({"instances": [{"b64": ""}]})),
    Bad(
        name="base64 of no image",
        says="instances[0].b64: expected a PNG or JPEG",
        body=encode({"instances": [{"b64": b64(b"hello")}]}),
    ),
    Bad(
        name="an object without b64",
        says="instances[0]: expected an object with the key b64",
        body=encode({"instances": [{"png": ""}]}),
    ),
    Bad(
        name="b64 and more",
        says="instances[0]: expected an object with",
        body=encode({"instances": [{"b64": b64(png()), "w": 1}]}),
    ),
    Bad(
        name="a cut PNG",
        says="instances[0].b64: expected a PNG",
        body=encode({"instances": [{"b64": b64(png((99, 99), 9)[:60])}]}),
    ),
    Bad(name="a blank picture", says="body: expected a digit", body=png((60, 60), 255), headers={"content-type": "image/png"}),
    Bad(
        name="a picture too large",
        says="body: expected images of at most",
        body=png((5000, 4000)),
        headers={"content-type": "image/png"},
    ),
    Bad(
        name="pictures too large together",
        says="instances[4].b64: expected images of at most 16,000,000 pixels in a request",
        body=lambda: encode({"instances": [{"b64": b64(bright((1900, 1900)))} for _ in range(5)]}),
    ),
    Bad(
        name="a GIF",
        says="body: expected a PNG or JPEG image",
        body=b"GIF89a" + b"\0" * 99,
        headers={"content-type": "image/png"},
    ),
    Bad(
        name="wrong content type",
        says="content-type: expected application/json",
        body=b"7",
        headers={"content-type": "text/plain"},
    ),
    Bad(name="form", says="content-type", body=b"instances=7", headers={"content-type": "application/x-www-form-urlencoded"}),
    Bad(name="unknown model", says="model: expected digits, got 'nope'", status=404, path="/v1/models/nope:predict"),
    Bad(name="unknown model asked for", says="model: expected digits", status=404, method="GET", path="/v1/models/nope"),
    Bad(name="unknown route", says="path: expected a route", status=404, path="/v1/predict"),
    Bad(name="GET", says="method: expected POST, got GET", status=405, method="GET"),
    Bad(name="PUT", says="method: expected POST, got PUT", status=405, method="PUT"),
    Bad(name="DELETE", says="method: expected", status=405, method="DELETE", path="/v1/models"),
    Bad(name="explain", says="path: expected a route", status=404, path="/v1/models/digits:explain"),
    Bad(name="unload", says="path: expected a route", status=404, path="/v2/repository/models/digits/unload"),
    Bad(name="load", says="path: expected a route", status=404, path="/v2/repository/models/digits/load"),
    Bad(name="no model", says="path: expected a route", status=404, path="/v1/models/:predict"),
    Bad(name="long content type", says="content-type: expected", body=b"7", headers={"content-type": "x" * 20_000}),
    Bad(name="long key", says="instances: expected a list of images", body=encode({"x" * 100_000: 1})),
    Bad(
        name="long key in an instance", says="instances[0]: expected an object", body=encode({"instances": [{"x" * 100_000: 1}]})
    ),
    Bad(name="event without a body", says="body: expected a JSON object", headers=EVENT),
    Bad(name="event that is no JSON", says="body: expected a JSON object", body=b"hello", headers=EVENT),
    Bad(name="event that is a list", says="body: expected a JSON object", body=b"[1]", headers=EVENT),
    Bad(name="structured event without data", says="data: expected", body=b"{}", headers=STRUCTURED),
    Bad(name="structured event with a list", says="body: expected", body=encode({"data": [1]}), headers=STRUCTURED),
    Bad(name="100 MB", says="body: expected at most 33,554,432 bytes", status=413, body=lambda: b" " * 100_000_000),
]


def bright(size: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    picture = Image.new("L", size, 0)
    picture.paste(255, (size[0] // 3, size[1] // 3, size[0] // 2, size[1] // 2))
    picture.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_bad_request_is_answered_at_once_with_the_field_and_the_next_one_works(server: Server, bad: Bad) -> None:
    body = bad.body() if callable(bad.body) else bad.body
    with httpx.Client(timeout=10) as client:
        for _ in range(3):
            start = time.monotonic()
            answer = client.request(bad.method, server.url + bad.path, content=body, headers=bad.headers)
            seconds = time.monotonic() - start
            assert answer.status_code == bad.status, answer.text
            assert answer.headers["content-type"] == "application/json"
            assert list(answer.json()) == ["error"]
            assert bad.says in answer.json()["error"]
            assert len(answer.text) < 400, answer.text
            # A machine that was busy otherwise gets another try; a server that is slow is slow each time.
            if seconds < 1:
                break
        assert seconds < 1
        again = client.post(server.predict_url, json={"instances": GOOD})
        assert again.status_code == 200
        assert len(again.json()["predictions"]) == 1


def test_there_are_at_least_forty_bad_requests_of_different_names() -> None:
    assert len({bad.name for bad in BAD}) == len(BAD) >= 40


def test_chunked_body_above_the_limit_is_refused_too(server: Server) -> None:
    chunks = (b" " * 1_000_000 for _ in range(60))
    answer = httpx.post(server.predict_url, content=chunks, headers=JSON, timeout=10)
    assert answer.status_code == 413


def test_answers_are_the_engines_own(server: Server, bundle: Bundle, mnist: MnistData) -> None:
    images, labels = mnist.split("test").arrays()
    expected = Engine(bundle).predict(images[:100])
    for shape in ((100, 28, 28), (100, 784)):
        answer = httpx.post(server.predict_url, json={"instances": images[:100].reshape(shape).tolist()}, timeout=10).json()
        assert answer["model_version"] == bundle.version
        got = np.array([prediction["probabilities"] for prediction in answer["predictions"]])
        assert np.abs(got - expected).max() < 1e-6
        assert [prediction["label"] for prediction in answer["predictions"]] == expected.argmax(axis=1).tolist()
    assert (expected.argmax(axis=1) == labels[:100]).mean() > 0.9


def test_content_type_with_charset_and_none_are_json(server: Server) -> None:
    for headers in ({"content-type": "application/json; charset=utf-8"}, {}):
        answer = httpx.post(server.predict_url, content=encode({"instances": GOOD}), headers=headers, timeout=10)
        assert answer.status_code == 200, answer.text


def test_raw_pictures_and_base64_agree_with_numbers(server: Server, mnist: MnistData) -> None:
    image = mnist.split("test").images[0].numpy()
    stream = io.BytesIO()
    Image.fromarray(np.round(image * 255).astype(np.uint8)).save(stream, "PNG")
    numbers = httpx.post(server.predict_url, json={"instances": [image.tolist()]}, timeout=10).json()
    base64_ = httpx.post(server.predict_url, json={"instances": [{"b64": b64(stream.getvalue())}]}, timeout=10).json()
    raw = httpx.post(server.predict_url, content=stream.getvalue(), headers={"content-type": "image/png"}, timeout=10).json()
    assert numbers["predictions"][0]["label"] == 7
    for other in (base64_, raw):
        assert other["predictions"][0]["probabilities"] == pytest.approx(numbers["predictions"][0]["probabilities"], abs=1e-5)


def test_cloud_events_are_answered_as_kserve_answers_them(server: Server) -> None:
    answer = httpx.post(server.predict_url, content=encode({"instances": GOOD}), headers=EVENT, timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["ce-source"] == "io.kserve.inference.digits"
    assert len(answer.json()["predictions"]) == 1
    event = {"specversion": "1.0", "id": "1", "source": "test", "type": "t", "data": {"instances": GOOD}}
    answer = httpx.post(server.predict_url, content=encode(event), headers=STRUCTURED, timeout=10)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"]["predictions"]) == 1


def test_readiness_is_of_the_model(server: Server) -> None:
    assert httpx.get(f"{server.url}/v2/models/digits/ready", timeout=10).json() == {"name": "digits", "ready": True}
    assert httpx.get(f"{server.url}/v1/models/digits", timeout=10).json() == {"name": "digits", "ready": True}


def test_a_server_that_answered_everything_has_loaded_nothing_of_training_and_no_pandas(bundle: Bundle) -> None:
    # The interpreter's own list of what was imported, written as it goes.
    with Server("--model_dir", str(bundle.directory), PYTHONPROFILEIMPORTTIME="1") as process:
        httpx.post(process.predict_url, json={"instances": GOOD}, timeout=10).raise_for_status()
        httpx.get(f"{process.url}/v2", timeout=30).raise_for_status()
        imported = {
            line.rsplit("|", 1)[1].strip().split(".")[0]
            for line in process.output.splitlines()
            if line.startswith("import time:")
        }
    assert {"kserve", "onnxruntime", "model", "serving"} <= imported
    assert not {"torch", "lightning", "pytorch_lightning", "mlflow", "sklearn", "pandas"} & imported


@pytest.mark.parametrize("options", [["--workers", "2"], ["--engine", "torch"], ["--max_instances", "2"]], ids=" ".join)
def test_workers_engine_and_limits_are_chosen_by_flag(bundle: Bundle, mnist: MnistData, options: list[str]) -> None:
    images = mnist.split("test").images[:2].numpy()
    expected = Engine(bundle).predict(images)
    with Server("--model_dir", str(bundle.directory), *options) as server:
        for _ in range(10):
            answer = httpx.post(server.predict_url, json={"instances": images.tolist()}, timeout=10).raise_for_status().json()
            got = [prediction["probabilities"] for prediction in answer["predictions"]]
            assert np.abs(np.array(got) - expected).max() < 1e-5
        if "--max_instances" in options:
            assert httpx.post(server.predict_url, json={"instances": GOOD * 3}, timeout=10).status_code == 400
        assert httpx.post(server.predict_url, content=b"[", headers=JSON, timeout=10).status_code == 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model_dir", "nowhere"], "nowhere: expected a bundle"),
        (["--drain_seconds", "-1"], "expected seconds, 0 or more, got -1"),
        (["--predictor_host", "elsewhere"], "--predictor_host: expected other flags: this is the predictor"),
        (["--max_instances", "0"], "expected at least 1, got 0"),
        (["--engine", "tensorflow"], "--engine"),
        (["--no_such_flag"], "--no_such_flag"),
    ],
)
def test_what_cannot_be_served_exits_2_and_says_so(arguments: list[str], message: str) -> None:
    with Process("serving", *arguments) as process:
        assert process.wait(60) == 2
        assert message in process.output
        assert "Traceback" not in process.output
