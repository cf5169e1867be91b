"""The model as every peer computes it: float32 numpy, weights read once from the file named by PEER_WEIGHTS.

    from forward import Forward
    probabilities = Forward()(images)  # (n, 784) in [0, 1] to (n, 10)

It imports numpy alone, because each peer runs in an environment of its own. `weights.py` writes the file.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Forward:
    """Dense layers with ReLU between them, and a softmax; the pixels' transform and the temperature are in the weights."""

    def __init__(self, path: str | Path | None = None) -> None:
        with np.load(path or os.environ["PEER_WEIGHTS"]) as arrays:
            count = len(arrays.files) // 2
            layers = [(arrays[f"weight{index}"], arrays[f"bias{index}"]) for index in range(count)]
        *self._hidden, self._last = layers

    def __call__(self, images: Floats) -> Floats:
        """Calibrated probabilities (n, 10) of ``images`` (n, 784) in [0, 1]."""
        values = images
        for weight, bias in self._hidden:
            values = values @ weight
            values += bias
            np.maximum(values, 0, out=values)
        weight, bias = self._last
        logits = values @ weight
        logits += bias
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        result: Floats = logits
        return result

    def v1(self, images: Floats) -> dict[str, Any]:
        """The V1 response for ``images`` (n, 784)."""
        probabilities = self(images)
        pairs = zip(probabilities.argmax(axis=1).tolist(), probabilities.tolist(), strict=True)
        return {"predictions": [{"label": label, "probabilities": row} for label, row in pairs]}
