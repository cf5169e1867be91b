from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from model.bundle import Bundle
from model.data import MnistData
from model.delivery import TrackingError
from model.registry import Floors, RefusedError, measure_quality, publish
from tests.processes import ROOT

DATA = str(ROOT / "data" / "mnist")


@pytest.fixture
def own(bundle: Bundle, tmp_path: Path) -> Bundle:
    return bundle.save(tmp_path / "bundle", checkpoint=bundle.checkpoint_path, onnx=bundle.onnx_path)


LENIENT = Floors(recall=0.5, shift_invariance=0.5, calibration_error=0.5)


def test_each_floor_refuses_and_says_which(bundle: Bundle, mnist: MnistData) -> None:
    quality = measure_quality(bundle, *mnist.split("validation").arrays())
    assert quality.missed(LENIENT) == []
    recalls = quality.missed(replace(LENIENT, recall=1.0))
    assert recalls
    assert all(line.startswith("recall of class ") and line.endswith("the floor is 1") for line in recalls)
    [shift] = quality.missed(replace(LENIENT, shift_invariance=1.0))
    assert shift == f"one-pixel shift invariance is {quality.shift_invariance:.4f}, the floor is 1"
    [error] = quality.missed(replace(LENIENT, calibration_error=0.0))
    assert error == f"calibration error is {quality.calibration_error:.4f}, at most 0 is allowed"


def test_a_model_that_lost_a_class_is_below_the_default_floors(bundle: Bundle, mnist: MnistData) -> None:
    images, labels = mnist.split("validation").arrays()
    quality = measure_quality(bundle, images, np.where(labels == 3, 5, labels))
    assert any(line.startswith("recall of class 5") for line in quality.missed(Floors()))


def test_publish_registers_a_version_with_signature_and_alias(own: Bundle, tracking_uri: str, mnist: MnistData) -> None:
    floors = Floors(recall=0.9, shift_invariance=0.8, calibration_error=0.05)
    first = publish(own.directory, "published", DATA, tracking_uri, floors)
    second = publish(own.directory, "published", DATA, tracking_uri, floors)
    assert [first.version, second.version] == ["1", "2"]
    assert Bundle.load(own.directory).registration == second
    client = MlflowClient(tracking_uri, tracking_uri)
    version = client.get_model_version_by_alias("published", "challenger")
    assert version.version == second.version or str(version.version) == second.version
    assert version.run_id == own.lineage.run_id
    assert version.tags["bundle_digest"] == own.digest
    mlflow.set_tracking_uri(tracking_uri)
    images, labels = mnist.split("test").arrays()
    loaded = mlflow.pyfunc.load_model("models:/published@challenger")
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 28, 28)
    assert (loaded.predict(images[:500])["logits"].argmax(axis=1) == labels[:500]).mean() > 0.9


def test_published_files_are_a_bundle(own: Bundle, tracking_uri: str, tmp_path: Path) -> None:
    publish(own.directory, "downloaded", DATA, tracking_uri, Floors(recall=0.9, shift_invariance=0.8, calibration_error=0.05))
    mlflow.set_tracking_uri(tracking_uri)
    folder = mlflow.artifacts.download_artifacts("models:/downloaded/1", dst_path=str(tmp_path / "got"))
    assert Bundle.load(Path(folder)).digest == own.digest


def test_publish_refuses_below_a_floor_and_registers_nothing(own: Bundle, tracking_uri: str) -> None:
    with pytest.raises(RefusedError, match="shift invariance"):
        publish(own.directory, "refused", DATA, tracking_uri, Floors(recall=0, shift_invariance=1, calibration_error=1))
    assert not MlflowClient(tracking_uri, tracking_uri).search_registered_models("name = 'refused'")


def test_publish_to_a_server_that_does_not_know_the_run(own: Bundle, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="did not register"):
        publish(
            own.directory, "x", DATA, f"sqlite:///{tmp_path}/other.db", Floors(recall=0, shift_invariance=0, calibration_error=1)
        )
