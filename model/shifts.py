"""Shifts of the input, by which quality under shift is measured: fixed beforehand, and nothing is calibrated on them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from model.bundle import Floats

_NOISE_SEED = 28


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One kind of shift at one strength, in ``unit``."""

    kind: str
    strength: float
    unit: str

    @property
    def name(self) -> str:
        """As reports and tests call it."""
        return f"{self.kind} {self.strength:g}{self.unit}"

    def apply(self, images: Floats) -> Floats:
        """A shifted copy of ``images`` (n, 28, 28) in [0, 1]; the first k are the same whatever follows."""
        return _KINDS[self.kind](images, self.strength)


def rotate(images: Floats, degrees: float) -> Floats:
    """``images`` (n, 28, 28) turned by ``degrees``, every second one the other way round."""
    rotated = np.empty_like(images)
    for start, angle in ((0, degrees), (1, -degrees)):
        # Bilinear, so that no pixel leaves [0, 1] but by rounding.
        rotated[start::2] = ndimage.rotate(images[start::2], angle, axes=(1, 2), reshape=False, order=1)
    return np.clip(rotated, 0, 1)


def add_noise(images: Floats, deviation: float) -> Floats:
    """``images`` (n, 28, 28) with Gaussian noise, clipped to [0, 1]."""
    noise = np.random.default_rng(_NOISE_SEED).standard_normal(images.shape, np.float32)
    noisy: Floats = np.clip(images + np.float32(deviation) * noise, 0, 1)
    return noisy


def _blur(images: Floats, pixels: float) -> Floats:
    blurred: Floats = ndimage.gaussian_filter(images, (0, pixels, pixels))
    return np.clip(blurred, 0, 1)


def _fade(images: Floats, share: float) -> Floats:
    return images * np.float32(1 - share)


def _invert(images: Floats, share: float) -> Floats:
    return images + np.float32(share) * (1 - 2 * images)


def _translate(images: Floats, pixels: float) -> Floats:
    """Diagonally, every second one the other way."""
    moved = np.zeros_like(images)
    shift = int(pixels)
    moved[0::2, shift:, shift:] = images[0::2, :-shift, :-shift]
    moved[1::2, :-shift, :-shift] = images[1::2, shift:, shift:]
    return moved


_KINDS: dict[str, Callable[[Floats, float], Floats]] = {
    "rotation": rotate,
    "noise": add_noise,
    "blur": _blur,
    "contrast": _fade,
    "polarity": _invert,
    "translation": _translate,
}
_STRENGTHS: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("rotation", "°", (10, 20, 35)),
    ("noise", "", (0.05, 0.15, 0.3)),
    ("blur", " px", (0.75, 1.25, 2)),
    ("contrast", "", (0.3, 0.6, 0.8)),
    ("polarity", "", (0.25, 0.75, 1)),
    ("translation", " px", (1, 2, 4)),
)

# Kinds that cameras and callers bring about, each from hardly visible to severe. Contrast is the share of ink that fades, and
# polarity that of the way to the negative.
SHIFTS = tuple(Shift(kind=kind, strength=strength, unit=unit) for kind, unit, strengths in _STRENGTHS for strength in strengths)
