"""Publishing a bundle to the MLflow model registry.

    python -m model publish --bundle build/bundle

A bundle is tested before it is registered, on the validation images and through the ONNX export that will serve; one below a
floor is refused. Versions never change, the alias ``challenger`` moves to the newest.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from mlflow import MlflowClient, pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from model.bundle import CHECKPOINT, IMAGE_SHAPE, LABELS, MANIFEST, ONNX, Bundle, Floats, Labels, Registration, probabilities
from model.data import MnistData
from model.delivery import SENDING_ERRORS, TrackingError, brief, connect
from model.errors import ConfigError
from model.export import onnx_logits
from model.profile import calibration_error, recall_by_class
from model.tracking import default_tracking_uri

MODEL_NAME = "digits"
CHALLENGER = "challenger"

_SHIFTS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]


class RefusedError(Exception):
    """The model is below a floor; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Floors:
    """What a model must reach on the validation images to be published.

    Args:
        recall: Least recall of any class.
        shift_invariance: Least share of images that keep their answer when they are shifted by one pixel, over all 8 ways.
        calibration_error: Largest expected calibration error, once calibrated.
    """

    recall: float = 0.93
    shift_invariance: float = 0.93
    calibration_error: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What a model reaches on a set of images; ``recall`` holds one value for each class."""

    recall: list[float]
    shift_invariance: float
    calibration_error: float

    def __str__(self) -> str:
        weakest = min(range(len(self.recall)), key=self.recall.__getitem__)
        return (
            f"recall {self.recall[weakest]:.4f} or more (class {LABELS[weakest]}), one-pixel shift invariance "
            f"{self.shift_invariance:.4f}, calibration error {self.calibration_error:.4f}"
        )

    def missed(self, floors: Floors) -> list[str]:
        """One line for each floor that is not reached."""
        lines = [
            f"recall of class {label} is {recall:.4f}, the floor is {floors.recall:g}"
            for label, recall in zip(LABELS, self.recall, strict=True)
            if recall < floors.recall
        ]
        if self.shift_invariance < floors.shift_invariance:
            lines.append(f"one-pixel shift invariance is {self.shift_invariance:.4f}, the floor is {floors.shift_invariance:g}")
        if self.calibration_error > floors.calibration_error:
            lines.append(f"calibration error is {self.calibration_error:.4f}, at most {floors.calibration_error:g} is allowed")
        return lines


def measure_quality(bundle: Bundle, images: Floats, labels: Labels) -> Quality:
    """Hold the model, as it will be served, against ``images`` (n, 28, 28) and ``labels`` (n,)."""
    predicted = probabilities(onnx_logits(bundle.onnx_path, images), bundle.temperature)
    return Quality(
        recall=recall_by_class(predicted, labels).tolist(),
        shift_invariance=shift_invariance(bundle, images, predicted),
        calibration_error=calibration_error(predicted, labels),
    )


def shift_invariance(bundle: Bundle, images: Floats, predicted: Floats) -> float:
    """Share of ``images`` (n, 28, 28) that keep the answer in ``predicted`` (n, 10) when shifted by one pixel, over 8 ways."""
    answers = predicted.argmax(axis=1)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    rows, columns = IMAGE_SHAPE
    kept = []
    for down, right in _SHIFTS:
        shifted = padded[:, 1 - down : 1 - down + rows, 1 - right : 1 - right + columns]
        kept.append((onnx_logits(bundle.onnx_path, shifted).argmax(axis=1) == answers).mean())
    return float(np.mean(kept))


def publish(
    bundle: Path = Path("build/bundle"),
    name: str = MODEL_NAME,
    data_dir: str = "data/mnist",
    tracking_uri: str | None = None,
    floors: Floors = Floors(),
) -> Registration:
    """Test a bundle and register it as a new version, with the alias ``challenger``.

    Args:
        bundle: The bundle's directory; the version is noted in it.
        name: The registered model's name.
        data_dir: Folder with the MNIST files.
        tracking_uri: Of the server that knows the bundle's run; ``MLFLOW_TRACKING_URI`` or the embedded one by default.
        floors: What the model must reach.

    Raises:
        BundleError: The bundle is damaged.
        ConfigError: The bundle comes from no tracked run.
        RefusedError: The model is below a floor.
        TrackingError: The server does not answer or does not know the run.
    """
    verified = Bundle.load(bundle)
    data = MnistData(data_dir, split_seed=verified.lineage.split_seed)
    print(f"testing {bundle} on the validation images", flush=True)
    quality = measure_quality(verified, *data.split("validation").arrays())
    print(quality, flush=True)
    if missed := quality.missed(floors):
        raise RefusedError("; ".join(missed))
    uri = tracking_uri or default_tracking_uri()
    if verified.lineage.run_id is None:
        message = f"{bundle / MANIFEST}: lineage.run_id: expected the MLflow run the model comes from, got null"
        raise ConfigError(message)
    try:
        registration = _register(connect(uri), verified, verified.lineage.run_id, name)
    except SENDING_ERRORS as error:
        message = f"MLflow at {uri} did not register the bundle: {brief(error)}"
        raise TrackingError(message) from error
    verified.register(registration)
    print(f"published {name} version {registration.version}, alias {CHALLENGER}, at {uri}", flush=True)
    return registration


def _register(client: MlflowClient, bundle: Bundle, run_id: str, name: str) -> Registration:
    # A folder named by content: a run that is resumed and published again cannot change an older version's files.
    folder = f"published/{bundle.digest[:12]}"
    with tempfile.TemporaryDirectory() as scratch:
        for file in (MANIFEST, ONNX, CHECKPOINT):
            shutil.copyfile(bundle.directory / file, Path(scratch, file))
        _describe(run_id, folder).save(str(Path(scratch, "MLmodel")))
        client.log_artifacts(run_id, scratch, folder)
    source = f"{client.get_run(run_id).info.artifact_uri}/{folder}"
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {"bundle_digest": bundle.digest, "git_revision": bundle.lineage.git_revision or "unknown"}
    version = client.create_model_version(name, source, run_id, tags=tags, await_creation_for=30).version
    client.set_registered_model_alias(name, CHALLENGER, version)
    return Registration(name=name, version=str(version))


def _describe(run_id: str, folder: str) -> Model:
    """MLflow's own description, so that its page shows the signature and ``mlflow.pyfunc.load_model`` works."""
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *IMAGE_SHAPE), "images")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(LABELS)), "logits")]),
    )
    model = Model(artifact_path=folder, run_id=run_id, signature=signature)
    model.add_flavor("onnx", onnx_version=onnx.__version__, data=ONNX, providers=["CPUExecutionProvider"])
    pyfunc.add_to_model(model, loader_module="mlflow.onnx", data=ONNX)
    return model
