"""Has a bfloat16 model multiply in bfloat16 and compute all else in float32, as is fastest and most exact on a CPU.

Only matrix products have units of their own for bfloat16 there. Attention's kernel in torch is several times as slow
backward in it as in float32, and a sum over all blocks in bfloat16 costs a prompt's gradient the most of its precision.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fpt.backbones import quantised

PRODUCTS = (nn.Linear, Conv1D, quantised.Linear)


def compute_states_in_float32(model: nn.Module) -> None:
    """Change a model in bfloat16: embeddings and products give float32, and norms are computed in it."""
    in_bfloat16 = set[nn.Parameter]()
    for module in model.modules():
        if isinstance(module, PRODUCTS):
            module.register_forward_pre_hook(_rounded)
        if isinstance(module, (*PRODUCTS, nn.Embedding)):
            module.register_forward_hook(_in_float32)
            in_bfloat16.update(module.parameters())
    for parameter in set(model.parameters()) - in_bfloat16:  # the few numbers of norms
        parameter.data = parameter.data.float()


def _rounded(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs[0].to(torch.bfloat16), *inputs[1:]


def _in_float32(_: nn.Module, __: Any, states: Tensor) -> Tensor:
    return states.float()
