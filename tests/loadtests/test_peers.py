"""The pure parts of the side-by-side benchmark: what h2load says, frames, weights, the table and the bars."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from loadtests.peers.answers import compare
from loadtests.peers.contestants import CONTESTANTS
from loadtests.peers.forward import Forward
from loadtests.peers.h2load import LoadError, Target, check, parse_log, parse_summary, percentile, spacing_ms, steady
from loadtests.peers.report import Figures, better, judge, markdown, ratios
from loadtests.peers.run import cores, parse
from loadtests.peers.weights import UnknownGraphError, fold, write_weights
from loadtests.peers.wire import (
    AnswerError,
    frame,
    grpc_answer,
    grpc_request,
    messages,
    v1_answer,
    v1_body,
    v2_answer,
    v2_body,
)
from model.bundle import Bundle
from model.data import MnistData
from serving.engine import Engine

OUTPUT = """starting benchmark...
finished in 2.00s, 1158.50 req/s, 437.64KB/s
requests: 2317 total, 2317 started, 2317 done, 2317 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 2317 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 855.00KB (875520) total, 200.00KB (204800) headers (space savings 0.00%), 452.54KB (463400) data
                     min         max         mean         sd        +/- sd
time for request:      101us     46.97ms     12.40ms      4.00ms    70.00%
"""
TARGET = Target(url="http://127.0.0.1:1/", body=Path("body"), headers=("a: b",), answer_bytes=200)


def figures() -> Figures:
    ours: dict[str, list[float]] = {
        "v1_c64": [5000, 6000, 5500],
        "v1_c1": [3000, 3000, 3000],
        "p50": [1, 1, 1],
        "p99": [3, 3, 3],
        "v2_b32": [90_000, 90_000, 90_000],
        "grpc_c64": [4000, 4000, 4000],
        "start": [1, 1, 1],
        "start_1": [1, 1, 1],
        "pss": [200, 200, 200],
    }
    kserve = {column: [value / 4 for value in values] for column, values in ours.items()}
    kserve |= {"v2_b32": [9000, 9001, 8999], "start": [4, 4, 1.5], "start_1": [2, 2, 2], "p99": [30, 30, 30], "p50": [2, 2, 2]}
    echo: dict[str, list[float]] = {"v1_c64": [10_000, 12_000, 11_000], "p99": [1, 1, 1], "duel": [0.5, 0.4, 0.5]}
    return {"ours": ours, "echo": echo, "kserve": kserve, "flask": {"v1_c1": [1500, 1500, 1400]}}


def test_summary_of_h2load() -> None:
    summary = parse_summary(OUTPUT)
    assert (summary.rate, summary.done, summary.bad, summary.data_bytes) == (1158.5, 2317, 0, 463400)
    check(summary, TARGET, connections=1)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("0 failed", "3 failed", "3 of 2317"),
        ("0 5xx", "2 5xx", "2 of 2317"),
        ("2317 2xx, 0 3xx", "2316 2xx, 1 3xx", "1 of 2317"),
        ("2317 done", "0 done", "0 of 0"),
        ("(463400) data", "(0) data", "length of 0 right ones"),
    ],
)
def test_a_load_that_was_not_answered_well_has_no_figure(before: str, after: str, says: str) -> None:
    assert before in OUTPUT
    with pytest.raises(LoadError, match=says):
        check(parse_summary(OUTPUT.replace(before, after)), TARGET, connections=64)


def test_no_result_is_an_error() -> None:
    with pytest.raises(LoadError, match="could not connect"):
        parse_summary("could not connect")


def test_arguments_of_both_protocols() -> None:
    assert TARGET.arguments() == ["--h1", "-t", "1", "-d", "body", "-H", "a: b", "http://127.0.0.1:1/"]
    assert dataclasses.replace(TARGET, http2=True).arguments()[:2] == ["-m", "1"]


def test_log_in_order_of_starts_without_its_ends() -> None:
    lines = [f"{1_000_000 + 100_000 * index}\t200\t{1000 * index}\n" for index in range(30)]
    rows = parse_log("".join(reversed(lines)))
    milliseconds, rate = steady(rows, begin=1, end=2)
    assert milliseconds == list(range(10, 20))
    assert rate == 10


def test_log_with_an_error_or_nothing_is_an_error() -> None:
    with pytest.raises(LoadError, match="not all"):
        steady(parse_log("1000000\t200\t5\n1500000\t-1\t5\n"), begin=0, end=1)
    with pytest.raises(LoadError, match="0 requests"):
        steady([], begin=0, end=1)


def test_percentiles() -> None:
    values = [float(value) for value in range(101)]
    assert (percentile(values, 50), percentile(values, 99), percentile([7.0], 99)) == (50, 99, 7)


@pytest.mark.parametrize("rate", [2.0, 20.0, 50.0, 90.0])
def test_connections_do_not_send_together(rate: float) -> None:
    phases = sorted(index * spacing_ms(64, rate) % (1000 / rate) for index in range(64))
    assert max(np.diff(phases)) <= 1000 / rate / 6


def test_grpc_frame() -> None:
    assert frame(b"abc") == b"\x00\x00\x00\x00\x03abc"
    assert frame(bytes(70_000))[:5] == b"\x00\x00\x01\x11\x70"


def test_v1_writes_what_was_rounded() -> None:
    body = v1_body(np.array([[0, 1, 0.502, 0.0039]], np.float32))
    assert body == b'{"instances": [[0.0, 1.0, 0.502, 0.0039]]}'


def test_v2_and_grpc_hold_the_images_and_are_read_back() -> None:
    images = np.random.default_rng(0).random((3, 784), np.float32)
    probabilities = np.eye(10, dtype=np.float32)[:3]
    body, length = v2_body(images)
    assert body[length:] == images.tobytes()
    assert grpc_request(images).raw_input_contents[0] == images.tobytes()
    labels, content = np.arange(3), probabilities.tobytes()
    header = (
        b'{"outputs":[{"name":"labels","datatype":"INT64","shape":[3],"parameters":{"binary_data_size":24}},'
        b'{"name":"probabilities","datatype":"FP32","shape":[3,10],"parameters":{"binary_data_size":120}}]}'
    )
    compare(*v2_answer(header + labels.tobytes() + content, len(header)), probabilities)
    pb = messages()
    outputs = [
        pb.ModelInferResponse.InferOutputTensor(name="labels", datatype="INT64", shape=[3]),
        pb.ModelInferResponse.InferOutputTensor(name="probabilities", datatype="FP32", shape=[3, 10]),
    ]
    compare(*grpc_answer(pb.ModelInferResponse(outputs=outputs, raw_output_contents=[labels.tobytes(), content])), probabilities)
    outputs[0].contents.int64_contents.extend(labels.tolist())
    outputs[1].contents.fp32_contents.extend(probabilities.ravel().tolist())
    compare(*grpc_answer(pb.ModelInferResponse(outputs=outputs)), probabilities)
    with pytest.raises(AnswerError, match="expected labels"):
        grpc_answer(pb.ModelInferResponse())


def test_wrong_answers_are_told() -> None:
    expected = np.eye(10, dtype=np.float32)[:1]
    compare(*v1_answer(b'{"predictions": [{"label": 0, "probabilities": [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]}]}'), expected)
    for labels, probabilities in (([1], expected), ([0], expected + 1e-3), ([0], expected[:, :9]), ([], expected[:0])):
        with pytest.raises(AnswerError, match="wrong"):
            compare(labels, probabilities, expected)
    for content in (b"", b"[]", b"{}", b'{"predictions": [7]}', b'{"error": "no"}'):
        with pytest.raises(AnswerError, match="expected a V1 answer"):
            v1_answer(content)


def test_the_peers_forward_is_the_engines(bundle: Bundle, mnist: MnistData, tmp_path: Path) -> None:
    images = mnist.split("test").arrays()[0][:500]
    write_weights(bundle, tmp_path / "weights.npz")
    assert np.abs(Forward(tmp_path / "weights.npz")(images.reshape(-1, 784)) - Engine(bundle).predict(images)).max() < 1e-5


def graph(*nodes: Any) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    shapes = {
        "w": (5, 784),
        "b": (5,),
        "v": (3, 5),
        "c": (3,),
        "gain": (5,),
        "offset": (5,),
        "mean": (5,),
        "variance": (5,),
        "s": (),
    }
    tensors = [onnx.numpy_helper.from_array(random.random(shape, np.float32) + 0.5, name) for name, shape in shapes.items()]
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    return onnx.helper.make_model(onnx.helper.make_graph(list(nodes), "g", value[:1], value[1:], tensors))


def node(kind: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return onnx.helper.make_node(kind, list(inputs), [output], **attributes)


def test_batch_normalisation_and_pixel_transform_are_folded() -> None:
    model = graph(
        node("Sub", "x", "s", output="1"),
        node("Div", "1", "variance", output="2"),
        node("Gemm", "2", "w", "b", output="3", transB=1),
        node("BatchNormalization", "3", "gain", "offset", "mean", "variance", output="4"),
        node("Relu", "4", output="5"),
        node("Gemm", "5", "v", "c", transB=1),
    )
    # Only a scalar divisor fits 784 pixels.
    model.graph.node[1].input[1] = "s"
    given = {tensor.name: onnx.numpy_helper.to_array(tensor).astype(float) for tensor in model.graph.initializer}
    images = np.random.default_rng(1).random((4, 784))
    values = (images - given["s"]) / given["s"] @ given["w"].T + given["b"]
    values = (values - given["mean"]) / np.sqrt(given["variance"] + 1e-5) * given["gain"] + given["offset"]
    expected = (np.maximum(values, 0) @ given["v"].T + given["c"]) / 2
    (weight, bias), (last, shift) = fold(model, temperature=2)
    assert np.maximum(images @ weight + bias, 0) @ last + shift == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([node("Gelu", "x")], "got a node Gelu"),
        ([node("Relu", "x")], "ReLU behind a dense layer"),
        ([node("Gemm", "x", "w", "b", transB=1, output="1"), node("Gemm", "1", "v", "c", transB=1)], "ReLU between"),
        ([], "got none"),
    ],
)
def test_other_networks_are_refused(nodes: list[onnx.NodeProto], says: str) -> None:
    with pytest.raises(UnknownGraphError, match=says):
        fold(graph(*nodes), temperature=1)


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios(figures(), "v1_c64", "echo") == [0.5, 0.5, 0.5]
    assert ratios(figures(), "v1_c64", "nobody") == []


def test_bars_held_and_missed() -> None:
    verdicts = {(verdict.bar.column, verdict.bar.peer): verdict for verdict in judge(figures())}
    assert verdicts["v1_c64", "echo"].values == [0.5, 0.4, 0.5]
    assert all(verdict.held for verdict in verdicts.values()), [verdict.line() for verdict in verdicts.values()]
    assert len(verdicts) == 9
    worse = figures() | {"kserve": {**figures()["kserve"], "grpc_c64": [2100.0] * 3, "start": []}}
    missed = {verdict.bar.column: verdict for verdict in judge(worse) if not verdict.held}
    assert set(missed) == {"grpc_c64", "start"}
    assert "not measured" in missed["start"].line()
    assert missed["grpc_c64"].line() == "MISSED: gRPC, 64 conn., req/s: at least 2 kserve's, 1.9 (1.9-1.9)"


def test_bars_of_absent_contestants_are_left_out() -> None:
    present = {name: figures()[name] for name in ("ours", "flask")}
    assert {verdict.bar.column for verdict in judge(present)} == {"v1_c1", "pss"}
    assert judge({"echo": {}}) == []


def test_report_names_what_others_do_better() -> None:
    assert better(figures()) == ["kserve is better in memory (PSS), MiB: 50, ours 200"]
    results = {
        "date": "2026-11-23",
        "machine": {"cpu": "CPU", "cores": 2},
        "settings": {"rounds": 3},
        "titles": {"ours": "Chiffre"},
        "load_averages": [0.5],
        "figures": figures(),
        "notes": {"flask": {"v1_c64": "2 of 9 requests failed"}},
    }
    text = markdown(results)
    assert "| Chiffre | 5,500 (5,000-6,000) |" in text
    assert "| flask | no (see below) | 1,500 (1,400-1,500) |" in text
    assert "- flask, v1_c64: 2 of 9 requests failed" in text
    assert "kserve is better in memory" in text
    assert text.count("- held: ") == 9


def test_command_line_and_cores() -> None:
    assert parse([]).only == "ours,echo,kserve,fastapi,flask,mlserver,bentoml,litserve"
    assert cores("0-1,4") == {0, 1, 4}


def test_each_peer_is_pinned_exactly() -> None:
    directory = Path("loadtests/peers")
    for contestant in CONTESTANTS.values():
        if contestant.own_environment:
            lines = (directory / f"{contestant.name}.txt").read_text().splitlines()
            assert all("==" in line or line.startswith("#") for line in lines)
            assert (directory / f"{contestant.name}_server.py").is_file()
