"""Ways to compute the same update on a card: attention's kernels, the library's norms, blocks that torch compiles."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from bench.clock import now
from bench.place import AT_ONCE, TURNS, Found, Place, random_model, updates
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
    """Updates as they are; with the library's norms; on a card with compiled blocks, and how long until the first."""
    dtype = torch.bfloat16 if place.is_card else torch.float32
    size = 32 if place.is_card else 4
    changes: dict[str, Callable[[PromptedModel], None]] = {"none": lambda _: None, "library's norms": library_norms}
    if place.is_card:
        changes["compiled blocks"] = compile_blocks
    for name, shape in place.models.items():
        for what, change in changes.items():
            model = random_model(place, name, shape, dtype)
            change(model)
            for task in ("boolq", "mnli") if place.is_card else ("mnli",):
                data, start = examples(LENGTHS[task], size), now()
                updates(
                    place, model, examples(LENGTHS[task], size, seed=1), size
                )  # other lengths than those that count
                before = now() - start
                place.peak()
                found: Found = {"seconds_per_update": updates(place, model, data, size), "seconds_before": before}
                found["peak_bytes"] = place.peak()
                if place.is_card:
                    found |= kernels(partial(updates, place, model, data, size), 1 + TURNS * AT_ONCE)
                    found["idle"] = 1 - found["busy_seconds"] / found["seconds_per_update"]
                yield {"model": name, "task": task, "changed": what, **found}
            del model


def kernels(run: Callable[[], object], times: int) -> Found:
    """How many kernels a card runs at each of so many times that something is done in `run`, and for how long."""
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        run()
    rows = found.key_averages()
    return {
        "kernels": round(sum(row.count for row in rows if row.self_device_time_total) / times),
        "busy_seconds": sum(row.self_device_time_total for row in rows) / 1e6 / times,
    }


def compile_blocks(model: PromptedModel) -> None:
    """Have torch compile each block, for batches of any length."""
    torch.compiler.reset()
    for stack in model.family.row.stacks:
        for block in model.family.blocks_of(model.body, stack):
            block.compile(dynamic=True)


def library_norms(model: PromptedModel) -> None:
    """Give a T5's norms back to the library."""
    for module in model.body.modules():
        if type(module).__name__ == "Norm":
            module.__class__ = type(module).__base__
