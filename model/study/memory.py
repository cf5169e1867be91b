"""What a training step takes of memory, measured in a fresh process for each batch size.

    python -m model.study.memory --batch_size 128 --chunk 5000 --hidden_size 128 --train_images 50000 --data_dir data/mnist

The peak is what Linux notes as ``VmHWM``, put back to what is in use just before the first step: data, libraries and weights are
in the baseline, batch, activations, gradients and the optimizer's state are what is measured. Not ``ru_maxrss``, which a new
process inherits from the one that started it.
"""

import argparse
import ctypes
import gc
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model.data import Batches, MnistData
from model.network import Network
from model.optimizers import build_optimizer
from model.study.plan import DROPOUT_RATE, Settings
from model.study.training import CHUNK, train_step

_STEPS = 2
_SECONDS = 1800
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_CLEAR_PEAK = "5"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Peak of two steps of Adam beyond the baseline, MiB, of ``rounds`` processes; ``chunk`` images go through at once."""

    batch_size: int
    chunk: int
    baseline_mib: float
    median_mib: float
    least_mib: float
    greatest_mib: float
    rounds: int


def measure(settings: Settings, data_dir: str, rounds: int) -> list[Memory]:
    """A fresh process for each batch size and round, in turns. Nothing where the system does not tell. Raises `OSError`."""
    if not _CLEAR.exists():
        return []
    small, whole = [size for size in settings.batch_sizes if size in (1, 128, 4096)], settings.train_images
    kinds = [*((size, size) for size in small), (whole, min(CHUNK, whole // 2)), (whole, whole)]
    found: dict[tuple[int, int], list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for batch_size, chunk in kinds:
            found[batch_size, chunk].append(_run(settings, data_dir, batch_size, chunk))
    return [_summary(*kind, peaks) for kind, peaks in found.items()]


def _summary(batch_size: int, chunk: int, peaks: Sequence[tuple[float, float]]) -> Memory:
    beyond = [peak - baseline for baseline, peak in peaks]
    return Memory(
        batch_size=batch_size,
        chunk=chunk,
        baseline_mib=statistics.median(baseline for baseline, _ in peaks),
        median_mib=statistics.median(beyond),
        least_mib=min(beyond),
        greatest_mib=max(beyond),
        rounds=len(peaks),
    )


def _run(settings: Settings, data_dir: str, batch_size: int, chunk: int) -> tuple[float, float]:
    options = {"batch_size": batch_size, "chunk": chunk, "hidden_size": settings.hidden_size, "data_dir": data_dir}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "model.study.memory", *words, "--train_images", str(settings.train_images)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except subprocess.SubprocessError as error:
        message = f"memory of a step of {batch_size} images was not measured: {error}"
        raise OSError(message) from error
    baseline, peak = json.loads(done.stdout)
    return baseline, peak


def _status_mib(name: str) -> float:
    (kib,) = re.findall(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return int(kib) / 1024


def main() -> None:
    """Print the baseline and the peak, MiB, as JSON."""
    parser = argparse.ArgumentParser(description="Measure the memory of a training step in this process.")
    for name in ("batch_size", "chunk", "hidden_size", "train_images"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--data_dir", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    split = MnistData(arguments.data_dir).split("train").take(torch.arange(arguments.train_images))
    network = Network([arguments.hidden_size], DROPOUT_RATE).train()
    optimizer = build_optimizer("adam", network.parameters())
    gc.collect()
    # What reading the data has freed, and the allocator still holds, would hide as much of what a step takes.
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text(_CLEAR_PEAK)
    baseline = _status_mib("VmHWM")
    for step in range(_STEPS):
        batch = next(iter(Batches(split, batch_size=arguments.batch_size, seed=step)))
        train_step(network, optimizer, batch, seed=0, step=step, chunk=arguments.chunk)
    print(json.dumps([baseline, _status_mib("VmHWM")]))


if __name__ == "__main__":
    main()
