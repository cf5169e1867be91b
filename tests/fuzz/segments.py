"""PNG as chunks and JPEG as segments: files put together by hand, well or badly, and files taken apart and put together again."""

import struct
import zlib
from random import Random

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNKS = (
    b"IHDR",
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"tRNS",
    b"eXIf",
    b"gAMA",
    b"iCCP",
    b"tEXt",
    b"zTXt",
    b"iTXt",
    b"acTL",
    b"fcTL",
    b"fdAT",
)
_ANCILLARY = (
    b"pHYs",
    b"cHRM",
    b"sRGB",
    b"sBIT",
    b"bKGD",
    b"hIST",
    b"tIME",
    b"oFFs",
    b"abCD",
    b"\x00\x00\x00\x00",
    b"idat",
    b"CgBI",
)
_SIZES = (0, 1, 2, 27, 28, 255, 4000, 4001, 60_000, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
_MARKERS = (0xC0, 0xC2, 0xC4, 0xC8, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xD0, 0xD8, 0xD9, 0xFF, 0x00, 0x01)

Chunk = tuple[bytes, bytes]


def chunk(kind: bytes, content: bytes, checksum: int | None = None, length: int | None = None) -> bytes:
    """A chunk; its ``checksum`` and its ``length`` may lie."""
    right = zlib.crc32(kind + content)
    return struct.pack(">I", len(content) if length is None else length) + kind + content + struct.pack(">I", checksum or right)


def header(width: int, height: int, depth: int = 8, colour: int = 0, rest: bytes = b"\0\0\0") -> bytes:
    """The content of IHDR; ``rest`` is compression, filter and interlacing."""
    return struct.pack(">IIBB", width, height, depth, colour) + rest


def png(ihdr: bytes, pixels: bytes, *others: Chunk, level: int = 1) -> bytes:
    """A PNG of uncompressed ``pixels``, each row behind the number of its filter, with ``others`` before them."""
    chunks = [(b"IHDR", ihdr), *others, (b"IDAT", zlib.compress(pixels, level)), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(chunk(*each) for each in chunks)


def png_chunks(content: bytes) -> list[Chunk]:
    """The chunks of a good PNG."""
    chunks, place = [], len(PNG_SIGNATURE)
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += length + 12
    return chunks


def mutate_png(random: Random, content: bytes) -> bytes:
    """A PNG with other chunks, sizes or contents, most of the time with right checksums."""
    chunks = png_chunks(content)
    for _ in range(random.choice((1, 1, 2, 3))):
        place = random.randrange(len(chunks))
        kind, inner = chunks[place]
        change = random.random()
        if change < 0.25:
            chunks.insert(place, (random.choice(_CHUNKS + _ANCILLARY), _filling(random)))
        elif change < 0.35 and len(chunks) > 1:
            del chunks[place]
        elif change < 0.45:
            chunks.insert(random.randrange(len(chunks) + 1), chunks[place])
        elif change < 0.6:
            chunks[0] = (b"IHDR", _other_header(random, chunks[0][1]))
        elif change < 0.75 and kind == b"IDAT":
            chunks[place] = (kind, _other_pixels(random, inner))
        elif inner:
            at = random.randrange(len(inner))
            chunks[place] = (kind, inner[:at] + random.randbytes(random.choice((0, 1, 1, 4))) + inner[at + 1 :])
    lie = random.randrange(len(chunks)) if random.random() < 0.15 else -1
    length = random.choice((None, 0, 2**31, 2**32 - 1, 5))
    parts = [chunk(*each, 7, length) if index == lie else chunk(*each) for index, each in enumerate(chunks)]
    return PNG_SIGNATURE + b"".join(parts)


def _filling(random: Random) -> bytes:
    kind = random.random()
    if kind < 0.4:
        return random.randbytes(random.choice((0, 1, 4, 9, 26, 768)))
    if kind < 0.6:
        return b"name\0\0" + zlib.compress(b"\0" * random.choice((10, 70_000, 3_000_000)))
    if kind < 0.8:
        return exif(random)
    text = b'<x tiff:Orientation="6"/>' if kind < 0.9 else random.randbytes(40)
    return b"XML:com.adobe.xmp\0\0\0\0\0" + text


def _other_header(random: Random, ihdr: bytes) -> bytes:
    if random.random() < 0.5 and len(ihdr) == 13:
        place = random.randrange(8, 13)
        return ihdr[:place] + bytes([random.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))]) + ihdr[place + 1 :]
    return (
        header(random.choice(_SIZES), random.choice(_SIZES))
        if random.random() < 0.9
        else random.randbytes(random.choice((0, 12, 13, 14)))
    )


def _other_pixels(random: Random, compressed: bytes) -> bytes:
    try:
        pixels = zlib.decompressobj().decompress(compressed, 1_000_000)
    except zlib.error:
        pixels = b""
    at = random.randrange(len(pixels) + 1)
    pixels = random.choice(
        (pixels[:at], pixels + pixels, pixels[at:], bytes(len(pixels)), pixels[:at] + b"\x07" + pixels[at + 1 :])
    )
    return random.choice((zlib.compress(pixels, 9), zlib.compress(pixels, 0), zlib.compress(pixels)[2:], pixels))


def exif(random: Random, orientation: int | None = None) -> bytes:
    """A block of EXIF: with one good tag of orientation, or with tags of all kinds of types, counts and places."""
    order = random.choice("<>")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    if orientation is not None:
        return start + struct.pack(f"{order}HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    tags = [0x0112, 0x8769, 0x8825, 0x927C, 0x014A, 0xA005, 0x9286, random.getrandbits(16)]
    entries = [
        struct.pack(
            f"{order}HHII",
            random.choice(tags),
            random.choice((1, 2, 3, 4, 5, 7, 9, 10, 12, 13, 16, 99)),
            random.choice((0, 1, 2, 1000, 2**32 - 1)),
            random.choice((0, 1, 6, 8, 9, 26, 2**31, 2**32 - 1)),
        )
        for _ in range(random.choice((1, 1, 3, 20)))
    ]
    return start + struct.pack(f"{order}H", len(entries) + random.choice((0, 0, 0, 50))) + b"".join(entries)


def segment(marker: int, content: bytes, length: int | None = None) -> bytes:
    """A segment; its ``length`` may lie."""
    return bytes([0xFF, marker]) + struct.pack(">H", (len(content) + 2 if length is None else length) % 65_536) + content


def jpeg_segments(content: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The segments of a good JPEG up to its first scan, and the rest."""
    segments, place = [], 2
    while content[place + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", content, place + 2)
        segments.append((content[place + 1], content[place + 4 : place + 2 + length]))
        place += 2 + length
    return segments, content[place:]


def mutate_jpeg(random: Random, content: bytes) -> bytes:
    """A JPEG with other segments, sizes, lengths or scans."""
    segments, scans = jpeg_segments(content)
    for _ in range(random.choice((1, 1, 2, 3))):
        place = random.randrange(len(segments)) if segments else 0
        change = random.random()
        if change < 0.35 or not segments:
            segments.insert(place, (random.choice(_MARKERS), random.choice((exif, _application))(random)))
        elif change < 0.45:
            del segments[place]
        elif change < 0.55:
            segments.insert(random.randrange(len(segments) + 1), segments[place])
        elif change < 0.65:
            size = struct.pack(">HH", *(random.choice(_SIZES[:10]) for _ in range(2)))
            segments = [
                (kind, inner[:1] + size + inner[5:]) if kind in (0xC0, 0xC2) else (kind, inner) for kind, inner in segments
            ]
        elif change < 0.75:
            scans = scans[:-2] * random.choice((2, 5, 33)) + scans[-2:]
        elif inner := segments[place][1]:
            at = random.randrange(len(inner))
            segments[place] = (segments[place][0], inner[:at] + random.randbytes(1) + inner[at + 1 :])
    lie = random.randrange(len(segments) + 1) if random.random() < 0.1 else -1
    length = random.choice((0, 1, 2, 3, 65_535))
    parts = [segment(*each, length if index == lie else None) for index, each in enumerate(segments)]
    return b"\xff\xd8" + b"".join(parts) + scans


def _application(random: Random) -> bytes:
    start = random.choice(
        (b"", b"JFIF\0", b"Exif\0\0", b"MPF\0", b"Adobe\0", b"ICC_PROFILE\0\1\1", b"Photoshop 3.0\x008BIM", b"JFXX\0")
    )
    return start + random.choice((exif(random), random.randbytes(random.choice((0, 4, 14, 60))), bytes(64)))


def mpf(count: int) -> bytes:
    """The content of a segment which says that the file holds ``count`` pictures."""
    entries = b"".join(struct.pack("<IIIHH", 0, 0, 0, 0, 0) for _ in range(count))
    tags = struct.pack("<H", 3) + struct.pack("<HHI4s", 0xB000, 7, 4, b"0100") + struct.pack("<HHII", 0xB001, 4, 1, count)
    tags += struct.pack("<HHII", 0xB002, 7, len(entries), 8 + 2 + 36 + 4) + bytes(4)
    return b"MPF\0II*\0" + struct.pack("<I", 8) + tags + entries
