"""The precision of a frozen model: linear layers of 8 or 4 bits, and bfloat16 products among float32 states on a CPU.

Packed weights are unpacked only while they are used. int8 has one scale per output; nf4 is QLoRA's 4-bit NormalFloat,
with one scale per 64 numbers, itself quantised to 8 bits (Dettmers et al. 2023, arXiv 2305.14314). Both are
bitsandbytes' formats, the same on every device. Activations are not quantised, so that gradients are exact
for the weights used.

Letters: O outputs, I inputs of a layer.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from fpt.config.run_config import check_quantize

GROUP, GROUPS = 64, 256  # nf4: numbers that share a scale, and scales that share a second-level scale
TABLES = 4 * (16 + 256 + 1)  # bytes of the 4-bit and 8-bit code tables, and of the scales' mean

Unpack = Callable[[], Tensor]  # makes the weight [O, I] that a layer's bits stand for


class Linear(nn.Module):
    """A frozen linear layer [O, I] with a packed weight."""

    # None, or T5's feed-forward network would cast its states to this weight's dtype.
    weight = None

    def __init__(self, like: nn.Linear, quantize: str, dtype: torch.dtype) -> None:
        """Pack a copy of a layer, on the same device, to compute in `dtype`; its bias stays as it is."""
        super().__init__()
        self.unpack, self.bias = FORMATS[quantize](like.weight.detach(), dtype), like.bias
        self.in_features, self.out_features = like.in_features, like.out_features

    def forward(self, states: Tensor) -> Tensor:
        """States [..., O] from states [..., I]."""
        product: Tensor = _Product.apply(states, self.unpack)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias


class _Product(torch.autograd.Function):
    """States times a packed weight, unpacked anew in the backward pass, for which torch would keep it unpacked."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, unpack: Unpack) -> Tensor:
        ctx.unpack = unpack
        return functional.linear(states, unpack())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.matmul(ctx.unpack()), None


def _int8(weight: Tensor, dtype: torch.dtype) -> Unpack:
    """Pack a weight row by row, from float16 on every device, as bitsandbytes takes nothing else on a GPU."""
    library = _library("int8")
    codes, largest, _ = library.int8_vectorwise_quant(weight.half())  # -127 to 127 [O, I], and each output's scale [O]
    return lambda: library.int8_vectorwise_dequant(codes, largest).to(dtype)


def _nf4(weight: Tensor, dtype: torch.dtype) -> Unpack:
    """Pack a weight in groups of GROUP numbers, row after row."""
    shape, weight = weight.shape, weight.contiguous()
    if shape[1] % 2:  # bitsandbytes has no CPU kernel for odd widths, and would compile one for each shape
        weight = functional.pad(weight.flatten(), (0, shape.numel() % 2))
    library = _library("nf4")
    codes, state = library.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)  # two numbers a byte
    state.dtype = dtype
    return lambda: library.dequantize_4bit(codes, state).flatten()[: shape.numel()].view(shape)


FORMATS = {"int8": _int8, "nf4": _nf4}  # by engine.quantize


def layers_of(family: Any, model: Any) -> list[nn.Linear]:
    """The layers of a model to quantise: all linear layers in its blocks, but neither embedding nor head."""
    blocks = (block for stack in family.row.stacks for block in family.blocks_of(model, stack))
    return [module for block in blocks for module in block.modules() if isinstance(module, nn.Linear)]


def packed_bytes(layer: nn.Linear, quantize: str) -> int:
    """The bytes that a layer's quantised weight takes."""
    numbers = layer.weight.numel()
    if quantize == "int8":
        return numbers + 4 * layer.out_features
    groups = -(-numbers // GROUP)
    return -(-numbers // 2) + groups + 4 * -(-groups // GROUPS) + TABLES


def bytes_at_once(layer: nn.Linear, quantize: str, width: int) -> int:
    """The bytes that unpacking a layer takes, at `width` bytes a number; int8 takes two steps through float32."""
    return layer.weight.numel() * (max(8, 4 + width) if quantize == "int8" else width)


@cache
def _library(quantize: str) -> Any:
    check_quantize(quantize)
    from bitsandbytes import functional as library  # takes seconds to import, so only where it is used

    return library


PRODUCTS = (nn.Linear, Conv1D, Linear)


def compute_states_in_float32(model: nn.Module) -> None:
    """Change a model in bfloat16: embeddings and products give float32, and norms are computed in it.

    That is fastest and most exact on a CPU. Only matrix products have units of their own for bfloat16 there. Attention
    is several times as slow backward in it as in float32, and a sum over all blocks in bfloat16 costs a prompt's
    gradient the most of its precision.
    """
    in_bfloat16 = set[nn.Parameter]()
    for module in model.modules():
        if isinstance(module, PRODUCTS):
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(torch.bfloat16), *inputs[1:]))
        if isinstance(module, (*PRODUCTS, nn.Embedding)):
            module.register_forward_hook(lambda _, __, states: states.float())
            in_bfloat16.update(module.parameters())
    for parameter in set(model.parameters()) - in_bfloat16:  # the few numbers of norms
        parameter.data = parameter.data.float()
