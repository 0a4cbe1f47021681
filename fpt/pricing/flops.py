"""Prices a shape in parameters, bytes and FLOPs, without weights.

FLOPs come from torch's counter on the meta device. All blocks of a stack cost the same, so one block of each stack is
counted and multiplied. A block's FLOPs are a polynomial in source and target length, so a few counts give them for all
lengths. An update is priced at twice its forward pass: the backward pass through a frozen model needs only the
gradients of activations, which are as many matrix products again. In attention, the products of queries with keys and
of weights with values take twice as many in the backward pass. That excess is not counted (3 to 4 % of an update of
T5-Large at 512 tokens); the paper leaves these products out altogether. Blocks below a late prompt are priced once,
because they have no backward pass; so is the source before a prompt that stands behind it.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from itertools import product
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig

from fpt.backbones.backbone import family_of
from fpt.backbones.family_table import FamilyRow
from fpt.backbones.precision import bytes_at_once, layers_of, packed_bytes
from fpt.backbones.shapes import Shape, Stack
from fpt.config.schema import PromptConfig
from fpt.prompts.kinds import kind_of

SOFT = PromptConfig()
_prices: dict[str, "Price"] = {}


def price_of(config: PreTrainedConfig) -> "Price":
    """The price of a model's partial PLMs, cached for each model configuration."""
    return _prices.setdefault(config.to_json_string(use_diff=False), Price(config))


class Price:
    """Prices of the partial PLMs of one backbone."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config, self.family = config, family_of(config)
        self._skeleton = partial(self.family.skeleton, config)
        self.d_model, self.reads = self.family.row.first.width_in(config), self.family.row.reads
        self._source = cache(self._source_block)
        self._decoder = cache(self._decoder_block)
        self.head = cache(self._head_position)
        self.sizes = cache(lambda shape: [parameter.numel() for parameter in self._skeleton(shape).parameters()])
        self.packed_weights = cache(self._packed_weights)

    def forward(self, shape: Shape, *, source: int, target: int, below: int = 0, prompt: PromptConfig = SOFT) -> int:
        """FLOPs of one example's forward pass.

        `source` includes the prompt's positions; the `below` blocks below the prompt have only the others.
        """
        making = sum(kind_of(prompt).flops(source - prompt.length, self.d_model))
        sizes: dict[str, Any] = {"source": source, "target": target, "below": below, "prompt": prompt}
        head = self.reads.answered(target) * self.head()
        return self.fixed(shape, **sizes) + self._changed(shape, **sizes) + making + head

    def update(
        self,
        shape: Shape,
        *,
        source: int,
        target: int,
        below: int = 0,
        prompt: PromptConfig = SOFT,
        is_kept: bool = False,
    ) -> int:
        """FLOPs of a forward pass, and of a backward pass down to the prompt; the arguments are those of `forward`.

        With `is_kept`, the states below the prompt are cached and cost nothing.
        """
        sizes: dict[str, Any] = {"source": source, "target": target, "below": below, "prompt": prompt}
        both, lower = 2 * self.forward(shape, **sizes), self.fixed(shape, **sizes)
        if kind_of(prompt).is_behind and len(shape) > 1:  # a decoder's keys and values of the encoder need no gradient
            _, _, cross, _ = self._decoder(shape.decoder.neurons)
            both -= shape.decoder.blocks * cross * (source - prompt.length)
        # A prompt generator is trained: its second layer needs gradients of both weights and input, its first layer
        # only of its weights.
        _, second = kind_of(prompt).flops(source - prompt.length, self.d_model)
        return both - (2 if is_kept else 1) * lower + second

    def fixed(self, shape: Shape, *, source: int, target: int, below: int, prompt: PromptConfig) -> int:
        """FLOPs of the part of a forward pass that the prompt does not change; the arguments are those of `forward`."""
        bare = source - prompt.length
        if kind_of(prompt).is_behind:
            return self.below(shape, source=bare, target=1, blocks=shape.source.blocks)
        return self.below(shape, source=bare, target=target, blocks=below)

    def _changed(self, shape: Shape, *, source: int, target: int, below: int, prompt: PromptConfig) -> int:
        """FLOPs of the stacks in the other part of a forward pass."""
        bare = source - prompt.length
        if not kind_of(prompt).is_behind:
            upper = self.below(shape, source=source, target=target, blocks=shape.source.blocks - below)
            return upper + self._said(shape, source, target)
        if len(shape) > 1:
            return self._said(shape, bare, prompt.length + target)
        linear, square = self._source(shape.source.neurons)
        whole = self.reads.positions(source, target)
        return shape.source.blocks * (linear + square * whole) * (whole - bare)

    def kept_width(self, shape: Shape, prompt: PromptConfig) -> int:
        """How many numbers are kept for a token of what the prompt does not change: a state, or keys and values."""
        if not kind_of(prompt).is_behind or len(shape) > 1:
            return self.d_model
        return 2 * shape.source.blocks * prod(self.family.row.key_heads_in(self.config))

    def below(self, shape: Shape, *, source: int, target: int, blocks: int) -> int:
        """FLOPs of one example's forward pass through `blocks` blocks of the stack that the prompt enters."""
        linear, square = self._source(shape.source.neurons)
        positions = self.reads.positions(source, target)
        return blocks * (linear * positions + square * positions**2)

    def _said(self, shape: Shape, source: int, target: int) -> int:
        """FLOPs of one example in a decoder with cross-attention; 0 for models of one stack."""
        if len(shape) == 1:
            return 0
        own, own_square, cross, both = self._decoder(shape.decoder.neurons)
        block = own * target + own_square * target**2 + cross * source + both * source * target
        return shape.decoder.blocks * block

    def parameters(self, shape: Shape) -> int:
        """How many frozen parameters a partial PLM has, with embedding and head; a tied head is counted once."""
        return sum(self.sizes(shape))

    def _packed_weights(self, shape: Shape, dtype: str, quantize: str) -> tuple[int, int]:
        """Bytes of all weights, and the most bytes that a single one takes while it is dequantised."""
        width, model = getattr(torch, dtype).itemsize, self._skeleton(shape)
        layers = layers_of(self.family, model) if quantize != "none" else []
        whole = self.parameters(shape) - sum(layer.weight.numel() for layer in layers)
        packed = sum(packed_bytes(layer, quantize) for layer in layers)
        return whole * width + packed, max((bytes_at_once(layer, quantize, width) for layer in layers), default=0)

    def _source_block(self, neurons: int) -> tuple[int, ...]:
        """Coefficients of L and L² in the FLOPs of L positions in one block of the stack that the prompt enters."""
        row, width = self.family.row, self.d_model
        stack = self._skeleton(_blocks(row, neurons)).get_submodule(row.first.module)
        counts = {length: _count(stack, inputs_embeds=_states(length, width)) for length in (1, 2)}
        return _solved({(length, length**2): count for length, count in counts.items()})

    def _decoder_block(self, neurons: int) -> tuple[int, ...]:
        """Coefficients of T, T², S and S·T in the FLOPs of a decoder block."""
        row, counts = self.family.row, dict[tuple[int, ...], int]()
        widths = (self.d_model, row.last.width_in(self.config))
        decoder = self._skeleton(_blocks(row, neurons)).get_submodule(row.last.module)
        for source, target in product((1, 2), repeat=2):
            read, inputs = map(_states, (source, target), widths)
            count = _count(decoder, inputs_embeds=inputs, encoder_hidden_states=read, use_cache=False)
            counts[target, target**2, source, source * target] = count
        return _solved(counts)

    def _head_position(self) -> int:
        model = self._skeleton(_blocks(self.family.row, 1))
        width = self.family.row.last.width_in(self.config)
        return _count(partial(self.family.head_logits, model), _states(1, width))


def _blocks(row: FamilyRow, neurons: int) -> Shape:
    """The shape with one block in each stack."""
    return Shape(**dict.fromkeys(row.stacks, Stack(1, neurons)))


def _states(length: int, width: int) -> Tensor:
    return torch.empty(1, length, width, device="meta")


def _solved(values: dict[tuple[int, ...], int]) -> tuple[int, ...]:
    """The whole coefficients with which the sums of these terms have these values."""
    found: list[int] = np.linalg.solve([*values], [*values.values()]).round().astype(int).tolist()
    return tuple(found)


class OnMeta(TorchFunctionMode):
    """Answers questions about values, which tensors on the meta device do not have; runs others in place of kernels."""

    def __init__(self, *, is_padded: bool, instead: Mapping[Any, Callable[..., Any]] | None = None) -> None:
        super().__init__()
        self._is_padded, self._instead = is_padded, instead or {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__bool__:  # the only such question is of a padding mask: is nothing padded?
            return not self._is_padded
        return self._instead.get(func, func)(*args, **(kwargs or {}))


def _count(part: Any, *inputs: Tensor, **named: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad(), OnMeta(is_padded=False):
        part(*inputs, **named)
    return counter.get_total_flops()
