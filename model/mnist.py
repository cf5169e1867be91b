"""MNIST as numpy arrays, checked, and which of its images are for what; without PyTorch, so that a roll-out needs none.

The 60,000 training images are split by seed into 50,000 to train on, 5,000 to validate (choose, calibrate, gate) and 5,000
golden ones, which nothing is trained, chosen or calibrated on: they are the yardstick by which a roll-out compares two models.
The 10,000 test images are for reported figures only.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.bundle import LABELS, Floats, Labels
from model.idx import DIGESTS, DataError, read_digests, read_idx

TRAIN_SIZE, VALIDATION_SIZE, GOLDEN_SIZE = 50_000, 5_000, 5_000
SPLIT_SEED = 1998


def read(data_dir: Path, prefix: str) -> tuple[npt.NDArray[np.uint8], Labels]:
    """The images (n, 28, 28) and labels (n,) of ``train`` or ``t10k``, verified. Raises `DataError`."""
    digests = read_digests(data_dir)
    arrays = []
    for name in (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"):
        if name not in digests:
            message = f"{data_dir / DIGESTS}: no digest of {name}"
            raise DataError(message)
        arrays.append(read_idx(data_dir / name, digests[name]))
    images, labels = arrays
    if len(images) != len(labels) or labels.max(initial=0) >= len(LABELS):
        message = f"{data_dir}: {prefix} has {len(images)} images and {len(labels)} labels up to {labels.max(initial=0)}"
        raise DataError(message)
    return images, labels.astype(np.int64)


def scale(images: npt.NDArray[np.uint8]) -> Floats:
    """Bytes (n, 28, 28) as float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)


def parts(seed: int = SPLIT_SEED) -> dict[str, npt.NDArray[np.int64]]:
    """Which of the 60,000 training images are of ``train``, ``validation`` and ``golden``, in random order."""
    ends = np.cumsum([0, TRAIN_SIZE, VALIDATION_SIZE, GOLDEN_SIZE]).tolist()
    order = _permutation(ends[-1], seed)
    return {name: order[start:end] for name, (start, end) in zip(("train", "validation", "golden"), pairwise(ends), strict=True)}


def _permutation(count: int, seed: int) -> npt.NDArray[np.int64]:
    """A Fisher-Yates shuffle by the Mersenne Twister: what ``torch.randperm`` makes of the seed on a CPU."""
    twister = np.random.RandomState(seed & 0xFFFFFFFF)
    drawn = twister.randint(0, 1 << 32, count - 1, np.uint32).tolist()
    order = list(range(count))
    for at, number in enumerate(drawn):
        other = at + number % (count - at)
        order[at], order[other] = order[other], order[at]
    return np.array(order)
