"""The fast reader and the exact one agree: whatever the fast one takes, the exact one takes too, with the same numbers."""

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import codec, simd
from serving.errors import FieldError

SHAPES = ((784,), (28, 28))
pixels = st.one_of(
    st.floats(0, 1),
    st.floats(allow_nan=False),
    st.integers(-1, 2),
    st.integers(),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.just([]),
    st.just([0.5]),
)


def exact(body: bytes) -> Any:
    try:
        return codec.parse_instances(codec.parse_json(body, "JSON"))
    except FieldError:
        return None


def fast(body: bytes) -> Any:
    numbers = simd.read_instances(body, SHAPES)
    if numbers is None or not codec.in_range(numbers, 0, 1):
        return None
    return numbers.astype(np.float32).reshape(-1, 28, 28)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A good request in which some pixel, row or byte is another."""
    image: list[Any] = [round(draw(st.floats(0, 1)), draw(st.integers(0, 17)))] * 784
    image[draw(st.integers(0, 783))] = draw(pixels)
    if draw(st.booleans()):
        rows: list[Any] = [image[start : start + 28] for start in range(0, 784, 28)]
        if draw(st.booleans()):
            rows[draw(st.integers(0, 27))] = draw(st.sampled_from([[], [0.0], [0.0] * 29, 0.0, None]))
        image = rows
    if draw(st.booleans()):
        image = draw(st.sampled_from([image[:-1], [*image, 0.0], [image], image]))
    payload = {"instances": [image] * draw(st.integers(0, 3))}
    text = json.dumps(payload).encode()
    if draw(st.booleans()):
        place = draw(st.integers(0, len(text)))
        text = (
            text[:place]
            + draw(st.sampled_from([b"", b" ", b"[", b"]", b",", b"0", b"e9", b"-", b'"', b"\xff"]))
            + text[place + 1 :]
        )
    return text


@settings(max_examples=400, deadline=None)
@given(bodies())
def test_what_the_fast_reader_takes_the_exact_one_takes_too(body: bytes) -> None:
    found = fast(body)
    if found is not None:
        assert np.array_equal(found, exact(body))


def test_the_fast_reader_takes_what_clients_send() -> None:
    images = np.random.default_rng(0).random((3, 28, 28)).astype(np.float32)
    for shape in ((3, 784), (3, 28, 28)):
        for separators in ((",", ":"), (", ", ": ")):
            body = json.dumps({"instances": images.reshape(shape).tolist()}, separators=separators).encode()
            assert np.array_equal(fast(body), images)


def test_what_is_not_plain_is_left_to_the_exact_reader() -> None:
    image = [0.5] * 784
    others: list[Any] = [{"instances": []}, {"instances": [image, {"b64": ""}]}, {"instances": [image], "signature_name": "x"}]
    for payload in [[], 7, {}, *others]:
        assert simd.read_instances(json.dumps(payload).encode(), SHAPES) is None
    assert simd.read_instances(b"\xef\xbb\xbf" + json.dumps({"instances": [image]}).encode(), SHAPES) is None
    twice = json.dumps({"instances": [image]})[:-1] + ', "instances": [' + json.dumps(image) + "]}"
    assert simd.read_instances(twice.encode(), SHAPES) is None


def test_a_large_body_does_not_keep_its_memory_in_the_shared_parser() -> None:
    body = json.dumps({"instances": [[0.5] * 784] * 100}).encode()
    numbers = simd.read_instances(body, SHAPES)
    assert numbers is not None
    assert numbers.shape == (78400,)
