"""Optimizers and learning-rate schedules, chosen by name."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

OptimizerName = Literal["gd", "sgd", "rmsprop", "adam"]
ScheduleName = Literal["constant", "linear", "cosine", "onecycle"]

# What each optimizer starts from where the configuration names no learning rate.
LEARNING_RATES: dict[OptimizerName, float] = {"gd": 0.5, "sgd": 0.05, "rmsprop": 1e-3, "adam": 2e-3}

# A one-cycle schedule rises for this share of the steps (Smith and Topin 2017); the others only warm up where told to.
_RISE_FRACTION = 0.3


def build_optimizer(
    name: OptimizerName,
    parameters: Iterable[Parameter],
    *,
    learning_rate: float | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Optimizer:
    """The optimizer called ``name``.

    ``gd`` is plain gradient descent, for batches that hold the whole training set; ``sgd`` takes momentum and Nesterov's
    look-ahead (Sutskever et al. 2013); ``rmsprop`` takes momentum; ``adam`` decouples its weight decay (Loshchilov and
    Hutter 2019), which without weight decay is Adam (Kingma and Ba 2015).
    """
    rate = LEARNING_RATES[name] if learning_rate is None else learning_rate
    match name:
        case "gd":
            return torch.optim.SGD(parameters, lr=rate, weight_decay=weight_decay)
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=rate, momentum=momentum, weight_decay=weight_decay)
        case "adam":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay, fused=True)


def build_schedule(name: ScheduleName, optimizer: Optimizer, *, steps: int, warmup_fraction: float = 0.0) -> LambdaLR:
    """The schedule called ``name``, over ``steps`` optimizer steps, of which ``warmup_fraction`` rise from 0 in a line."""
    rise = _RISE_FRACTION if name == "onecycle" and not warmup_fraction else warmup_fraction

    def factor(step: int) -> float:
        progress = min(step / max(steps, 1), 1.0)
        if progress < rise:
            return (step + 1) / (rise * steps + 1)
        remaining = (1 - progress) / (1 - rise)
        match name:
            case "constant":
                return 1.0
            case "linear":
                return remaining
            case "cosine" | "onecycle":
                return (1 - math.cos(math.pi * remaining)) / 2

    return LambdaLR(optimizer, factor)
