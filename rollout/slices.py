"""The labelled images that two models are compared on: golden ones, and the same as other hands and scanners would show them."""

import numpy as np
from scipy import ndimage

from model.bundle import Floats, Labels
from model.data import MnistData

_ROTATION_DEGREES = 20.0
# As grainy as a scanner. At 0.25 the best configuration gets 40 % right, of images that nobody sends.
_NOISE_DEVIATION, _NOISE_SEED = 0.05, 28


def golden(data_dir: str) -> tuple[Floats, Labels]:
    """The golden images (5000, 28, 28) in [0, 1] and labels (5000,), in random order, the same each time. Raises `DataError`."""
    return MnistData(data_dir).split("golden").arrays()


def shifted(images: Floats) -> dict[str, Floats]:
    """Two variants of all ``images`` (n, 28, 28) in [0, 1]; the first k are the same whatever follows.

    ``rotated`` by 20 degrees, every second one the other way round; ``noisy`` with Gaussian noise of deviation 0.05, clipped.
    """
    return {"rotated": _rotated(images), "noisy": _noisy(images)}


def _rotated(images: Floats) -> Floats:
    rotated = np.empty_like(images)
    for start, degrees in ((0, _ROTATION_DEGREES), (1, -_ROTATION_DEGREES)):
        # Bilinear, so that no pixel leaves [0, 1] but by rounding.
        rotated[start::2] = ndimage.rotate(images[start::2], degrees, axes=(1, 2), reshape=False, order=1)
    return np.clip(rotated, 0, 1)


def _noisy(images: Floats) -> Floats:
    noise = np.random.default_rng(_NOISE_SEED).standard_normal(images.shape, np.float32)
    noisy: Floats = np.clip(images + np.float32(_NOISE_DEVIATION) * noise, 0, 1)
    return noisy
