"""The images that two models are compared on are the same each time, and those that are made of them are what their name says."""

from pathlib import Path

import numpy as np
import pytest

from model.bundle import Floats
from model.data import MnistData
from model.idx import DataError
from rollout.slices import golden, shifted
from tests.processes import ROOT


@pytest.fixture(scope="module")
def images(mnist: MnistData) -> Floats:
    found, _ = mnist.split("golden").arrays()
    return found


def test_golden_images_are_those_that_nothing_was_trained_on(mnist: MnistData) -> None:
    images, labels = golden(str(ROOT / "data" / "mnist"))
    assert images.shape == (5000, 28, 28)
    assert images.dtype == np.float32
    assert labels.shape == (5000,)
    trained = {image.tobytes() for image in mnist.split("train").images.numpy()}
    assert sum(image.tobytes() in trained for image in images) < 10
    # In no order: any first thousand has all of them.
    assert min(np.bincount(labels[:1000], minlength=10)) > 70


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        golden(str(tmp_path))


def test_slices_are_the_same_each_time_and_for_any_first_part(images: Floats) -> None:
    first, again, part = shifted(images), shifted(images.copy()), shifted(images[:101])
    assert list(first) == ["rotated", "noisy"]
    for name, values in first.items():
        assert values.shape == images.shape
        assert values.dtype == images.dtype
        assert 0 <= values.min() <= values.max() <= 1
        assert np.array_equal(values, again[name])
        assert np.array_equal(values[:101], part[name])


def test_a_single_image_is_shifted_too(images: Floats) -> None:
    assert all(len(values) == 1 for values in shifted(images[:1]).values())


def test_rotated_ones_lean_20_degrees_in_turns() -> None:
    stroke = np.zeros((2, 28, 28), np.float32)
    stroke[:, 4:24, 13:15] = 1
    rows = np.arange(28)
    slopes = [
        np.polyfit(rows[5:23], (image @ rows)[5:23] / image.sum(axis=1)[5:23], 1)[0] for image in shifted(stroke)["rotated"]
    ]
    assert abs(slopes[0]) == pytest.approx(np.tan(np.radians(20)), abs=0.03)
    assert slopes[0] == pytest.approx(-slopes[1], abs=0.03)


def test_noise_has_the_deviation_that_it_is_said_to_have(images: Floats) -> None:
    grey = np.full_like(images, 0.5)
    # Clipped beyond two deviations.
    assert shifted(grey)["noisy"].std() == pytest.approx(0.05, abs=0.005)
