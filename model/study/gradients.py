"""The gradient of a batch, vectorised and by a Python loop over its images: the same numbers, at what ratio of times."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.data import Split
from model.network import Network

_ROUNDS = 7
_MATCHING = 1e-5


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """Of a batch of ``images``: medians over rounds in which both ways took turns.

    ``ratio`` is the median of the rounds' ratios, between ``least_ratio`` and ``greatest_ratio``; ``difference`` the largest of
    any element of the gradient, as a share of the gradient's largest element.
    """

    images: int
    vectorised_ms: float
    loop_ms: float
    ratio: float
    least_ratio: float
    greatest_ratio: float
    difference: float


def vectorised(network: Network, images: Tensor, labels: Tensor) -> list[Tensor]:
    """The gradient of the mean loss of ``images`` (n, 28, 28), in one pass."""
    return list(torch.autograd.grad(functional.cross_entropy(network(images), labels), list(network.parameters())))


def looped(network: Network, images: Tensor, labels: Tensor) -> list[Tensor]:
    """The same, an image at a time."""
    parameters = list(network.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for index in range(len(labels)):
        loss = functional.cross_entropy(network(images[index : index + 1]), labels[index : index + 1])
        for so_far, gradient in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            so_far.add_(gradient)
    return [gradient / len(labels) for gradient in total]


def measure(split: Split, hidden_size: int, sizes: tuple[int, ...], rounds: int = _ROUNDS) -> list[Gradient]:
    """Both ways on the first images of ``split``, for each of ``sizes``; by one thread, without dropout.

    A loop that gives another gradient than the vectorised one is no loop to compare with: an `AssertionError`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(0)
        network = Network([hidden_size], 0.0)
        return [_measure(network, split.images[:size], split.labels[:size], rounds) for size in sizes]
    finally:
        torch.set_num_threads(threads)


def _measure(network: Network, images: Tensor, labels: Tensor, rounds: int) -> Gradient:
    ways = (vectorised, looped)
    expected, found = (way(network, images, labels) for way in ways)
    scale = max(float(tensor.abs().max()) for tensor in expected)
    difference = max(float((one - other).abs().max()) for one, other in zip(expected, found, strict=True)) / scale
    assert difference < _MATCHING, f"the gradients of {len(labels)} images differ by {difference:g}"
    times = []
    for _ in range(rounds):
        stamps = [time.perf_counter()]
        for way in ways:
            way(network, images, labels)
            stamps.append(time.perf_counter())
        times.append((stamps[1] - stamps[0], stamps[2] - stamps[1]))
    ratios = [loop / whole for whole, loop in times]
    return Gradient(
        images=len(labels),
        vectorised_ms=1e3 * statistics.median(whole for whole, _ in times),
        loop_ms=1e3 * statistics.median(loop for _, loop in times),
        ratio=statistics.median(ratios),
        least_ratio=min(ratios),
        greatest_ratio=max(ratios),
        difference=difference,
    )
