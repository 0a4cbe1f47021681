"""The late prompt: P vectors made from each example's states inside the encoder (Liu et al. 2022).

Letters: B batch, S source, P prompt, D model, M bottleneck, W widest window.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpt.config.schema import PromptConfig
from fpt.prompts import files
from fpt.prompts.soft import put_before, uniform
from fpt.random_streams import stream
from fpt.training.checkpoint import Tensors


class LatePrompt(nn.Module):
    """What makes the vectors, always in float32, and where they enter."""

    def __init__(self, config: PromptConfig, tensors: Tensors, *, position: int) -> None:
        """Start from tensors as `initial` makes them; the vectors enter after the first `position` encoder blocks."""
        super().__init__()
        self.length, self.position = config.length, position
        self._generator, self._pool = config.generator, config.pool
        for name in sorted(tensors):  # a file has an order of its own, and the optimizer numbers them
            self.register_parameter(name, nn.Parameter(tensors[name].detach().clone().float()))

    @property
    def tensors(self) -> dict[str, nn.Parameter]:
        """What is learned, by name."""
        return dict(self.named_parameters())

    def prepend(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """KeptStates [B, S, D] and their mask [B, S] with each example's vectors in front: [B, P+S, D], [B, P+S]."""
        return put_before(self(states, mask), states, mask)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """The vectors [B, P, D] for states [B, S, D]; padding, which comes last, has no part in them."""
        tensors = self.tensors
        if self._generator == "none":
            return tensors["vectors"].expand(len(states), -1, -1)
        states, lengths = states.float(), mask.sum(1)
        down, up = (tensors["down"], tensors["down_bias"]), (tensors["up"], tensors["up_bias"])
        if self._generator == "npg":
            hidden = functional.linear(pooled(states, lengths, self._pool), *down)
        elif self._generator == "appg":  # the paper averages after this layer; before it is the same, and cheaper
            hidden = functional.linear(average_pooled(states, lengths, self.length), *down)
        else:
            hidden = max_pooled(functional.linear(states, *down), lengths, self.length)
        return functional.linear(hidden.relu(), *up).view(len(states), self.length, -1)


def initial(config: PromptConfig, *, d_model: int, seed: int) -> Tensors:
    """The tensors to start from, uniform in ±1/√(inputs), float32; the same for every schedule.

    Raises:
        UserError: those in `prompt.file` do not fit.
    """
    if config.init == "file":
        files.check(config, d_model)
        return files.open_prompt(Path(str(config.file)).expanduser()).read()
    random = stream(seed, "prompt")
    inputs = {"up": config.bottleneck, "up_bias": config.bottleneck}
    return {name: uniform(size, inputs.get(name, d_model), random) for name, size in config.shapes(d_model).items()}


def about(config: PromptConfig, layer: int) -> dict[str, Any]:
    """What a file with the tensors says of their use; `layer` is the block of the whole model they enter before."""
    return {name: getattr(config, name) for name in files.USE} | {"layer": layer}


def pooled(states: Tensor, lengths: Tensor, pool: str) -> Tensor:
    """One state [B, D] for each example, of its first lengths [B] states: the first, the last or their mean."""
    if pool == "first":
        return states[:, 0]
    if pool == "last":
        return states[torch.arange(len(states), device=states.device), lengths - 1]
    return average_pooled(states, lengths, 1)[:, 0]


def average_pooled(states: Tensor, lengths: Tensor, outputs: int) -> Tensor:
    """[B, outputs, D]: what torch's AdaptiveAvgPool1d makes of each example's first lengths [B] states alone."""
    parts, counts = _parted(states, lengths, outputs)
    return (parts * counts[..., None]).sum(2) / counts.sum(2, keepdim=True)


def max_pooled(states: Tensor, lengths: Tensor, outputs: int) -> Tensor:
    """[B, outputs, D]: the same of AdaptiveMaxPool1d."""
    parts, counts = _parted(states, lengths, outputs)
    return parts.masked_fill(~counts[..., None], -torch.inf).amax(2)


def _parted(states: Tensor, lengths: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """The states in each output's window [B, outputs, W, D], and which of them count [B, outputs, W].

    Windows are as wide as need be, not as the sequence, so that this holds little more than the states themselves.
    """
    number = torch.arange(outputs, device=states.device)
    starts, ends = number * lengths[:, None] // outputs, -(-(number + 1) * lengths[:, None] // outputs)
    widest = states.shape[1] // outputs + 2
    indices = starts[..., None] + torch.arange(widest, device=states.device)
    rows = torch.arange(len(states), device=states.device)[:, None, None]
    return states[rows, indices.minimum(ends[..., None] - 1)], indices < ends[..., None]
