"""The prompt's optimizer, its learning rate, its state as plain tensors and numbers, and the prompt's running mean."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.optimization import Adafactor

from fpt.config.schema import OptimConfig
from fpt.prompts.modules import Prompt

State = dict[str, Tensor | float | int]


def make(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    """Adafactor (Shazeer and Stern 2018) without parameter scaling, or AdamW (Loshchilov and Hutter 2019).

    A tensor with one axis is a bias and has no weight decay. Adafactor's momentum averages steps that are scaled
    already; AdamW's averages gradients.
    """
    assert config.name != "auto"  # a run's settings are resolved already
    assert config.lr is not None
    groups = [
        {"params": [parameter], "weight_decay": config.weight_decay if parameter.ndim > 1 else 0.0}
        for parameter in parameters
    ]
    if config.name == "adamw":
        momentum = 0.9 if config.momentum is None else config.momentum
        return torch.optim.AdamW(groups, lr=config.lr, betas=(momentum, 0.999))
    return Adafactor(groups, lr=config.lr, beta1=config.momentum or None, scale_parameter=False, relative_step=False)


def rate(config: OptimConfig, update: int, updates: int) -> float:
    """The learning rate of the next update when `update` of a run's `updates` are done."""
    assert config.lr is not None
    assert config.schedule != "auto"
    rising = round(config.warmup * updates)
    if update < rising:
        return config.lr * (update + 1) / rising
    return config.lr * ((updates - update) / (updates - rising) if config.schedule == "linear" else 1)


def pack(optimizer: torch.optim.Optimizer) -> State:
    """A flat copy of the optimizer's state, empty before a step; parameters are numbered (`0.exp_avg`)."""
    parts: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {f"{index}.{name}": deepcopy(value) for index, part in parts.items() for name, value in part.items()}


def restore(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Put a packed state back; an empty one leaves the optimizer as it is."""
    parts: dict[int, dict[str, Any]] = {}
    for key, value in state.items():
        index, _, name = key.partition(".")
        parts.setdefault(int(index), {})[name] = deepcopy(value)
    if parts:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": parts})


@torch.no_grad()
def follow(mean: Prompt, prompt: Prompt, weight: float) -> None:
    """Move a prompt's exponential moving average with decay `weight` towards the prompt, after an update.

    Polyak and Juditsky 1992 average uniformly; a prompt moves too far for that.
    """
    for name, tensor in mean.tensors.items():
        tensor.lerp_(prompt.tensors[name], 1 - weight)
