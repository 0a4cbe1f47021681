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
from fpt.backbones.quantised import layers_of, packed
from fpt.backbones.shapes import Selection, Shape, Stack, StackSelection


def build(
    backbone: Backbone,
    selection: Selection,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    shard: Callable[[nn.Module], None] = lambda _: None,
    quantize: str = "none",
) -> Any:
    """The frozen model made of the kept blocks and neurons, in eval mode; memory follows what is kept.

    Each module goes to `shard` when its own weights are read, before the next ones are; and the blocks' linear layers
    are packed as `quantize` says (int8, nf4, none), so that no more than one of them is ever there whole.

    Raises:
        UserError: a tensor is missing from the weights or has another shape than the configuration says, or nothing
            is installed that could pack it.
    """
    family, files = backbone.family, backbone.files
    model = family.skeleton(backbone.config, shape_of(selection, backbone.shape))
    whole = family.skeleton(backbone.config, backbone.shape)  # as on disk
    packs = set(layers_of(family, model)) if quantize != "none" else set()
    for parent, leaves in groupby(family.body_sources(selection, model), key=lambda item: item[0].rpartition(".")[0]):
        module = model.get_submodule(parent)
        for name, source in leaves:
            shape, leaf = tuple(whole.get_parameter(source.name).shape), name.rpartition(".")[2]
            wanted = torch.float32 if module in packs and leaf == "weight" else dtype
            tensor = files.read(source.name, shape=shape, rows=source.rows, columns=source.columns, dtype=wanted)
            setattr(module, leaf, nn.Parameter(tensor.to(device), requires_grad=False))
        if module in packs:
            module = packed(module, quantize, dtype)
            model.set_submodule(parent, module)
        shard(module)
    table = tuple(whole.get_input_embeddings().weight.shape)
    family.tie_embeddings(model, files.read(family.embedding_name(files), shape=table, dtype=dtype).to(device))
    shard(model.get_input_embeddings())
    if backbone.has_own_head:
        head = files.read(family.HEAD, shape=table, dtype=dtype).to(device)
        model.get_output_embeddings().weight = nn.Parameter(head, requires_grad=False)
        shard(model.get_output_embeddings())
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    return model


def shape_of(selection: Selection, full: Shape) -> Shape:
    """The shape of the partial PLM that a selection makes."""

    def stack(kept: StackSelection, whole: Stack) -> Stack:
        return Stack(len(kept.blocks), whole.neurons if kept.neurons is None else len(kept.neurons[0]))

    return Shape(stack(selection.encoder, full.encoder), stack(selection.decoder, full.decoder))


def save(model: Any, backbone: Backbone, folder: Path) -> None:
    """Write a partial PLM as a Hugging Face checkpoint that `from_pretrained` opens, tokenizer included.

    Stacks of unequal width are padded with zero neurons to the wider one: a config.json has one d_ff.
    """
    model.save_pretrained(folder, state_dict=backbone.family.checkpoint_tensors(model))
    values = backbone.family.checkpoint_values(model, read_values(backbone.folder))
    for name, settled in zip(("config.json", "generation_config.json"), values, strict=True):
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | settled, indent=2) + "\n")
    backbone.tokenizer.save_pretrained(folder)
