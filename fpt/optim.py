"""The prompt's optimizer: Adafactor as the paper sets it, and its state as plain tensors and numbers."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.optimization import Adafactor

from fpt.config import OptimConfig

State = dict[str, Tensor | float | int]


def make(prompt: nn.Parameter, config: OptimConfig) -> torch.optim.Optimizer:
    """Adafactor (Shazeer and Stern 2018) at a constant learning rate, without parameter scaling."""
    return Adafactor(
        [prompt],
        lr=config.lr,
        weight_decay=config.weight_decay,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )


def pack(optimizer: torch.optim.Optimizer) -> State:
    """A copy of the one parameter's state; empty before the first step."""
    state: dict[str, Any] = optimizer.state_dict()["state"].get(0, {})
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}


def restore(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Put a packed state back; an empty one leaves the optimizer fresh."""
    if state:
        copied = {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
        optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: copied}})
