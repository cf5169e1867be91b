"""The two ways to a gradient."""

import pytest
import torch

from model.data import MnistData
from model.network import Network
from model.study import gradients
from model.study.gradients import looped, measure, vectorised


def test_a_loop_over_images_gives_the_same_gradient(mnist: MnistData) -> None:
    split = mnist.split("train")
    torch.manual_seed(1)
    network = Network([32], 0.0)
    images, labels = split.images[:50], split.labels[:50]
    for one, other in zip(vectorised(network, images, labels), looped(network, images, labels), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)


def test_both_are_timed_in_turns_and_threads_are_as_before(mnist: MnistData) -> None:
    threads = torch.get_num_threads()
    one, many = measure(mnist.split("train"), 32, (1, 64), rounds=3)
    assert torch.get_num_threads() == threads
    assert (one.images, many.images) == (1, 64)
    assert many.least_ratio <= many.ratio <= many.greatest_ratio
    assert 0 <= many.difference < 1e-5
    # Whatever else the machine does, 64 passes take longer than one.
    assert many.greatest_ratio > 2


def test_a_loop_that_computes_something_else_is_not_timed(mnist: MnistData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "looped", lambda *given: [2 * tensor for tensor in vectorised(*given)])
    with pytest.raises(AssertionError, match="differ"):
        measure(mnist.split("train"), 32, (4,), rounds=1)
