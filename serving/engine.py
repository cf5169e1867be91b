"""Engines: ONNX Runtime over the bundle's export, or torch over its checkpoint. Both give the same answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.bundle import IMAGE_SHAPE, LABELS, Bundle, BundleError, Floats, Labels, probabilities

EngineName = Literal["onnx", "torch"]


@dataclass(frozen=True)
class Answer:
    """The most probable labels (n,) and the calibrated probabilities (n, 10) of n images."""

    labels: Labels
    probabilities: Floats

    def part(self, start: int, stop: int) -> "Answer":
        """The answer for images ``start`` to ``stop``."""
        return Answer(self.labels[start:stop], self.probabilities[start:stop])


class Engine:
    """A loaded model.

    Raises:
        BundleError: The bundle's model is not one from images (n, 28, 28) to logits (n, 10).
    """

    def __init__(self, bundle: Bundle, name: EngineName = "onnx") -> None:
        self.bundle, self.name = bundle, name
        self._labels = np.array(bundle.labels, np.int64)
        self._logits = {"onnx": _load_onnx, "torch": _load_torch}[name](bundle)
        # The first run allocates; and a model that cannot answer is found here, not by a user.
        if self.predict(np.zeros((1, *IMAGE_SHAPE), np.float32)).shape != (1, len(LABELS)):
            message = f"{bundle.directory}: expected {len(LABELS)} logits an image"
            raise BundleError(message)

    def predict(self, images: Floats) -> Floats:
        """Calibrated probabilities (n, 10) of ``images`` (n, 28, 28) in [0, 1]."""
        return probabilities(self._logits(images), self.bundle.temperature)

    def answer(self, images: Floats) -> Answer:
        """Labels and probabilities of ``images`` (n, 28, 28) in [0, 1]."""
        predicted = self.predict(images)
        return Answer(self._labels[predicted.argmax(axis=1)], predicted)


def _load_onnx(bundle: Bundle) -> Callable[[Floats], Floats]:
    import onnxruntime  # noqa: PLC0415 -- only one engine is loaded
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415 -- its exceptions

    options = onnxruntime.SessionOptions()
    # Requests are the unit of parallelism: more threads for one of them only take turns with the server's own.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(bundle.onnx_path, options, providers=["CPUExecutionProvider"])
    except (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented) as error:
        message = f"{bundle.onnx_path}: ONNX Runtime does not load it: {error}"
        raise BundleError(message) from error
    shapes = [tuple(node.shape[1:]) for node in (*session.get_inputs(), *session.get_outputs())]
    if shapes != [IMAGE_SHAPE, (len(LABELS),)]:
        message = f"{bundle.onnx_path}: expected images {IMAGE_SHAPE} to logits ({len(LABELS)},), got shapes {shapes}"
        raise BundleError(message)

    def logits(images: Floats) -> Floats:
        result: Floats = session.run(["logits"], {"images": images})[0]
        return result

    return logits


def _load_torch(bundle: Bundle) -> Callable[[Floats], Floats]:
    import torch  # noqa: PLC0415 -- the serving image holds no torch

    from model.network import load_network  # noqa: PLC0415 -- it imports torch

    torch.set_num_threads(1)
    network = load_network(bundle.checkpoint_path, bundle.network)

    def logits(images: Floats) -> Floats:
        with torch.inference_mode():
            result: Floats = network(torch.from_numpy(images)).numpy()
        return result

    return logits
