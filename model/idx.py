"""IDX files, the format MNIST comes in: read, and checked for all that can be wrong with them."""

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.bundle import IMAGE_SHAPE

DIGESTS = "SHA256SUMS"

# The magic number of an IDX file: two zero bytes, 8 for unsigned bytes, the number of dimensions.
_IMAGES_MAGIC, _LABELS_MAGIC = 0x00000803, 0x00000801


class DataError(ValueError):
    """A data file that is missing or damaged; the message is one line that names it and what is wrong."""


def read_idx(path: Path, digest: str | None = None) -> npt.NDArray[np.uint8]:
    """An IDX file of images (n, 28, 28) or labels (n,), compressed with gzip or plain.

    The format is described with the data set, http://yann.lecun.com/exdb/mnist/. ``digest`` is the sha256 the file must have.
    Raises `DataError` where it is missing, truncated, altered, or no such file.
    """
    try:
        stored = path.read_bytes()
        content = gzip.decompress(stored) if path.suffix == ".gz" else stored
    except FileNotFoundError:
        message = f"{path}: missing"
        raise DataError(message) from None
    except EOFError:
        message = f"{path}: truncated, the gzip stream ends after {len(stored):,} bytes"
        raise DataError(message) from None
    except (OSError, zlib.error) as error:
        message = f"{path}: cannot be read ({error})"
        raise DataError(message) from None
    array = _parse_idx(path, content)
    found = hashlib.sha256(stored).hexdigest()
    if digest not in (None, found):
        message = f"{path}: altered, sha256 is {found[:12]}... where {DIGESTS} says {str(digest)[:12]}..."
        raise DataError(message)
    return array


def _parse_idx(path: Path, content: bytes) -> npt.NDArray[np.uint8]:
    magic = int.from_bytes(content[:4], "big")
    if magic not in (_IMAGES_MAGIC, _LABELS_MAGIC):
        message = (
            f"{path}: magic number is 0x{magic:08x}, expected 0x{_IMAGES_MAGIC:08x} (images) or 0x{_LABELS_MAGIC:08x} (labels)"
        )
        raise DataError(message)
    dimensions = magic & 0xFF
    header = 4 + 4 * dimensions
    if len(content) < header:
        message = f"{path}: truncated in its header, at {len(content)} bytes"
        raise DataError(message)
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if dimensions > 1 and shape[1:] != IMAGE_SHAPE:
        message = f"{path}: images are {shape[1]}x{shape[2]}, expected {IMAGE_SHAPE[0]}x{IMAGE_SHAPE[1]}"
        raise DataError(message)
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        fault = "truncated" if len(content) < expected else "too long"
        message = f"{path}: {fault}, {len(content):,} bytes where its header says {expected:,}"
        raise DataError(message)
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_digests(data_dir: Path) -> dict[str, str]:
    """The sha256 of each data file, by its name, from ``SHA256SUMS`` beside them."""
    path = data_dir / DIGESTS
    try:
        pairs = [line.split() for line in path.read_text().splitlines()]
        return {name: digest for digest, name in pairs}
    except FileNotFoundError:
        message = f"{path}: missing, expected the digests of the four MNIST files"
        raise DataError(message) from None
    except ValueError:
        message = f"{path}: expected lines of a sha256 and a file's name"
        raise DataError(message) from None
