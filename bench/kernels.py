"""Ways to compute the same update on a card: attention's kernels, the library's norms, blocks that torch compiles."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from bench.place import AT_ONCE, OPTIM, Found, Place, graphs_of, random_model, updater
from bench.synthetic import LENGTHS
from fpt.data.batches import Share, UpdateOrder
from fpt.prompts.prompted import PromptedModel
from fpt.training.graphs import Graphs
from fpt.training.loop import step
from fpt.training.optimizer import make

SIZE = 32  # examples of an update on a card
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


def started(place: Place) -> Iterator[Found]:
    """Updates on batches of many sizes, as a run has them, their kernels started one by one, and as graphs."""
    count, dtype = (24, torch.bfloat16) if place.is_card else (2, torch.float32)
    for name, shape in place.models.items():
        for task in ("boolq", "mnli", "xsum") if place.is_card else ("mnli",):
            data = place.examples(LENGTHS[task], 50 * SIZE)
            order = UpdateOrder(data, batch_size=SIZE if place.is_card else 4, seed=0)
            shares = [Share.of(data, order.indices(update)).pinned() for update in range(count)]
            learned = []
            for way in ("one by one", "graphs") if place.is_card else ("one by one",):
                model = random_model(place, name, shape, dtype)
                optimizer = make(model.prompt.parameters(), OPTIM)
                graphs = graphs_of(place, model, data, SIZE) if way == "graphs" else None
                run = partial(_each_once, model, optimizer, shares, place, graphs)
                place.peak()
                run()
                learned.append(model.prompt.learned()["prompt"])
                found: Found = {"seconds_per_update": place.seconds_once(run) / count}
                found |= {"peak_bytes": place.peak(), "graphs": None if graphs is None else len(graphs._graphs)}
                if place.is_card:
                    torch.cuda.empty_cache()
                    found["reserved_bytes"] = torch.cuda.memory_reserved()
                away = ((learned[-1] - learned[0]).norm() / learned[0].norm()).item()
                yield {"model": name, "task": task, "started": way, **found, "away": away}
                del model, optimizer, graphs, run


def _each_once(
    model: PromptedModel, optimizer: torch.optim.Optimizer, shares: list[Share], place: Place, graphs: Graphs | None
) -> None:
    for share in shares:
        step(model, optimizer, share, OPTIM, place.device, add=None if graphs is None else graphs.add)


def variants(place: Place) -> Iterator[Found]:
    """Updates as they are; with the library's norms; on a card with compiled blocks, and how long until the first."""
    dtype = torch.bfloat16 if place.is_card else torch.float32
    size = SIZE if place.is_card else 4
    changes: dict[str, Callable[[PromptedModel], None]] = {"none": lambda _: None, "library's norms": library_norms}
    if place.is_card:
        changes["compiled blocks"] = compile_blocks
    for name, shape in place.models.items():
        for what, change in changes.items():
            model = random_model(place, name, shape, dtype)
            change(model)
            for task in ("boolq", "mnli") if place.is_card else ("mnli",):
                data = place.examples(LENGTHS[task], size)
                other = place.examples(LENGTHS[task], size, seed=1)  # of other lengths than those that count
                before = place.seconds_once(updater(place, model, other, size))
                place.peak()
                run = updater(place, model, data, size)
                found: Found = {"seconds_per_update": place.seconds(run, AT_ONCE), "seconds_before": before}
                found["peak_bytes"] = place.peak()
                if place.is_card:
                    found |= kernels(run)
                    found["idle"] = 1 - found["busy_seconds"] / found["seconds_per_update"]
                yield {"model": name, "task": task, "changed": what, **found}
            del model, run


def kernels(run: Callable[[], object]) -> Found:
    """How many kernels a card runs in `run`, and for how long."""
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        run()
        torch.cuda.synchronize()
    rows = found.key_averages()
    return {
        "kernels": sum(row.count for row in rows if row.self_device_time_total),
        "busy_seconds": sum(row.self_device_time_total for row in rows) / 1e6,
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
