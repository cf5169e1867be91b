"""The bundle's ONNX graph as the arrays that `forward.py` computes with.

    python loadtests/peers/weights.py --bundle build/bundle --out build/peers/weights.npz

Everything linear is folded into the dense layers: the pixels' transform and batch normalisations into the weights before or
behind them, the temperature into the last one. So the peers compute the least there is to compute.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from model.bundle import Bundle

Array = npt.NDArray[np.float64]
_PIXELS = 784


class UnknownGraphError(ValueError):
    """The graph holds something other than dense layers with ReLU between them."""


class _Fold:
    """Reads nodes in order; ``scale`` and ``shift`` are those of what the next dense layer is given."""

    def __init__(self) -> None:
        self.layers: list[tuple[Array, Array]] = []
        self._scale, self._shift = np.ones(_PIXELS), np.zeros(_PIXELS)
        # Affine nodes that follow a dense layer belong to it until a ReLU comes between.
        self._open = False

    def affine(self, scale: Array, shift: Array) -> None:
        if self._open:
            weight, bias = self.layers[-1]
            self.layers[-1] = (weight * scale, bias * scale + shift)
        else:
            self._scale, self._shift = self._scale * scale, self._shift * scale + shift

    def dense(self, weight: Array, bias: Array) -> None:
        if self._open:
            message = "expected a ReLU between dense layers"
            raise UnknownGraphError(message)
        self.layers.append((weight * self._scale[:, None], bias + self._shift @ weight))
        self._scale, self._shift, self._open = np.ones(weight.shape[1]), np.zeros(weight.shape[1]), True

    def relu(self) -> None:
        if not self._open:
            message = "expected a ReLU behind a dense layer"
            raise UnknownGraphError(message)
        self._open = False


def fold(model: onnx.ModelProto, temperature: float) -> list[tuple[Array, Array]]:
    """Weights (inputs, outputs) and biases (outputs,) of each dense layer. Raises `UnknownGraphError`."""
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    state = _Fold()
    for node in model.graph.node:
        _read(state, node, [constants.get(name) for name in node.input])
    if not state.layers:
        message = "expected a dense layer, got none"
        raise UnknownGraphError(message)
    weight, bias = state.layers[-1]
    return [*state.layers[:-1], (weight / temperature, bias / temperature)]


def _read(state: _Fold, node: onnx.NodeProto, inputs: list[Array | None]) -> None:
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    given = [value for value in inputs[1:] if value is not None]
    match node.op_type, given:
        case "Reshape" | "Flatten", _:
            pass
        case "Sub", [value]:
            state.affine(np.ones(1), -value)
        case "Div", [value]:
            state.affine(1 / value, np.zeros(1))
        case "Relu", _:
            state.relu()
        case "Gemm", [weight, bias] if not attributes.get("transA"):
            alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
            state.dense(alpha * (weight.T if attributes.get("transB") else weight), beta * bias)
        case "BatchNormalization", [gain, offset, mean, variance]:
            scale = gain / np.sqrt(variance + attributes.get("epsilon", 1e-5))
            state.affine(scale, offset - mean * scale)
        case _:
            message = f"expected dense layers with ReLU, got a node {node.op_type}"
            raise UnknownGraphError(message)


def write_weights(bundle: Bundle, path: Path) -> None:
    """Write the arrays of ``bundle`` to ``path``. Raises `UnknownGraphError`."""
    arrays: dict[str, Any] = {}
    for index, (weight, bias) in enumerate(fold(onnx.load(bundle.onnx_path), bundle.temperature)):
        arrays[f"weight{index}"] = np.ascontiguousarray(weight, np.float32)
        arrays[f"bias{index}"] = bias.astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a bundle's weights for the peers.")
    parser.add_argument("--bundle", type=Path, default=Path("build/bundle"), help="The bundle's directory.")
    parser.add_argument("--out", type=Path, default=Path("build/peers/weights.npz"), help="The file to write.")
    options = parser.parse_args()
    write_weights(Bundle.load(options.bundle), options.out)
