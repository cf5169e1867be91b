import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from model.bundle import Bundle, Floats
from model.data import MnistData
from serving.engine import Engine
from serving.picture import PictureError, normalise, open_picture


def enlarge(image: Floats, factor: int = 10) -> Image.Image:
    """A drawing as a person would send it: larger, off the middle, with room around it."""
    drawn = Image.fromarray(np.round(image * 255).astype(np.uint8)).resize((28 * factor, 28 * factor), Image.Resampling.BICUBIC)
    canvas = Image.new("L", (40 * factor, 34 * factor), 0)
    canvas.paste(drawn, (9 * factor, 2 * factor))
    return canvas


def inverted(picture: Image.Image) -> Image.Image:
    return Image.eval(picture, lambda value: 255 - value)


def coloured(picture: Image.Image) -> Image.Image:
    blue, yellow = Image.new("RGB", picture.size, (20, 30, 160)), Image.new("RGB", picture.size, (250, 240, 150))
    return Image.composite(blue, yellow, picture)


def transparent(ink: int) -> Callable[[Image.Image], Image.Image]:
    def draw(picture: Image.Image) -> Image.Image:
        layer = Image.new("LA", picture.size, (ink, 0))
        layer.putalpha(picture)
        return layer

    return draw


def palette(picture: Image.Image) -> Image.Image:
    return picture.convert("P")


def sixteen_bits(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture, np.uint16) * 257)


def small(picture: Image.Image) -> Image.Image:
    return picture.resize((64, 54))


def bitmap(picture: Image.Image) -> Image.Image:
    return picture.convert("1", dither=Image.Dither.NONE)


def large(change: Callable[[Image.Image], Image.Image]) -> Callable[[Image.Image], Image.Image]:
    def draw(picture: Image.Image) -> Image.Image:
        return change(picture.resize((picture.width * 4, picture.height * 4)))

    return draw


def saved(picture: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as drawn": lambda picture: picture,
    "inverted": inverted,
    "coloured": coloured,
    "black on transparent": transparent(0),
    "white on transparent": transparent(255),
    "palette": palette,
    "16 bits": sixteen_bits,
    "small": small,
    "bitmap": bitmap,
    "large": large(inverted),
    "large bitmap": large(bitmap),
    "large palette": large(palette),
    "large 16 bits": large(sixteen_bits),
    "large on transparent": large(transparent(0)),
}


# JPEG has neither transparency nor palettes nor 16 bits.
@pytest.mark.parametrize(
    ("way", "kind"),
    [*((way, "PNG") for way in WAYS), *((way, "JPEG") for way in ("as drawn", "inverted", "coloured", "small", "large"))],
)
def test_pictures_of_any_kind_are_recognised_as_well_as_the_images(bundle: Bundle, mnist: MnistData, way: str, kind: str) -> None:
    images, labels = mnist.split("test").arrays()
    count = 40 if way.startswith("large") else 200
    images, labels = images[:count], labels[:count]
    pictures = [WAYS[way](enlarge(image)) for image in images]
    engine = Engine(bundle)
    plain = (engine.predict(images).argmax(axis=1) == labels).mean()
    normalised = np.stack([normalise(open_picture(saved(picture, kind))) for picture in pictures])
    assert (engine.predict(normalised).argmax(axis=1) == labels).mean() >= plain - 0.025


def test_a_28x28_grey_picture_is_taken_as_it_is(mnist: MnistData) -> None:
    for image in mnist.split("test").images[:50].numpy():
        picture = Image.fromarray(np.round(image * 255).astype(np.uint8))
        assert np.array_equal(normalise(open_picture(saved(picture))), image)
        assert np.abs(normalise(open_picture(saved(inverted(picture)))) - image).max() < 1e-6


def test_the_longer_side_is_20_and_the_centre_of_mass_in_the_middle() -> None:
    picture = Image.new("L", (300, 200), 255)
    picture.paste(0, (10, 20, 40, 140))
    image = normalise(open_picture(saved(picture)))
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    assert (len(rows), len(columns)) == (20, 5)
    assert rows[0] == 4
    assert columns[0] in (11, 12)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2), (3999, 3999)])
def test_odd_sizes_give_an_image_or_a_reason(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 256, size[::-1], dtype=np.uint8))
    content = saved(picture)
    if size == (1, 1):
        with pytest.raises(PictureError, match="a blank image"):
            normalise(open_picture(content))
        return
    image = normalise(open_picture(content))
    assert image.shape == (28, 28)
    assert 0 <= image.min() <= image.max() <= 1


def test_every_cut_of_a_picture_is_refused_or_read(mnist: MnistData) -> None:
    for kind in ("PNG", "JPEG"):
        content = saved(enlarge(mnist.split("test").images[0].numpy(), 3), kind)
        for length in range(0, len(content), 37):
            try:
                image = normalise(open_picture(content[:length]))
            except PictureError:
                continue
            assert image.shape == (28, 28)


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    stream = io.BytesIO()
    enlarge(np.eye(28, dtype=np.float32)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    normalise(open_picture(content))
    last = content.rindex(b"\xff\xda")
    bomb = content[:-2] + content[last:-2] * 100 + content[-2:]
    with pytest.raises(PictureError, match="at most 32 scans, got one of 1"):
        open_picture(bomb)
