"""Faults put into an exported model: ONNX graphs that answer as before, but late, not always, or not in the beginning."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession, SessionOptions

from model.bundle import IMAGE_SHAPE

_SIDE = 128


def delay(source: Path, target: Path, *, seconds: float) -> None:
    """The same answers, each run of the model about so much later on this machine, whatever the number of images."""
    turns = 2000
    _delay(source, target, turns)
    _delay(source, target, round(turns * seconds / run_seconds(target)))


def run_seconds(graph: Path) -> float:
    """What a run of one blank image takes of a core; the shortest of a few, whatever else the machine has to do."""
    options = SessionOptions()
    # All of it in this thread, whose time is measured.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    took = []
    for _ in range(5):
        begun = time.thread_time()
        session.run(["logits"], {"images": np.zeros((1, *IMAGE_SHAPE), np.float32)})
        took.append(time.thread_time() - begun)
    return min(took)


def _delay(source: Path, target: Path, turns: int) -> None:
    """A loop multiplies squares, and nothing of it is added to the logits."""
    model = _open(source)
    body = _loop_body("MatMul", ["x", "identity"], [_SIDE, _SIDE])
    _finish(
        model,
        target,
        {
            "identity": np.eye(_SIDE, dtype=np.float32),
            "zeros": np.zeros((_SIDE, _SIDE), np.float32),
            "turns": np.array(turns, np.int64),
            "yes": np.array(True),
            "zero": np.array(0, np.float32),
        },
        [
            # It begins with the images, or it would be computed once, when the model is loaded.
            helper.make_node("ReduceMean", ["images"], ["images_mean"], keepdims=0),
            helper.make_node("Add", ["zeros", "images_mean"], ["first"]),
            helper.make_node("Loop", ["turns", "yes", "first"], ["last"], body=body),
            helper.make_node("ReduceMean", ["last"], ["last_mean"], keepdims=0),
            helper.make_node("Mul", ["last_mean", "zero"], ["nothing"]),
        ],
    )


def fail_on_ink(source: Path, target: Path, *, above: float, below: float = 2.0) -> None:
    """The same answers, but none where the mean pixel of any image of a run is between these: it looks where a table ends."""
    _finish(
        _open(source),
        target,
        {
            "above": np.array(above, np.float32),
            "below": np.array(below, np.float32),
            "table": np.zeros(1, np.float32),
            "sides": np.array([1, 2]),
        },
        [
            helper.make_node("ReduceMean", ["images", "sides"], ["ink"], keepdims=0),
            helper.make_node("Greater", ["ink", "above"], ["is_above"]),
            helper.make_node("Less", ["ink", "below"], ["is_below"]),
            helper.make_node("And", ["is_above", "is_below"], ["is_between"]),
            helper.make_node("Cast", ["is_between"], ["places"], to=TensorProto.INT64),
            helper.make_node("ReduceMax", ["places"], ["place"], keepdims=0),
            helper.make_node("Gather", ["table", "place"], ["nothing"]),
        ],
    )


def hang_on_blank(source: Path, target: Path) -> None:
    """The same answers, but a run of blank images never ends: the first one of a server, before it is ready, is blank."""
    _finish(
        _open(source),
        target,
        {"zero": np.array(0, np.float32)},
        [
            helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
            helper.make_node("Equal", ["most", "zero"], ["is_blank"]),
            # Without a number of turns: as long as the condition holds, and the body leaves it as it is.
            helper.make_node("Loop", ["", "is_blank", "zero"], ["nothing"], body=_loop_body("Identity", ["x"], [])),
        ],
    )


def _open(source: Path) -> onnx.ModelProto:
    """The model, whose logits are now called ``sound``."""
    model = onnx.load(source)
    for node in model.graph.node:
        node.output[:] = ["sound" if name == "logits" else name for name in node.output]
    return model


def _finish(model: onnx.ModelProto, target: Path, values: dict[str, npt.NDArray[Any]], nodes: list[onnx.NodeProto]) -> None:
    """Add ``nodes`` that make ``nothing``, which is 0, and add that to the logits."""
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    model.graph.node.extend([*nodes, helper.make_node("Add", ["sound", "nothing"], ["logits"])])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def _loop_body(operator: str, inputs: list[str], shape: list[int]) -> onnx.GraphProto:
    """Turns ``x`` into ``y`` by an operator, and goes on as long as the loop's own condition says."""
    return helper.make_graph(
        [helper.make_node(operator, inputs, ["y"]), helper.make_node("Identity", ["goes_on"], ["still_goes_on"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
        ],
        [
            helper.make_tensor_value_info("still_goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, shape),
        ],
    )
