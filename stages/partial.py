"""From a backbone and a selection to a partial PLM: an ordinary transformers model with a smaller shape.

The full model is the partial PLM that keeps everything; the backbone's files are only ever read.
"""

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fpt.backbones.backbone import Backbone
from fpt.backbones.location import read_values
from fpt.backbones.shapes import Selection, Shape, Stack, StackSelection


def build(
    backbone: Backbone,
    selection: Selection,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    shard: Callable[[nn.Module], None] = lambda _: None,
) -> Any:
    """The frozen model made of the kept blocks and neurons, in eval mode; memory follows what is kept.

    Each module goes to `shard` when its own weights are read, before the next ones are.

    Raises:
        UserError: a tensor is missing from the weights or has another shape than the configuration says.
    """
    family, files = backbone.family, backbone.files
    model = family.skeleton(backbone.config, shape_of(selection, backbone.shape), selection)
    whole = family.skeleton(backbone.config, backbone.shape)  # as on disk
    for skeleton in (model, whole):
        family.set_head(skeleton, is_own=backbone.has_own_head)
    family.fill_buffers(model, device)
    sources = family.sources(selection, model)
    for parent, leaves in groupby(sources, key=lambda source: source[0][0].rpartition(".")[0]):
        for places, source in leaves:
            shape = tuple(whole.get_parameter(source.name).shape)
            name = family.on_disk(files, (source.name, *places[1:]))
            tensor = files.read(name, shape=shape, rows=source.rows, columns=source.columns, dtype=dtype)
            parameter = nn.Parameter(tensor.to(device), requires_grad=False)
            for place in places:
                owner, _, leaf = place.rpartition(".")
                setattr(model.get_submodule(owner), leaf, parameter)
        shard(model.get_submodule(parent))
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    return model


def shape_of(selection: Selection, full: Shape) -> Shape:
    """The shape of the partial PLM that a selection makes."""

    def stack(kept: StackSelection, whole: Stack) -> Stack:
        return Stack(len(kept.blocks), whole.neurons if kept.neurons is None else len(kept.neurons[0]))

    return Shape(**{name: stack(kept, full[name]) for name, kept in selection.items()})


def save(model: Any, backbone: Backbone, folder: Path) -> None:
    """Write a partial PLM as a Hugging Face checkpoint that `from_pretrained` opens, tokenizer included.

    T5's stacks of unequal width are padded with zero neurons to the wider one: its config.json has one d_ff.
    """
    model.save_pretrained(folder, state_dict=backbone.family.checkpoint_tensors(model, backbone.files))
    values = backbone.family.checkpoint_values(model, read_values(backbone.folder))
    for name, settled in zip(("config.json", "generation_config.json"), values, strict=True):
        if settled:
            file = folder / name
            file.write_text(json.dumps(json.loads(file.read_text()) | settled, indent=2) + "\n")
    backbone.tokenizer.save_pretrained(folder)
