"""How the embedded backbone starts, grows, and learns to do without some of its parts.

Legend: D model, H heads, K a head's width, F neurons, L blocks, V vocabulary.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import (
    T5Attention,
    T5DenseGatedActDense,
    T5LayerNorm,
    T5Stack,
)

from stages.selection import evenly

# Chosen by short runs: the residual stream must neither drown the blocks nor be drowned by them.
_EMBEDDING_SCALE = 1.0
_MATCH_SCALE = 0.25
_COPY_SCALE = 1.0
_FEED_FORWARD_SCALE = 0.1
_LOCAL_HEADS = 2
_LOCAL_DISTANCE = 5


def new(config: T5Config, *, seed: int) -> T5ForConditionalGeneration:
    """An untrained model with a mimetic start (Trockman & Kolter, ICML 2023).

    Each attention begins by looking for tokens equal to its own and adding what it finds; in the encoder two heads
    look at the nearest words on the left and on the right instead. The output head begins as the embedding. With
    T5's own start the same training learns formats and letter statistics long before it learns to read.
    """
    model = T5ForConditionalGeneration(config)
    _untie(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        embedding = torch.randn(config.vocab_size, config.d_model, generator=generator)
        model.shared.weight.copy_(_EMBEDDING_SCALE * embedding)
        model.lm_head.weight.copy_(embedding / math.sqrt(config.d_model))
        for stack in (model.encoder, model.decoder):
            for module in stack.modules():
                if isinstance(module, T5Attention):
                    _start_attention(module, generator, local=stack is model.encoder)
                elif isinstance(module, T5DenseGatedActDense):
                    _start_feed_forward(module, generator)
    return model


def _untie(model: T5ForConditionalGeneration) -> None:
    """A fresh T5ForConditionalGeneration shares head and embedding, whatever its config says."""
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())


def _orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    square = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    orthogonal: Tensor = torch.linalg.qr(square)[0]
    return orthogonal if rows >= columns else orthogonal.T


def _start_attention(module: T5Attention, generator: torch.Generator, *, local: bool) -> None:
    inner, model_width = module.q.weight.shape  # [H * K, D]
    match = _orthogonal(inner, model_width, generator)
    for projection in (module.q, module.k):
        noise = 0.05 * torch.randn(inner, model_width, generator=generator)
        projection.weight.copy_(math.sqrt(_MATCH_SCALE) * (match + noise))
        if local:
            projection.weight[: _LOCAL_HEADS * module.key_value_proj_dim] *= 0.4
    copy = _orthogonal(inner, model_width, generator)
    module.v.weight.copy_(copy)
    module.o.weight.copy_(_COPY_SCALE * copy.T)
    if module.has_relative_attention_bias:
        bias = module.relative_attention_bias.weight  # [buckets, H]
        bias.copy_(0.1 * torch.randn(bias.shape, generator=generator))
        if local:
            _look_nearby(bias, right=len(bias) // 2)


def _look_nearby(bias: Tensor, *, right: int) -> None:
    """Head 0 looks left, head 1 right, the others anywhere but at themselves; `right` is the first bucket rightward."""
    bias[:, :_LOCAL_HEADS] -= 2
    bias[1 : 1 + _LOCAL_DISTANCE, 0] += 4
    bias[right + 1 : right + 1 + _LOCAL_DISTANCE, 1] += 4
    bias[0, _LOCAL_HEADS:] -= 3


def _start_feed_forward(module: T5DenseGatedActDense, generator: torch.Generator) -> None:
    for projection, gain in ((module.wi_0, 1.0), (module.wi_1, 1.0), (module.wo, _FEED_FORWARD_SCALE)):
        rows, columns = projection.weight.shape
        weight = torch.randn(rows, columns, generator=generator)
        projection.weight.copy_(gain * weight / math.sqrt(columns))


def grown(small: T5ForConditionalGeneration, config: T5Config, *, seed: int) -> T5ForConditionalGeneration:
    """A deeper model that computes what the small one does; `small` is left as it is.

    The small model's blocks stand evenly in the deeper one. The blocks between them are new and add nothing yet.
    """
    model = new(config, seed=seed)
    with torch.no_grad():
        model.shared.load_state_dict(small.shared.state_dict())
        model.lm_head.load_state_dict(small.lm_head.state_dict())
        for stack, source in ((model.encoder, small.encoder), (model.decoder, small.decoder)):
            _spread(stack, source)
    return model


def _spread(stack: T5Stack, source: T5Stack) -> None:
    stack.final_layer_norm.load_state_dict(source.final_layer_norm.state_dict())
    old = dict(zip(evenly(len(source.block), len(stack.block)), source.block, strict=True))
    for index, block in enumerate(stack.block):
        if index in old:
            block.load_state_dict(old[index].state_dict())
            continue
        for module in block.modules():
            if isinstance(module, T5Attention):
                module.o.weight.zero_()
            elif isinstance(module, T5DenseGatedActDense):
                module.wo.weight.zero_()


def lean(model: T5ForConditionalGeneration) -> T5ForConditionalGeneration:
    """The same model with torch's own norm and GELU, a third faster to train; parameters and their names are kept."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, T5LayerNorm):
                norm = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon)
                norm.weight = child.weight
                setattr(parent, name, norm)
        if isinstance(parent, T5DenseGatedActDense):
            parent.act = nn.GELU(approximate="tanh")
    return model


@contextmanager
def without_some(
    model: T5ForConditionalGeneration, stream: random.Random, *, blocks: float, neurons: float
) -> Iterator[None]:
    """For a while the model lacks some blocks, some neurons, both or nothing, with these chances; drawn anew each time.

    In the place of blocks that are left out the states go through unchanged.
    """
    stacks = (model.encoder, model.decoder)
    whole_stacks = [stack.block for stack in stacks]
    lacks_blocks = stream.random() < blocks
    share = stream.choice((0.75, 0.5, 0.25)) if stream.random() < neurons else 1.0
    chance = None if stream.random() < 0.5 else torch.Generator().manual_seed(stream.getrandbits(32))
    handles = [
        module.wo.register_forward_pre_hook(_keep_neurons(share, chance))
        for module in model.modules()
        if isinstance(module, T5DenseGatedActDense) and share < 1
    ]
    for stack, whole in zip(stacks, whole_stacks, strict=True):
        kept = _some_blocks(len(whole), stream) if lacks_blocks else range(len(whole))
        stack.block = nn.ModuleList([whole[index] for index in kept])
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for stack, whole in zip(stacks, whole_stacks, strict=True):
            stack.block = whole


def _some_blocks(num: int, stream: random.Random) -> Sequence[int]:
    """An evenly spaced part of the blocks, or any part with the first and the last, each half of the time."""
    kept = stream.randint(2, num)
    if stream.random() < 0.5:
        return evenly(kept, num)
    return [0, *sorted(stream.sample(range(1, num - 1), kept - 2)), num - 1]


def _keep_neurons(
    share: float, chance: torch.Generator | None
) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """A hook before `wo` that lets a share of the neurons through: by chance, or else the most active of this batch."""

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (activation,) = inputs  # [B, S, F]
        num = activation.shape[-1]
        order = torch.rand(num, generator=chance) if chance else activation.detach().abs().mean(dim=(0, 1))
        mask = activation.new_zeros(num)
        mask[order.topk(int(num * share)).indices] = 1
        return (activation * mask,)

    return keep
