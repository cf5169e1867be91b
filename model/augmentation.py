"""Random affine and elastic distortion of whole batches of images (Simard, Steinkraus and Platt 2003), faded ink and noise."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from model.bundle import IMAGE_SHAPE


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far training images are distorted; every amount is drawn anew for each image, and 0 switches it off.

    Args:
        rotation_degrees: Rotation, uniformly from -this to this.
        shear_degrees: Horizontal shear, uniformly from -this to this.
        scale: Scale, uniformly from 1 - this to 1 + this, for each axis.
        translation_pixels: Shift, uniformly from -this to this, for each axis.
        elastic_pixels: Standard deviation of a pixel's elastic displacement.
        elastic_smoothness_pixels: Standard deviation of the Gaussian that makes neighbours move together.
        fade: Share of the ink that is lost, uniformly from 0 to this, at most 1.
        noise_deviation: Standard deviation of Gaussian noise, uniformly from 0 to this; pixels stay in [0, 1].
    """

    rotation_degrees: float = 0.0
    shear_degrees: float = 0.0
    scale: float = 0.0
    translation_pixels: float = 0.0
    elastic_pixels: float = 0.0
    elastic_smoothness_pixels: float = 4.0
    fade: float = 0.0
    noise_deviation: float = 0.0

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the field that is out of range."""
        for field in fields(self):
            if getattr(self, field.name) < 0:
                message = f"augmentation.{field.name}: expected at least 0, got {getattr(self, field.name)}"
                raise ValueError(message)
        if self.scale >= 1 or self.elastic_smoothness_pixels == 0:
            message = "augmentation: expected scale below 1 and elastic_smoothness_pixels above 0"
            raise ValueError(message)
        if self.fade > 1:
            message = f"augmentation.fade: expected at most 1, got {self.fade}"
            raise ValueError(message)

    @property
    def is_identity(self) -> bool:
        """Whether images come back as they went in."""
        return not (self._moves or self.fade or self.noise_deviation)

    @property
    def _moves(self) -> bool:
        affine = (self.rotation_degrees, self.shear_degrees, self.scale, self.translation_pixels)
        return any(affine) or self.elastic_pixels > 0

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Distorted copies of ``images`` (n, 28, 28): moved, then faded, then noisy."""
        if self._moves:
            images = self._move(images, generator)
        if self.fade:
            images = images * (1 - self.fade * torch.rand(len(images), 1, 1, generator=generator))
        if self.noise_deviation:
            deviation = self.noise_deviation * torch.rand(len(images), 1, 1, generator=generator)
            images = (images + deviation * torch.randn(images.shape, generator=generator)).clamp_(0, 1)
        return images

    def _move(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Sampled bilinearly; what comes from outside the image is 0."""
        grid = functional.affine_grid(self._affine(len(images), generator), [len(images), 1, *IMAGE_SHAPE], align_corners=False)
        if self.elastic_pixels:
            grid = grid + self._displacement(len(images), generator)
        return functional.grid_sample(images[:, None], grid, align_corners=False).squeeze(1)

    def _affine(self, count: int, generator: torch.Generator) -> Tensor:
        draws = torch.rand(6, count, generator=generator) * 2 - 1
        angle = draws[0] * math.radians(self.rotation_degrees)
        shear = torch.tan(draws[1] * math.radians(self.shear_degrees))
        scale_x, scale_y = 1 + draws[2] * self.scale, 1 + draws[3] * self.scale
        # Grid coordinates run from -1 to 1 over the image's width.
        shift = draws[4:] * (self.translation_pixels * 2 / IMAGE_SHAPE[1])
        cos, sin = torch.cos(angle), torch.sin(angle)
        rows = [cos * scale_x, (cos * shear - sin) * scale_y, shift[0], sin * scale_x, (sin * shear + cos) * scale_y, shift[1]]
        return torch.stack(rows, dim=1).view(count, 2, 3)

    def _displacement(self, count: int, generator: torch.Generator) -> Tensor:
        blur = _blur_matrix(self.elastic_smoothness_pixels)
        noise = blur @ torch.randn(count, 2, *IMAGE_SHAPE, generator=generator) @ blur.T
        return noise.permute(0, 2, 3, 1) * (self.elastic_pixels * 2 / IMAGE_SHAPE[1])


NO_AUGMENTATION = Augmentation()


def _blur_matrix(smoothness_pixels: float) -> Tensor:
    """A matrix (28, 28) that blurs along one axis and leaves white noise with a standard deviation of 1."""
    positions = torch.arange(IMAGE_SHAPE[0], dtype=torch.float32)
    weights = torch.exp(-((positions[:, None] - positions) ** 2) / (2 * smoothness_pixels**2))
    return weights / weights.square().sum(dim=1, keepdim=True).sqrt()
