"""Pictures as bodies and in V1's ``{"b64": ...}``: digits in all modes and sizes, damaged files, and files that claim a lot."""

import base64
import io
from collections.abc import Iterator
from functools import cache
from random import Random

import numpy as np
from PIL import Image

from model.bundle import Floats
from tests.fuzz.body import V1_PATH, Body, Origin, draw, mutate_bytes
from tests.fuzz.rest import odd_headers
from tests.fuzz.segments import exif, header, jpeg_segments, mpf, mutate_jpeg, mutate_png, png, segment

_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_SIZES = ((28, 28), (28, 28), (20, 20), (56, 56), (100, 30), (9, 200), (300, 300))
_TYPES = (b"image/png", b"image/jpeg", b"IMAGE/PNG; x=1")
_POOL = 160
_SCAN = b"\xff\xda"


class Pictures:
    """Pictures of MNIST's ``images`` (n, 28, 28). The same ones whatever is drawn before: a pool is made at the start."""

    def __init__(self, images: Floats) -> None:
        random = Random(28)  # noqa: S311 -- nothing here is secret
        self._pool = [_picture(random, image) for image in images[random.choices(range(len(images)), k=_POOL)]]

    def __call__(self, random: Random) -> Body:
        """A body."""
        return draw(random, (24, self._valid), (36, self._mutated_parts), (28, self._mutated), (12, self._made))

    def _valid(self, random: Random) -> Body:
        pictures = random.choices(self._pool, k=random.choice((1, 1, 1, 1, 2, 10)))
        return _wrap(random, pictures, "valid", is_good=True)

    def _mutated_parts(self, random: Random) -> Body:
        content = random.choice(self._pool)
        changed = mutate_png(random, content) if content.startswith(b"\x89PNG") else mutate_jpeg(random, content)
        return _wrap(random, [changed], "mutated")

    def _mutated(self, random: Random) -> Body:
        body = _wrap(random, random.choices(self._pool, k=random.choice((1, 1, 2))), "mutated")
        # The damage is more often in the file's head than it would be by chance.
        content = body.content if random.random() < 0.5 else mutate_bytes(random, body.content[:200]) + body.content[200:]
        return Body(**{**vars(body), "content": mutate_bytes(random, content, start=random.choice((0, 0, 8, 200)))})

    def _made(self, random: Random) -> Body:
        kind = random.random()
        if kind < 0.3:
            size = (random.choice((1, 2, 3, 28, 60_000)), random.choice((1, 2, 28, 60_000)))
            ihdr = header(
                *size, random.choice((1, 2, 4, 8, 16)), random.choice((0, 2, 3, 4, 6)), bytes([0, 0, random.randrange(2)])
            )
            content = png(ihdr, random.randbytes(random.choice((0, 1, 60, 2000))), *_palette(random))
        elif kind < 0.6:
            content = png(header(28, 28), bytes([random.randrange(256)]) * 29 * 28, (b"eXIf", exif(random)))
        else:
            start = random.choice(
                (b"", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP", b"II*\0", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"P5 28 28 255 ")
            )
            content = start + random.randbytes(random.choice((0, 3, 30, 1000)))
        return _wrap(random, [content], "made")


def _palette(random: Random) -> Iterator[tuple[bytes, bytes]]:
    if random.random() < 0.7:
        yield b"PLTE", random.randbytes(random.choice((0, 3, 12, 47, 768, 900)))
    if random.random() < 0.3:
        yield b"tRNS", random.randbytes(random.choice((0, 1, 2, 6, 256, 300)))


def _picture(random: Random, image: Floats) -> bytes:
    grey = np.round(image * 255).astype(np.uint8)
    picture = Image.fromarray(grey if random.random() < 0.5 else 255 - grey)
    picture = picture.resize(random.choice(_SIZES))
    stream = io.BytesIO()
    if random.random() < 0.5:
        mode = random.choice(_MODES)
        picture = (
            picture.convert("I").convert("I;16").point(lambda value: value * 257) if mode == "I;16" else picture.convert(mode)
        )
        options = {"transparency": 0} if mode == "P" and random.random() < 0.5 else {}
        picture.save(stream, "PNG", compress_level=random.choice((0, 1, 9)), exif=_orientation(random), **options)
    else:
        picture = picture.convert(random.choice(("L", "RGB", "CMYK")))
        quality, is_progressive = random.choice((20, 75, 95)), random.random() < 0.5
        picture.save(stream, "JPEG", quality=quality, progressive=is_progressive, exif=b"Exif\0\0" + _orientation(random))
    return stream.getvalue()


def _orientation(random: Random) -> bytes:
    return exif(random, random.randint(1, 8))


def _wrap(random: Random, pictures: list[bytes], origin: Origin, *, is_good: bool = False) -> Body:
    """A body of ``pictures``: one may be the body itself."""
    headers = odd_headers(random)
    if len(pictures) == 1 and random.random() < 0.6:
        headers["content-type"] = random.choice(_TYPES)
        return Body(content=pictures[0], target=V1_PATH, origin=origin, headers=headers, is_good=is_good, count=1)
    instances = b",".join(b'{"b64":"%s"}' % base64.b64encode(content) for content in pictures)
    content = b'{"instances":[%s]}' % instances
    return Body(content=content, target=V1_PATH, origin=origin, headers=headers, is_good=is_good, count=len(pictures))


@cache
def heavy_pictures() -> tuple[Body, ...]:
    """What takes a decoder longest, or would if it were let."""
    large = [_large(*kind) for kind in ((8, 0, 1), (8, 2, 3), (8, 6, 4), (16, 0, 2), (16, 6, 8), (1, 0, 0))]
    bombs = [
        png(header(60_000, 60_000), b""),
        png(header(4000, 4000), bytes(100)),
        png(header(28, 28), bytes(29 * 28), *[(b"zTXt", b"t\0\0" + _zeros(60_000_000))] * 20),
        png(header(28, 28), bytes(29 * 28), *[(b"tEXt", b"t\0" + b"x" * 9)] * 50_000),
        png(header(28, 28), bytes(29 * 28), (b"iCCP", b"p\0\0" + _zeros(60_000_000))),
        *(
            _progressive(side, scans, is_mpo=is_mpo)
            for side in (400, 4000)
            for scans in (10, 31, 3000)
            for is_mpo in (False, True)
        ),
    ]
    many = [_many(png(header(28, 28), bytes(29 * 14) + b"\0" + b"\xff" * 28 + bytes(29 * 13)), count) for count in (1024, 1025)]
    bodies = [Body(content=each, target=V1_PATH, origin="made", headers={"content-type": b"image/png"}) for each in large + bombs]
    return (*bodies, photograph("RGB"), photograph("CMYK"), *(Body(content=each, target=V1_PATH, origin="made") for each in many))


def _zeros(size: int) -> bytes:
    # The content of IDAT is what zlib makes of the pixels.
    return png(b"", bytes(size), level=9)[8 + 12 + 8 : -16]


def _large(depth: int, colour: int, size: int, side: int = 4000) -> bytes:
    row_bytes = side * size or side // 8
    blank = bytes(row_bytes + 1)
    inked = b"\0" + bytes(row_bytes // 3) + b"\xff" * (row_bytes // 3) + bytes(row_bytes - 2 * (row_bytes // 3))
    return png(header(side, side, depth, colour), blank * (side // 3) + inked * (side // 3) + blank * (side - 2 * (side // 3)))


def _progressive(side: int, scans: int, *, is_mpo: bool) -> bytes:
    """A progressive JPEG of a size which its file claims, with scans of nearly nothing."""
    stream = io.BytesIO()
    Image.new("L", (side, side)).save(stream, "JPEG", progressive=True)
    segments, data = jpeg_segments(stream.getvalue())
    # A scan that is there already, once more, with the least that takes time to decode.
    repeated = data[data.rindex(_SCAN) :][:10] + bytes(100)
    extra = segment(0xE2, mpf(2)) if is_mpo else b""
    return b"\xff\xd8" + extra + b"".join(segment(*each) for each in segments) + data[:-2] + repeated * scans + data[-2:]


@cache
def photograph(mode: str = "RGB") -> Body:
    """A good picture of as many pixels as are taken."""
    noise = np.random.default_rng(28).integers(0, 256, (1000, 1000), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((4000, 4000)).convert(mode).save(stream, "JPEG", quality=50, progressive=True)
    headers = {"content-type": b"image/jpeg"}
    return Body(content=stream.getvalue(), target=V1_PATH, origin="valid", headers=headers, is_good=True, count=1)


def _many(content: bytes, count: int) -> bytes:
    return b'{"instances":[%s]}' % b",".join([b'{"b64":"%s"}' % base64.b64encode(content)] * count)
