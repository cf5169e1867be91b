"""Populations for simulations: what a bundle's profile counts of images that no model was trained on, shifted or not."""

from functools import cache

import numpy as np

from model.bundle import Bundle, Floats, Labels, probabilities, profile_statistics
from model.data import MnistData
from model.export import onnx_logits
from model.shifts import Shift
from watching.traffic import Population, Values, gather_writers


@cache
def images(split_seed: int) -> tuple[Floats, Labels]:
    """The validation and golden images (10,000, 28, 28) with their labels, of the split that a model was trained by."""
    data = MnistData(split_seed=split_seed)
    parts = [data.split(name).arrays() for name in ("validation", "golden")]
    return np.concatenate([pixels for pixels, _ in parts]), np.concatenate([labels for _, labels in parts])


def predict(bundle: Bundle, pixels: Floats) -> Floats:
    """Calibrated probabilities (n, 10)."""
    return probabilities(onnx_logits(bundle.onnx_path, pixels), bundle.temperature)


def populate(bundle: Bundle, shift: Shift | None = None) -> Population:
    """What ``bundle`` makes of the images under ``shift``."""
    pixels, labels = images(bundle.lineage.split_seed)
    shifted = shift.apply(pixels) if shift else pixels
    predicted = predict(bundle, shifted)
    values: Values = {"class": predicted.argmax(axis=1).astype(np.float64), **profile_statistics(shifted, predicted)}
    return Population(values=values, writers=gather_writers(values, labels))
