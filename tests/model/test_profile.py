import numpy as np
import pytest

from model.bundle import image_statistics, probabilities
from model.data import MnistData
from model.profile import build_profile, calibrate, calibration_error, negative_log_likelihood, recall_by_class


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_calibrate_finds_the_temperature_labels_were_drawn_with(temperature: float) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=3, size=(40_000, 10)).astype(np.float32)
    cumulative = probabilities(logits, temperature).cumsum(axis=1)
    labels = (cumulative < generator.random((40_000, 1))).sum(axis=1).clip(0, 9)
    assert calibrate(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    predicted = np.full((1000, 10), 0.1 / 9, np.float32)
    predicted[:, 0] = 0.9
    labels = np.zeros(1000, np.int64)
    labels[:400] = 1
    assert calibration_error(predicted, np.random.default_rng(0).permutation(labels)) == pytest.approx(0.3, abs=0.02)


def test_likelihood_and_recall_by_hand() -> None:
    predicted = np.eye(10, dtype=np.float32)[[0, 1, 2, 3, 4, 5, 6, 7, 8, 8]] * 0.9 + 0.01
    labels = np.arange(10)
    assert negative_log_likelihood(predicted, labels) == pytest.approx((-9 * np.log(0.91) - np.log(0.01)) / 10, rel=1e-5)
    assert recall_by_class(predicted, labels).tolist() == [1.0] * 9 + [0.0]


def test_statistics_of_known_images() -> None:
    images = np.zeros((3, 28, 28), np.float32)
    images[1, 4:24, 14] = 1.0
    for row in range(20):
        images[2, 4 + row, 4 + row] = 1.0
    statistics = image_statistics(images)
    assert statistics["mean_ink"] == pytest.approx([0, 20 / 784, 20 / 784])
    assert statistics["stroke_mass"] == pytest.approx([0, 20 / 784, 20 / 784])
    assert statistics["slant"] == pytest.approx([0, 0, 1])


def test_profile_counts_every_image_once(mnist: MnistData) -> None:
    images, labels = mnist.split("validation").arrays()
    profile = build_profile(images, np.eye(10, dtype=np.float32)[labels])
    assert profile.images == sum(profile.class_counts) == 5_000
    assert set(profile.histograms) == {"confidence", "mean_ink", "stroke_mass", "slant"}
    for histogram in profile.histograms.values():
        assert sum(histogram.counts) == 5_000
        assert len(histogram.edges) == len(histogram.counts) + 1
