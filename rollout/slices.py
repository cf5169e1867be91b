"""The labelled images that two models are compared on: golden ones, and the same as other hands and scanners would show them."""

from functools import cache
from pathlib import Path

from model import mnist
from model.bundle import Floats, Labels
from model.shifts import add_noise, rotate

_ROTATION_DEGREES = 20.0
# As grainy as a scanner. At 0.25 the best configuration gets 40 % right, of images that nobody sends.
_NOISE_DEVIATION = 0.05


@cache
def golden(data_dir: str) -> tuple[Floats, Labels]:
    """The golden images (5000, 28, 28) in [0, 1] and labels (5000,), in random order, the same each time. Raises `DataError`."""
    images, labels = mnist.read(Path(data_dir), "train")
    indices = mnist.parts()["golden"]
    return mnist.scale(images[indices]), labels[indices]


def shifted(images: Floats) -> dict[str, Floats]:
    """Two variants of all ``images`` (n, 28, 28) in [0, 1]; the first k are the same whatever follows.

    ``rotated`` by 20 degrees, every second one the other way round; ``noisy`` with Gaussian noise of deviation 0.05, clipped.
    """
    return {"rotated": rotate(images, _ROTATION_DEGREES), "noisy": add_noise(images, _NOISE_DEVIATION)}
