"""Records the arguments that transformers passes to a stack's blocks, by running its forward with probes for blocks.

Masks, rotary angles, positions and layer types thus come from the library itself, once per pass, and any part of a
stack can be run with them.

Letters: B batch, L positions, D model.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

Call = dict[str, Any]  # a block's arguments by name, without the hidden states


class _Probe(nn.Module):
    """Stands in for a block and records the arguments that it is called with; it has the block's attributes."""

    def __init__(self, block: nn.Module, seen: list[tuple[Tensor, Call]]) -> None:
        super().__init__()
        self.__dict__["block"], self.__dict__["seen"] = block, seen  # not as submodules, which engines would traverse

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, states: Tensor, *inputs: Any, **more: Any) -> Tensor:
        names = _names(type(self.__dict__["block"]).forward)
        self.__dict__["seen"].append((states, dict(zip(names, inputs, strict=False)) | more))
        return states


@cache
def _names(forward: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a block's arguments after the hidden states."""
    return tuple(inspect.signature(forward).parameters)[2:]


@torch.no_grad()
def record(module: nn.Module, blocks: str, norm: str | None, **inputs: Any) -> tuple[Tensor, list[Call]]:
    """The input [B, L, D] of a stack's first block, and the other arguments of each block, for the stack's `inputs`.

    `blocks` and `norm` are the paths of its blocks and of its final norm, which is skipped if there is one. The stack
    is not changed.
    """
    seen: list[tuple[Tensor, Call]] = []
    own: Any = module.get_submodule(blocks)
    twin = _with(module, blocks, nn.ModuleList(_Probe(block, seen) for block in own))
    if norm is not None:
        twin = _with(twin, norm, nn.Identity())
    twin(**inputs)
    return seen[0][0], [call for _, call in seen]


def _with(module: nn.Module, path: str, part: nn.Module) -> nn.Module:
    """A copy of a module with another submodule at `path`; all others are shared."""
    twin = object.__new__(type(module))
    twin.__dict__.update(module.__dict__)
    name, _, rest = path.partition(".")
    twin.__dict__["_modules"] = module._modules | {
        name: _with(module.get_submodule(name), rest, part) if rest else part
    }
    return twin


def run(blocks: Sequence[nn.Module], calls: Sequence[Call], states: Tensor, **instead: Any) -> Tensor:
    """Run blocks with their recorded arguments, except those given `instead`; returns hidden states [B, L, D]."""
    for block, call in zip(blocks, calls, strict=True):
        output = block(states, **(call | instead))
        states = output[0] if isinstance(output, tuple) else output
    return states
