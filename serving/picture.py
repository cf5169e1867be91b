"""PNG and JPEG images to what MNIST looks like: ink is bright, its bounding box 20x20, its centre of mass in the middle.

The steps are those by which MNIST was made (LeCun et al. 1998, http://yann.lecun.com/exdb/mnist/), after finding out which way
round the image is: what covers the border is paper, whatever its colour.
"""

import io
import struct
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from model.bundle import IMAGE_SHAPE, Floats

# Of all images of a request together: what decodes in well under a second, and a photograph of a phone is below it.
MAX_PIXELS = 16_000_000
_FORMATS = ("PNG", "JPEG")

_SIDE = IMAGE_SHAPE[0]
# A progressive JPEG is decoded anew for each scan: a few bytes a scan, milliseconds of work. Encoders make about ten.
_MAX_SCANS, _SCAN_MARKER = 32, b"\xff\xda"
# Larger images are reduced to this before anything is computed of their pixels.
_WORKING_SIDE = 1024
_BOX = 20
# Ink fainter than this share of the darkest is paper: JPEG leaves as much around a stroke.
_FAINT = 0.15
# An image whose ink and paper differ by less than this is blank.
_LEAST_CONTRAST = 0.05

_EXPECTED = "a PNG or JPEG image"
# A damaged file fails anywhere in the decoders, with whatever they happen to raise.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


class PictureError(ValueError):
    """Bytes that are no image this module takes."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, got {found}")
        self.expected, self.found = expected, found


def open_picture(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The PNG or JPEG image in ``content``; its pixels are not decoded yet. Raises `PictureError`."""
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is on what it warns of; ours is checked here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        found = f"{len(content):,} bytes of something else"
        raise PictureError(_EXPECTED, found) from None
    except _DAMAGE as error:
        found = f"a damaged one ({error})"
        raise PictureError(_EXPECTED, found) from error
    if picture.width * picture.height > max_pixels:
        expected = f"images of at most {MAX_PIXELS:,} pixels in a request"
        found = f"one of {picture.width}x{picture.height}"
        raise PictureError(expected, found)
    # A JPEG of several pictures has another name.
    if picture.format != "PNG" and (scans := content.count(_SCAN_MARKER)) > _MAX_SCANS:
        expected, found = f"a JPEG image of at most {_MAX_SCANS} scans", f"one of {scans}"
        raise PictureError(expected, found)
    return picture


def normalise(picture: Image.Image) -> Floats:
    """The digit in ``picture`` as an image (28, 28) in [0, 1].

    A picture of 28x28 grey pixels without transparency is taken to be normalised already; only its polarity is settled.
    Raises `PictureError`.
    """
    is_ready = picture.size == IMAGE_SHAPE and picture.mode == "L" and not picture.has_transparency_data
    ink = _stretch(_ink(_luminance(_decode(picture))), keep_faint=is_ready)
    return ink if is_ready else _centre(_fit(_crop(ink)))


def _decode(picture: Image.Image) -> Image.Image:
    """Grey values with or without transparency (L, LA), or 16-bit ones (I), no larger than the working size."""
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    except _DAMAGE as error:
        found = f"a damaged one ({error})"
        raise PictureError(_EXPECTED, found) from error
    if upright.mode.startswith("I"):
        plain = upright.convert("I")
    elif upright.has_transparency_data:
        plain = upright.convert("RGBA").convert("LA")
    else:
        plain = upright.convert("L")
    factor = -(-max(plain.size) // _WORKING_SIDE)
    return plain.reduce(factor) if factor > 1 else plain


def _luminance(picture: Image.Image) -> Floats:
    """Grey values (height, width) in [0, 1]; what is transparent becomes the opposite of what is drawn on it."""
    if picture.mode != "LA":
        return np.asarray(picture, np.float32) / np.float32(65535 if picture.mode == "I" else 255)
    pixels = np.asarray(picture, np.float32) / np.float32(255)
    grey, alpha = pixels[..., 0], pixels[..., 1]
    opaque = float(alpha.sum())
    drawn = float((grey * alpha).sum()) / opaque if opaque > 0 else 0.0
    paper = np.float32(0.0 if drawn > 0.5 else 1.0)
    blended: Floats = grey * alpha + paper * (1 - alpha)
    return blended


def _ink(grey: Floats) -> Floats:
    """How far each pixel is from paper, which is what the border shows, in [0, 1]."""
    border: npt.NDArray[Any] = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = float(np.median(border))
    ink = (paper - grey) / paper if paper > 0.5 else (grey - paper) / (1 - paper)
    clipped: Floats = np.clip(ink, 0, 1).astype(np.float32)
    return clipped


def _stretch(ink: Floats, *, keep_faint: bool) -> Floats:
    darkest = float(ink.max())
    if darkest < _LEAST_CONTRAST:
        expected, found = "a digit darker or brighter than its background", "a blank image"
        raise PictureError(expected, found)
    return ink if keep_faint else np.where(ink < _FAINT * darkest, 0, ink / darkest).astype(np.float32)


def _crop(ink: Floats) -> Floats:
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _fit(ink: Floats) -> Floats:
    """Scale the longer side to 20 pixels."""
    height, width = ink.shape
    scale = _BOX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return ink
    resized = Image.fromarray(ink).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized, np.float32), 0, 1)


def _centre(ink: Floats) -> Floats:
    """Put the centre of mass on pixel (14, 14), as MNIST has it, as far as the ink stays inside."""
    places = [np.arange(length) for length in ink.shape]
    mass = float(ink.sum())
    centre = (float(ink.sum(axis=1) @ places[0]) / mass, float(ink.sum(axis=0) @ places[1]) / mass)
    top, left = (min(max(round(_SIDE / 2 - middle), 0), _SIDE - length) for middle, length in zip(centre, ink.shape, strict=True))
    image = np.zeros(IMAGE_SHAPE, np.float32)
    image[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return image
