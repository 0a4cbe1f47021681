"""Records the arguments that transformers calls a stack's blocks with, by running its forward with probes for blocks.

Masks, rotary angles, positions and types of layers are so the library's own, made once for a pass, and any part of a
stack can run with them.

Letters: B batch, L positions, D model.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

Call = dict[str, Any]  # a block's arguments by name, without its states


class _Probe(nn.Module):
    """Records the arguments that a block is called with, and has the block's attributes."""

    def __init__(self, block: nn.Module, seen: list[tuple[Tensor, Call]]) -> None:
        super().__init__()
        self.__dict__["block"], self.__dict__["seen"] = block, seen  # not as submodules, which engines would follow

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, states: Tensor, *inputs: Any, **more: Any) -> Tensor:
        names = _names(type(self.__dict__["block"]).forward)
        self.__dict__["seen"].append((states, dict(zip(names, inputs, strict=False)) | more))
        return states


@cache
def _names(forward: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a block's arguments after its states."""
    return tuple(inspect.signature(forward).parameters)[2:]


@torch.no_grad()
def record(module: nn.Module, blocks: str, norm: str | None, **inputs: Any) -> tuple[Tensor, list[Call]]:
    """The states [B, L, D] that a stack's first block takes in, and each block's other arguments.

    Args:
        module: the stack, which stays as it is.
        blocks: the path of its blocks in it.
        norm: the path of the norm after them, which is left out; None: it has none.
        inputs: the stack's arguments.
    """
    seen: list[tuple[Tensor, Call]] = []
    own: Any = module.get_submodule(blocks)
    twin = _with(module, blocks, nn.ModuleList(_Probe(block, seen) for block in own))
    if norm is not None:
        twin = _with(twin, norm, nn.Identity())
    twin(**inputs)
    return seen[0][0], [call for _, call in seen]


def _with(module: nn.Module, path: str, part: nn.Module) -> nn.Module:
    """A copy of a module that shares all submodules but one."""
    twin = object.__new__(type(module))
    twin.__dict__.update(module.__dict__)
    name, _, rest = path.partition(".")
    twin.__dict__["_modules"] = module._modules | {
        name: _with(module.get_submodule(name), rest, part) if rest else part
    }
    return twin


def run(blocks: Sequence[nn.Module], calls: Sequence[Call], states: Tensor, **instead: Any) -> Tensor:
    """Hidden states [B, L, D] after some blocks, called as recorded except for the arguments given `instead`."""
    for block, call in zip(blocks, calls, strict=True):
        output = block(states, **(call | instead))
        states = output[0] if isinstance(output, tuple) else output
    return states
