import tracemalloc

import numpy as np
import orjson
import pytest

from serving.codec import decode, encode
from serving.engine import Answer
from serving.errors import FieldError


def test_images_and_rows_decode_alike() -> None:
    images = np.random.default_rng(0).random((3, 28, 28)).astype(np.float32)
    for shape in ((3, 28, 28), (3, 784)):
        assert np.array_equal(decode(orjson.dumps({"instances": images.reshape(shape).tolist()})), images)


def test_integers_0_and_1_are_numbers() -> None:
    assert decode(orjson.dumps({"instances": [[0, 1] * 392]})).sum() == 392


def test_forms_may_be_mixed_and_a_signature_be_named() -> None:
    body = {"signature_name": "serving_default", "instances": [[0.5] * 784, [[0.25] * 28] * 28]}
    assert decode(orjson.dumps(body)).mean(axis=(1, 2)).tolist() == [0.5, 0.25]


def test_the_limit_on_instances_is_the_callers() -> None:
    with pytest.raises(FieldError, match="instances: expected 1 to 2 images, got 3"):
        decode(orjson.dumps({"instances": [[0.0] * 784] * 3}), max_instances=2)


def test_a_response_names_label_probabilities_and_version() -> None:
    answer = Answer(np.array([1]), np.array([[0.25, 0.75]], np.float32))
    expected = {"predictions": [{"label": 1, "probabilities": [0.25, 0.75]}], "model_version": "3"}
    assert encode(answer, "3") == expected
    shown = encode(answer, "3", np.full((1, 28, 28), 0.5, np.float32))
    assert shown["predictions"][0]["image"] == [[0.5] * 28] * 28


@pytest.mark.parametrize("value", [b"[]", b"{}", b"0", b'""'])
def test_what_would_take_a_pods_memory_is_refused_before_it_is_read(value: bytes) -> None:
    body = b'{"instances":[' + b",".join([value] * 2_000_000) + b"]}"
    tracemalloc.start()
    try:
        with pytest.raises(FieldError, match="body: expected 1024 images of 784 numbers at most, got 2000000 values"):
            decode(body)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
