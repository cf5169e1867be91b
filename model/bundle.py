"""The bundle: the directory that carries one trained model from training to serving.

    bundle/
      model.ckpt         the Lightning checkpoint, source of truth
      model.onnx         exported from it, images (n, 28, 28) -> logits (n, 10)
      bundle.json        what is needed to use them, and the sha256 of each
      registration.json  once published: the registry's name and version

Only the standard library and numpy are imported here, so that what serves a bundle needs neither torch nor Lightning, and
nothing is ever unpickled.
"""

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

# ruff: noqa: PLC0414 -- these are part of this module's contract
from model.manifest import CHECKPOINT as CHECKPOINT
from model.manifest import FORMAT_VERSION as FORMAT_VERSION
from model.manifest import MANIFEST as MANIFEST
from model.manifest import ONNX as ONNX
from model.manifest import BundleError as BundleError
from model.manifest import Reader, read_digests, verify_digest
from model.manifest import Registration as Registration
from model.manifest import sha256 as sha256

# ONNX Runtime reports its use to its maker, from a thread of its own, unless this is set before it is imported. All who import
# it, import this module first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

IMAGE_SHAPE = (28, 28)
INPUT_RANGE = (0.0, 1.0)
LABELS = tuple(range(10))

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of a statistic between bin edges; ``len(edges) == len(counts) + 1``, values outside fall in the end bins."""

    edges: list[float]
    counts: list[int]

    @classmethod
    def of(cls, values: npt.NDArray[np.floating[Any]], edges: npt.NDArray[np.floating[Any]]) -> Self:
        """Count ``values`` (n,) between ``edges`` (bins + 1,)."""
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        return cls(edges=[float(edge) for edge in edges], counts=[int(count) for count in counts])


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What the model saw and answered on the validation images: the reference that drift is measured against."""

    images: int
    class_counts: list[int]
    histograms: dict[str, Histogram]


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where the model came from."""

    run_id: str | None
    git_revision: str | None
    data_digest: str
    split_seed: int


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A verified bundle. ``network`` holds the arguments of ``model.network.Network``."""

    network: dict[str, Any]
    temperature: float
    metrics: dict[str, float]
    onnx_max_abs_difference: float
    profile: Profile
    lineage: Lineage
    labels: tuple[int, ...] = LABELS
    input_shape: tuple[int, ...] = IMAGE_SHAPE
    input_range: tuple[float, ...] = INPUT_RANGE
    format_version: int = FORMAT_VERSION
    files: dict[str, str] = field(default_factory=dict)
    directory: Path = field(default=Path(), compare=False)
    digest: str = field(default="", compare=False)
    registration: Registration | None = field(default=None, compare=False)

    @property
    def checkpoint_path(self) -> Path:
        """Where the Lightning checkpoint lies."""
        return self.directory / CHECKPOINT

    @property
    def onnx_path(self) -> Path:
        """Where the ONNX export lies."""
        return self.directory / ONNX

    @property
    def version(self) -> str:
        """The registry's version, or the first digits of the manifest's digest for a bundle that was never published."""
        return self.registration.version if self.registration else self.digest[:12]

    def save(self, directory: Path, *, checkpoint: Path, onnx: Path) -> Self:
        """Write the bundle to ``directory``, whole or not at all, and load it from there.

        A bundle that was there before is replaced. Raises `OSError` where the directory cannot be written.
        """
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as scratch:
            new = Path(scratch, "new")
            new.mkdir()
            shutil.copyfile(checkpoint, new / CHECKPOINT)
            shutil.copyfile(onnx, new / ONNX)
            content = {name: value for name, value in asdict(self).items() if name in _MANIFEST_FIELDS}
            content["files"] = {name: sha256(new / name) for name in (CHECKPOINT, ONNX)}
            (new / MANIFEST).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
            self.load(new)
            if directory.exists():
                directory.rename(Path(scratch, "old"))
            new.rename(directory)
        return self.load(directory)

    def register(self, registration: Registration) -> None:
        """Note beside the bundle under which name and version the registry knows it."""
        registration.save(self.directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read and verify the bundle in ``directory``.

        Raises `BundleError` where a file is missing, altered, or of another format or shape than this code serves.
        """
        if not directory.is_dir():
            message = f"{directory}: expected a bundle, a directory with {MANIFEST}, {ONNX} and {CHECKPOINT}; it does not exist"
            raise BundleError(message)
        manifest = Reader.open(directory / MANIFEST)
        bundle = cls(**_manifest_fields(manifest), directory=directory, digest=sha256(directory / MANIFEST))
        for name, digest in bundle.files.items():
            path = directory / name
            if not path.is_file():
                message = f"{path}: missing, though {MANIFEST} lists it"
                raise BundleError(message)
            try:
                found = sha256(path)
            except OSError as error:
                message = f"{path}: cannot be read ({error})"
                raise BundleError(message) from None
            verify_digest(path, found, digest)
        return replace(bundle, registration=Registration.find(directory))


def probabilities(logits: Floats, temperature: float) -> Floats:
    """Softmax of ``logits`` (n, classes) divided by ``temperature`` (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""
    scaled = logits / np.float32(temperature)
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: Floats = scaled / scaled.sum(axis=1, keepdims=True)
    return result


def image_statistics(images: Floats) -> dict[str, npt.NDArray[np.float64]]:
    """What the input profile counts of ``images`` (n, 28, 28) in [0, 1]; each value has shape (n,).

    ``mean_ink`` is the mean pixel; ``offset`` how far the centre of mass lies from where MNIST has it, pixel (14, 14), in pixels,
    and 0 for a blank image.
    """
    flat = images.reshape(len(images), -1)
    ink, x, y = (flat @ _MOMENTS).T.astype(np.float64)
    total = np.where(ink > 0, ink, 1.0)
    return {"mean_ink": ink / flat.shape[1], "offset": np.hypot(x, y) / total}


def profile_statistics(images: Floats, predicted: Floats) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """What the profile has a histogram of: values (n,) of ``images`` (n, 28, 28) and the probabilities for them (n, 10)."""
    return {"confidence": predicted.max(axis=1), **image_statistics(images)}


def expected_correct(profile: Profile, values: dict[str, npt.NDArray[np.floating[Any]]]) -> npt.NDArray[np.float64]:
    """How probable it is that each answer is right, (n,), from the `profile_statistics` of its image: CBPE.

    It is the calibrated confidence, as far as there was something to calibrate on. With more or less ink than any image of
    ``profile`` had, nothing is known but that one class of them all is right: ReLU networks grow the surer the further away an
    image is (Hein et al. 2019, https://arxiv.org/abs/1812.05720).
    """
    confidence = values["confidence"].astype(np.float64)
    if (ink := profile.histograms.get("mean_ink")) is None:
        return confidence
    is_known = (values["mean_ink"] >= ink.edges[0]) & (values["mean_ink"] <= ink.edges[-1])
    return np.where(is_known, confidence, 1 / len(profile.class_counts))


def _moments() -> Floats:
    """What a flat image is multiplied with for its sums of ink and of ink times x and y, from pixel (14, 14): (784, 3)."""
    height, width = IMAGE_SHAPE
    rows, columns = np.mgrid[:height, :width].reshape(2, -1)
    return np.stack([np.ones_like(rows), columns - width // 2, rows - height // 2], axis=1).astype(np.float32)


_MOMENTS = _moments()
_MANIFEST_FIELDS = {f.name for f in fields(Bundle)} - {"directory", "digest", "registration"}


def _manifest_fields(manifest: Reader) -> dict[str, Any]:
    digests = read_digests(manifest)
    manifest.exactly("labels", list(LABELS))
    manifest.exactly("input_shape", list(IMAGE_SHAPE))
    manifest.exactly("input_range", list(INPUT_RANGE))
    lineage, metrics = manifest.inner("lineage"), manifest.inner("metrics")
    return {
        "network": manifest.inner("network").value,
        "temperature": manifest.number("temperature", above=0),
        "metrics": {name: metrics.number(name) for name in metrics.value},
        "onnx_max_abs_difference": manifest.number("onnx_max_abs_difference"),
        "profile": _profile(manifest.inner("profile")),
        "lineage": Lineage(
            run_id=lineage.optional_text("run_id"),
            git_revision=lineage.optional_text("git_revision"),
            data_digest=lineage.text("data_digest"),
            split_seed=lineage.whole("split_seed"),
        ),
        "files": digests,
    }


def _profile(profile: Reader) -> Profile:
    counts = profile.numbers("class_counts")
    if len(counts) != len(LABELS):
        profile.fail("class_counts", f"{len(LABELS)} counts", counts)
    histograms = profile.inner("histograms")
    return Profile(
        images=profile.whole("images"),
        class_counts=[int(count) for count in counts],
        histograms={name: _histogram(histograms.inner(name)) for name in histograms.value},
    )


def _histogram(histogram: Reader) -> Histogram:
    edges, counts = histogram.numbers("edges"), histogram.numbers("counts")
    if len(edges) != len(counts) + 1 or edges != sorted(set(edges)):
        histogram.fail("edges", f"{len(counts) + 1} rising numbers", edges)
    return Histogram(edges=edges, counts=[int(count) for count in counts])
