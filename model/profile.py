"""Calibration (the temperature) and the reference profile that drift is measured against, both from validation images."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from model.bundle import LABELS, Floats, Histogram, Labels, Profile, probabilities, profile_statistics

# Ten deciles: as many bins as there are classes, and wide enough for a window of a few hundred images.
_STATISTIC_BINS = 10
_CALIBRATION_BINS = 15


def calibrate(logits: Floats, labels: Labels) -> float:
    """The temperature that minimises the negative log-likelihood of ``labels`` (n,) given ``logits`` (n, 10).

    Temperature scaling, Guo et al. 2017, https://arxiv.org/abs/1706.04599. It does not change which class is most probable.
    """

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(probabilities(logits, float(np.exp(log_temperature))), labels)

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded").x))


def negative_log_likelihood(predicted: Floats, labels: Labels) -> float:
    """Mean of -log of the probability (n, 10) given to the true label (n,), in nats."""
    true = predicted[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())


def calibration_error(predicted: Floats, labels: Labels) -> float:
    """Expected calibration error of ``predicted`` (n, 10), in [0, 1].

    Mean over images of how far confidence and accuracy lie apart, over bins of equal count (Nguyen and O'Connor 2015): most
    answers are almost certain, and bins of equal width would hold nearly all of them in one.
    """
    confidence = predicted.max(axis=1).astype(np.float64)
    correct = predicted.argmax(axis=1) == labels
    bins = np.array_split(np.argsort(confidence, kind="stable"), _CALIBRATION_BINS)
    gaps = [len(chosen) * abs(confidence[chosen].mean() - correct[chosen].mean()) for chosen in bins if len(chosen)]
    return float(sum(gaps) / len(labels))


def recall_by_class(predicted: Floats, labels: Labels) -> npt.NDArray[np.float64]:
    """Share of each class's images (n,) that ``predicted`` (n, 10) got right: (10,); 0 for a class without images."""
    correct = labels[predicted.argmax(axis=1) == labels]
    found, there = (np.bincount(chosen, minlength=len(LABELS)) for chosen in (correct, labels))
    return found / np.maximum(there, 1)


def build_profile(images: Floats, predicted: Floats) -> Profile:
    """The profile of ``images`` (n, 28, 28) and the probabilities ``predicted`` for them (n, 10)."""
    values = profile_statistics(images, predicted)
    histograms = {name: Histogram.of(found, quantile_edges(found)) for name, found in values.items()}
    classes = np.bincount(predicted.argmax(axis=1), minlength=len(LABELS))
    return Profile(images=len(images), class_counts=[int(count) for count in classes], histograms=histograms)


def quantile_edges(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Edges of ten bins of about equal count of ``values`` (n,), in seven digits, as float32 has.

    Such bins give a test of drift the most power for their number; there are fewer where many values are equal.
    """
    edges = np.quantile(values.astype(np.float64), np.linspace(0, 1, _STATISTIC_BINS + 1))
    rising = np.unique(np.round(edges, 7))
    return rising if len(rising) > 1 else np.array([rising[0], rising[0] + 1.0])
