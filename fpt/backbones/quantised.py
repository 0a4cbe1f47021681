"""Frozen linear layers that store their weights in 8 or 4 bits, and unpack them only while they are used.

int8 has one scale per output; nf4 is QLoRA's 4-bit NormalFloat, with one scale per 64 numbers, itself quantised to 8
bits (Dettmers et al. 2023, arXiv 2305.14314). Both are bitsandbytes' formats, the same on every device. Activations are
not quantised, so that gradients are exact for the weights used.

Letters: O outputs, I inputs of a layer.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from fpt.config.clashes import check_quantize

GROUP, GROUPS = 64, 256  # nf4: numbers that share a scale, and scales that share a second-level scale
TABLES = 4 * (16 + 256 + 1)  # bytes of the 4-bit and 8-bit code tables, and of the scales' mean


class Linear(nn.Module):
    """A frozen linear layer [O, I] with a packed weight."""

    # None, or T5's feed-forward network would cast its states to this weight's dtype.
    weight = None

    def __init__(self, packed: "Int8 | NF4", like: nn.Linear) -> None:
        """Replace the layer `like`, and take over its bias."""
        super().__init__()
        self.packed, self.bias = packed, like.bias
        self.in_features, self.out_features = like.in_features, like.out_features

    def forward(self, states: Tensor) -> Tensor:
        """States [..., O] from states [..., I]."""
        product: Tensor = _Product.apply(states, self.packed)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias


class _Product(torch.autograd.Function):
    """States times a packed weight, unpacked anew in the backward pass, for which torch would keep it unpacked."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, packed: "Int8 | NF4") -> Tensor:
        ctx.packed = packed
        return functional.linear(states, packed.whole())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.matmul(ctx.packed.whole()), None


@dataclass(frozen=True, eq=False)
class Int8:
    """A weight as integers from -127 to 127 [O, I], with each output's largest absolute weight [O] as scale."""

    codes: Tensor
    largest: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, weight: Tensor, dtype: torch.dtype) -> "Int8":
        """Quantise a weight row by row, from float16 on every device, as bitsandbytes takes nothing else on a GPU."""
        codes, largest, _ = _library("int8").int8_vectorwise_quant(weight.half())
        return cls(codes, largest, dtype)

    def whole(self) -> Tensor:
        """The weight [O, I] that the bits stand for."""
        weight: Tensor = _library("int8").int8_vectorwise_dequant(self.codes, self.largest)
        return weight.to(self.dtype)


@dataclass(frozen=True, eq=False)
class NF4:
    """A weight as two 4-bit numbers per byte, with bitsandbytes' state, which holds the scales, and its shape."""

    codes: Tensor
    state: Any
    shape: torch.Size

    @classmethod
    def of(cls, weight: Tensor, dtype: torch.dtype) -> "NF4":
        """Quantise a weight in groups of GROUP numbers, row after row."""
        shape, weight = weight.shape, weight.contiguous()
        if shape[1] % 2:  # bitsandbytes has no CPU kernel for odd widths, and would compile one for each shape
            weight = functional.pad(weight.flatten(), (0, shape.numel() % 2))
        codes, state = _library("nf4").quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        state.dtype = dtype
        return cls(codes, state, shape)

    def whole(self) -> Tensor:
        """The weight [O, I] that the bits stand for."""
        weight: Tensor = _library("nf4").dequantize_4bit(self.codes, self.state)
        return weight.flatten()[: self.shape.numel()].view(self.shape)


FORMATS: dict[str, type[Int8] | type[NF4]] = {"int8": Int8, "nf4": NF4}  # by engine.quantize


def layers_of(family: Any, model: Any) -> list[nn.Linear]:
    """The layers of a model to quantise: all linear layers in its blocks, but neither embedding nor head."""
    blocks = (block for stack in family.row.stacks for block in family.blocks_of(model, stack))
    return [module for block in blocks for module in block.modules() if isinstance(module, nn.Linear)]


def packed(layer: nn.Linear, quantize: str, dtype: torch.dtype) -> Linear:
    """A quantised copy of a layer, on the same device, that computes in `dtype`."""
    return Linear(FORMATS[quantize].of(layer.weight.detach(), dtype), layer)


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
