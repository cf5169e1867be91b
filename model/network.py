"""The network: Dense, activation, Dropout, Dense. Its input transform lives inside it: what is exported is what was trained."""

import math
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.bundle import IMAGE_SHAPE, LABELS, BundleError

Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh"]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}

# Mean and standard deviation of the 60,000 MNIST training images' pixels, in [0, 1].
PIXEL_MEAN, PIXEL_STD = 0.1307, 0.3081


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) that costs a fifth of torch's own on a CPU, where drawing the mask is a sixth of a step.

    torch draws a Bernoulli variable for each element from its serial generator; here one draw of 64 bits decides on four. The
    rate is rounded to a multiple of 2**-16.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self._dropped = round(rate * 2**16)

    def forward(self, inputs: Tensor) -> Tensor:
        """``inputs`` of any shape; in training with some elements 0 and the others scaled up to keep the mean."""
        if not (self.training and self._dropped):
            return inputs
        if inputs.device.type != "cpu":
            return functional.dropout(inputs, self.rate)
        count = inputs.numel()
        bits = torch.empty(math.ceil(count / 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        is_kept = (bits[:count] >= self._dropped - 2**15).view(inputs.shape)
        return inputs * is_kept * (2**16 / (2**16 - self._dropped))


class Network(nn.Module):
    """A multilayer perceptron from images (n, 28, 28) or (n, 784) in [0, 1] to logits (n, 10); softmax is left to the edge.

    Args:
        hidden_sizes: Width of each hidden layer; empty for a linear classifier.
        dropout_rate: Share of a hidden layer's outputs dropped in training, in [0, 1).
        batch_norm: Normalise each hidden layer over the batch, before its activation (Ioffe and Szegedy 2015).
        activation: What follows each hidden layer.

    Raises:
        ValueError: An argument out of range; the message names it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        hidden_sizes: Sequence[int] = (512,),
        dropout_rate: float = 0.2,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        if any(size < 1 for size in hidden_sizes):
            message = f"hidden_sizes: expected whole numbers of at least 1, got {list(hidden_sizes)}"
            raise ValueError(message)
        if not 0 <= dropout_rate < 1:
            message = f"dropout_rate: expected a number in [0, 1), got {dropout_rate}"
            raise ValueError(message)
        if activation not in _ACTIVATIONS:
            message = f"activation: expected one of {', '.join(get_args(Activation))}, got {activation!r}"
            raise ValueError(message)
        layers: list[nn.Module] = []
        width = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]
        for size in hidden_sizes:
            # A bias before batch normalisation would be subtracted again with the mean.
            layers.append(nn.Linear(width, size, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(size))
            layers += [_ACTIVATIONS[activation](), Dropout(dropout_rate)]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, len(LABELS)))
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN))
        self.register_buffer("std", torch.tensor(PIXEL_STD))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 10) of ``images`` (n, 28, 28) or (n, 784)."""
        logits: Tensor = self.layers((images.flatten(1) - self.mean) / self.std)
        return logits


def load_network(checkpoint: Path, arguments: Mapping[str, Any]) -> Network:
    """The network of a Lightning checkpoint, in evaluation mode on the CPU; ``arguments`` are those it was built with.

    Nothing is unpickled. Raises `BundleError` where the weights do not fit the arguments.
    """
    try:
        network = Network(**arguments)
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in state.items()})
    except (KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        message = f"{checkpoint}: expected the weights of Network({dict(arguments)}): {reason}"
        raise BundleError(message) from error
    return network.eval()
