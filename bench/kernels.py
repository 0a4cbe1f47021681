"""Ways to compute the same update on a card: attention's kernels, norms in one kernel, blocks that torch compiles."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import rms_norm, scaled_dot_product_attention
from transformers.models.t5.modeling_t5 import T5LayerNorm

from bench.place import Found, Place, random_model, updates
from bench.synthetic import LENGTHS, examples
from fpt.prompts.prompted import PromptedModel

BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
)


def attention(place: Place) -> Found:
    """Which of torch's kernels takes T5's bias, and how long each takes forward and back; flex's on a card alone."""
    batch, heads, length, width = (16, 16, 512, 64) if place.is_card else (2, 4, 64, 16)
    dtype = torch.bfloat16 if place.is_card else torch.float32
    query, key, value = (
        torch.randn(batch, heads, length, width, device=place.device, dtype=dtype, requires_grad=True) for _ in "qkv"
    )
    distances = torch.randn(heads, length, length, device=place.device, dtype=dtype)
    lengths = torch.full((batch,), length, device=place.device)
    real = torch.arange(length, device=place.device) < lengths[:, None]
    bias = torch.where(real[:, None, None], distances, torch.finfo(dtype).min).contiguous()

    def both(attend: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: torch.autograd.backward(attend().sum())

    def chosen() -> Tensor:
        return scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)

    found: Found = {}
    for backend in BACKENDS:
        try:
            with sdpa_kernel(backend):
                found[backend.name.lower()] = place.seconds(both(chosen), 5)
        except RuntimeError:
            found[backend.name.lower()] = None  # it does not take a bias
    found["chosen_by_torch"] = place.seconds(both(chosen), 5)
    if place.is_card:  # flex has no way back on a CPU
        mask = create_block_mask(
            lambda row, _head, _query, at: at < lengths[row], batch, None, length, length, device=place.device
        )

        def biased(score: Tensor, _row: Tensor, head: Tensor, at: Tensor, seen: Tensor) -> Tensor:
            return score + distances[head, at, seen]

        compiled = torch.compile(flex_attention)
        found["flex"] = place.seconds(
            both(lambda: compiled(query, key, value, score_mod=biased, block_mask=mask, scale=1.0)), 5
        )
    return found


def variants(place: Place) -> Iterator[Found]:
    """Updates in bfloat16 as they are; with T5's norms in one kernel; with compiled blocks; with both."""
    name, shape = next(iter(place.models.items()))
    dtype = torch.bfloat16 if place.is_card else torch.float32
    size = 32 if place.is_card else 4
    compiles = (False, True) if place.is_card else (False,)  # on a CPU it takes a compiler, and minutes
    for task in ("boolq", "mnli"):
        data = examples(LENGTHS[task], size)
        for is_compiled in compiles:
            for is_fused in (False, True):
                model = random_model(place, name, shape, dtype)
                place.peak()
                with fused_norms(is_fused):
                    if is_compiled:
                        compile_blocks(model)
                    seconds = updates(place, model, data, size)
                what = {"model": name, "task": task, "compiled_blocks": is_compiled, "fused_norms": is_fused}
                yield {**what, "seconds_per_update": seconds, "peak_bytes": place.peak()}
                del model
                torch.compiler.reset()


def compile_blocks(model: PromptedModel) -> None:
    """Have torch compile each block, for batches of any length."""
    for stack in model.family.row.stacks:
        for block in model.family.blocks_of(model.body, stack):
            block.compile(dynamic=True)


@contextmanager
def fused_norms(is_on: bool) -> Iterator[None]:
    """Within, T5's norms are torch's own."""
    before = T5LayerNorm.forward

    def fused(self: T5LayerNorm, states: Tensor) -> Tensor:
        return rms_norm(states, self.weight.shape, self.weight, self.variance_epsilon)

    if is_on:
        T5LayerNorm.forward = fused
    try:
        yield
    finally:
        T5LayerNorm.forward = before
