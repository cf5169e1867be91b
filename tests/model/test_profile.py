from dataclasses import replace

import numpy as np
import pytest

from model.bundle import expected_correct, image_statistics, probabilities, profile_statistics
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
    images = np.zeros((4, 28, 28), np.float32)
    images[1, 4:25, 14] = 1.0
    images[2, 4:25, 17] = 1.0
    images[3, 8:29, 10] = 0.5
    statistics = image_statistics(images)
    assert statistics["mean_ink"] == pytest.approx([0, 21 / 784, 21 / 784, 10 / 784])
    assert statistics["offset"] == pytest.approx([0, 0, 3, np.hypot(4, 3.5)])


def test_confidence_counts_as_far_as_there_was_as_much_ink(mnist: MnistData) -> None:
    images, labels = mnist.split("validation").arrays()
    predicted = np.full((5_000, 10), 0.05 / 9, np.float32)
    predicted[np.arange(5_000), labels] = 0.95
    profile = build_profile(images, predicted)
    known = expected_correct(profile, profile_statistics(images, predicted))
    assert (known == np.float32(0.95)).mean() > 0.999
    negative = expected_correct(profile, profile_statistics(1 - images, predicted))
    assert (negative == 0.1).all()
    blank = expected_correct(profile, profile_statistics(np.zeros_like(images), predicted))
    assert (blank == 0.1).all()
    without = replace(profile, histograms={"confidence": profile.histograms["confidence"]})
    assert (expected_correct(without, profile_statistics(1 - images, predicted)) == np.float32(0.95)).all()


def test_profile_counts_every_image_once(mnist: MnistData) -> None:
    images, labels = mnist.split("validation").arrays()
    predicted = np.eye(10, dtype=np.float32)[labels]
    predicted[:, 0] += np.linspace(0, 0.1, len(labels))
    profile = build_profile(images, predicted)
    assert profile.images == sum(profile.class_counts) == 5_000
    assert set(profile.histograms) == {"confidence", "mean_ink", "offset"}
    for histogram in profile.histograms.values():
        assert sum(histogram.counts) == 5_000
        assert len(histogram.edges) == len(histogram.counts) + 1
    for name in ("mean_ink", "offset"):
        assert profile.histograms[name].counts == pytest.approx([500] * 10, abs=10), name
