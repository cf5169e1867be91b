"""From a checkpoint to a bundle: export, parity, calibration, reference profile, figures."""

import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from model.bundle import IMAGE_SHAPE, ONNX, Bundle, Floats, Labels, Lineage, probabilities
from model.data import MnistData
from model.errors import ConfigError
from model.module import NETWORK_ARGUMENTS
from model.network import Network, load_network
from model.profile import build_profile, calibrate, calibration_error, negative_log_likelihood
from model.tracking import git_revision

# Largest difference between a logit of torch and of ONNX Runtime that rounding explains.
PARITY_TOLERANCE = 1e-4


class ParityError(RuntimeError):
    """The ONNX export does not compute what the checkpoint computes."""


def build_bundle(directory: Path, *, checkpoint: Path, data: MnistData, run_id: str | None) -> Bundle:
    """Make the bundle of ``checkpoint`` in ``directory``.

    The temperature and the reference profile come from the validation images; the test images only give figures.
    Raises `ConfigError` where training diverged, and `ParityError` where the export differs from the checkpoint on an image.
    """
    hyper_parameters = torch.load(checkpoint, map_location="cpu", weights_only=True)["hyper_parameters"]
    arguments = {name: hyper_parameters[name] for name in NETWORK_ARGUMENTS}
    network = load_network(checkpoint, arguments)
    (images, labels), (test_images, test_labels) = data.split("validation").arrays(), data.split("test").arrays()
    with tempfile.TemporaryDirectory() as scratch:
        onnx = Path(scratch, ONNX)
        export_onnx(network, onnx)
        logits = torch_logits(network, images)
        if not np.isfinite(logits).all():
            message = "model.learning_rate: training diverged, the network's answers are no finite numbers"
            raise ConfigError(message)
        difference = float(np.abs(logits - onnx_logits(onnx, images)).max())
        if not difference <= PARITY_TOLERANCE:
            message = f"ONNX and torch differ by {difference:.2g} on a validation image, {PARITY_TOLERANCE:g} is allowed"
            raise ParityError(message)
        temperature = calibrate(logits, labels)
        calibrated = probabilities(logits, temperature)
        bundle = Bundle(
            network=arguments,
            temperature=temperature,
            metrics={
                **_figures("validation", calibrated, labels),
                "validation_calibration_error_before": calibration_error(probabilities(logits, 1.0), labels),
                **_figures("test", probabilities(torch_logits(network, test_images), temperature), test_labels),
            },
            onnx_max_abs_difference=difference,
            profile=build_profile(images, calibrated),
            lineage=Lineage(run_id=run_id, git_revision=git_revision(), data_digest=data.digest, split_seed=data.split_seed),
        )
        return bundle.save(directory, checkpoint=checkpoint, onnx=onnx)


def export_onnx(network: Network, path: Path) -> None:
    """Write ``network`` to ``path``: ``images`` (n, 28, 28) float32 in [0, 1] to ``logits`` (n, 10)."""
    # The exporter warns of torch's own deprecations and of a torchvision that is not there; none of it is ours to mend.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, *IMAGE_SHAPE),),
            path,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("n")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def torch_logits(network: Network, images: Floats) -> Floats:
    """Logits (n, 10) of ``images`` (n, 28, 28) from torch."""
    with torch.inference_mode():
        logits: Floats = network(torch.from_numpy(images)).numpy()
    return logits


def onnx_logits(path: Path, images: Floats) -> Floats:
    """Logits (n, 10) of ``images`` (n, 28, 28) from ONNX Runtime."""
    import onnxruntime  # noqa: PLC0415 -- after model.bundle, which keeps it from reporting its use

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits: Floats = session.run(["logits"], {"images": images})[0]
    return logits


def _figures(split: str, predicted: Floats, labels: Labels) -> dict[str, float]:
    return {
        f"{split}_accuracy": float((predicted.argmax(axis=1) == labels).mean()),
        f"{split}_nll": negative_log_likelihood(predicted, labels),
        f"{split}_calibration_error": calibration_error(predicted, labels),
    }
