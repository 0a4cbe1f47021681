"""The prompt's optimizer, its learning rate as a function of the update, and its state as plain tensors and numbers."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.optimization import Adafactor

from fpt.config.schema import OptimConfig

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
        return torch.optim.AdamW(
            groups, lr=config.lr, betas=(0.9 if config.momentum is None else config.momentum, 0.999)
        )
    return Adafactor(
        groups,
        lr=config.lr,
        beta1=config.momentum or None,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )


def rate(config: OptimConfig, update: int, updates: int) -> float:
    """The learning rate of the next update when `update` of a run's `updates` are done."""
    assert config.lr is not None
    rising = round(config.warmup * updates)
    if update < rising:
        return config.lr * (update + 1) / rising
    return config.lr * ((updates - update) / (updates - rising) if config.schedule == "linear" else 1)


def pack(optimizer: torch.optim.Optimizer) -> State:
    """A flat copy of the optimizer's state, empty before a step; several parameters are numbered (`2.exp_avg`)."""
    parts: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    is_one = sum(len(group["params"]) for group in optimizer.param_groups) == 1
    return {
        name if is_one else f"{index}.{name}": deepcopy(value)
        for index, part in parts.items()
        for name, value in part.items()
    }


def restore(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Put a packed state back; an empty one leaves the optimizer as it is."""
    parts: dict[int, dict[str, Any]] = {}
    for key, value in state.items():
        index, _, name = key.rpartition(".")
        parts.setdefault(int(index or 0), {})[name] = deepcopy(value)
    if parts:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": parts})
