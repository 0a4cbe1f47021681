"""Chooses which blocks and neurons a stage keeps: their indices, kept in the run folder."""

from collections.abc import Callable

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from fpt.backbones.shapes import STACKS, Selection, Shape, Stack, StackSelection
from fpt.runs.run import STAGE, reading
from fpt.runs.shared_folder import SharedFolder
from stages.schedule import Schedule, Stage, num_below


def selection_of(stage: Stage, folder: SharedFolder, schedule: Schedule, scores: dict[str, Tensor]) -> Selection:
    """The blocks and neurons that a stage keeps: chosen once, then read from the run folder."""
    name, row = f"{stage.folder}/selection.safetensors", f"{stage.folder}/{STAGE}"
    if name not in folder or row not in folder:
        chosen = choose(stage.shape, schedule.full, scores, layer=schedule.block, rule=schedule.keeps)
        blocks = {f"{stack}_blocks": kept.blocks for stack, kept in chosen.items()}
        span = {"first_update": stage.first_update, "updates": stage.updates}
        folder.write(name, dump(chosen))
        folder.write_json(row, {"index": stage.index, **stage.sizes, **blocks, **span})
    with reading(folder.path / name):
        return load(folder.read(name))


def evenly(kept: int, total: int) -> tuple[int, ...]:
    """`kept` of `total` block indices, evenly spread from the first to the last (Huang et al. 2022).

    Gaps differ by at most one, and the wider gaps come last. A single kept block is the first one.

    Raises:
        ValueError: `kept` is not between 1 and `total`.
    """
    if not 1 <= kept <= total:
        raise ValueError(f"cannot keep {kept} of {total} blocks")
    if kept == 1:
        return (0,)
    narrow, wider = divmod(total - 1, kept - 1)
    gaps = [narrow] * (kept - 1 - wider) + [narrow + 1] * wider
    return tuple(sum(gaps[:index]) for index in range(kept))


def outer(kept: int, total: int) -> tuple[int, ...]:
    """`kept` of `total` block indices: the first and the last ones, as many of each or one more of the first."""
    return (*range(kept - kept // 2), *range(total - kept // 2, total))


RULES = {"evenly": evenly, "outer": outer}  # by their names in `schedule.blocks`


def around(kept: int, total: int, layer: int, rule: Callable[[int, int], tuple[int, ...]] = evenly) -> tuple[int, ...]:
    """`kept` of `total` block indices, chosen by the rule below and above a prompt that enters before block `layer`.

    Both sides keep the same share of their blocks, and at least one if `kept` allows. The block just below the prompt
    is always kept, and so is the last block if any above the prompt is. With `layer` 0 the rule chooses from all.
    """
    if layer == 0:
        return rule(kept, total)
    below = num_below(kept, total, layer)
    lower = rule(below, layer) if below > 1 else (layer - 1,)
    above = kept - below
    upper = rule(above, total - layer) if above > 1 else (total - layer - 1,) * above
    return (*lower, *(layer + block for block in upper))


def blocks_of(shape: Shape, full: Shape, layer: int, rule: str) -> dict[str, tuple[int, ...]]:
    """The blocks of each stack that a stage keeps; the prompt enters before block `layer` of the first stack."""
    first = next(iter(shape))
    return {
        name: around(size.blocks, full[name].blocks, layer if name == first else 0, RULES[rule])
        for name, size in shape.items()
    }


def most_important(scores: Tensor, kept: int) -> tuple[int, ...]:
    """The indices of the `kept` highest scores [F], in ascending order; ties go to the lower index."""
    order = scores.double().neg().argsort(stable=True)
    return tuple(sorted(order[:kept].tolist()))


def choose(shape: Shape, full: Shape, scores: dict[str, Tensor], *, layer: int = 0, rule: str = "evenly") -> Selection:
    """The blocks and neurons that a stage of this shape keeps; `scores` [L, F] rank the neurons of reduced stacks.

    The prompt enters before block `layer` of the first stack, and blocks are chosen by a rule of `schedule.blocks`.
    """
    blocks = blocks_of(shape, full, layer, rule)
    return Selection(
        **{name: _choose_neurons(blocks[name], size, full[name], scores.get(name)) for name, size in shape.items()}
    )


def everything(full: Shape) -> Selection:
    """The selection that keeps the whole model."""
    return choose(full, full, {})


def _choose_neurons(blocks: tuple[int, ...], kept: Stack, full: Stack, scores: Tensor | None) -> StackSelection:
    if kept.neurons == full.neurons:
        return StackSelection(blocks)
    assert scores is not None
    assert scores.shape == (full.blocks, full.neurons)
    return StackSelection(blocks, tuple(most_important(scores[block], kept.neurons) for block in blocks))


def dump(selection: Selection) -> bytes:
    """A selection as a safetensors file: `<stack>.blocks` [k], and `<stack>.neurons` [k, f] unless all are kept."""
    tensors = {}
    for name, kept in selection.items():
        tensors[f"{name}.blocks"] = torch.tensor(kept.blocks)
        if kept.neurons is not None:
            tensors[f"{name}.neurons"] = torch.tensor(kept.neurons)
    return save_tensors(tensors)


def load(data: bytes) -> Selection:
    """Read back a selection that `dump` wrote."""
    tensors = load_tensors(data)

    def stack(name: str) -> StackSelection:
        neurons = tensors.get(f"{name}.neurons")
        rows = None if neurons is None else tuple(tuple(row) for row in neurons.tolist())
        return StackSelection(tuple(tensors[f"{name}.blocks"].tolist()), rows)

    return Selection(**{name: stack(name) for name in STACKS if f"{name}.blocks" in tensors})
