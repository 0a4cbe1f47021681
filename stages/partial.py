"""From a backbone and a selection to a partial PLM: an ordinary transformers model with a smaller shape.

The full model is the partial PLM that keeps everything; the backbone's files are only ever read.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

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
    """
    family, files = backbone.family, backbone.files
    model = family.skeleton(backbone.config, shape_of(selection, backbone.shape), selection)
    whole = family.skeleton(backbone.config, backbone.shape)  # as on disk
    packs = set(layers_of(family, model)) if quantize != "none" else set()
    for skeleton in (model, whole):
        family.set_head(skeleton, is_own=backbone.has_own_head)
    family.fill_buffers(model, device)
    sources = family.sources(selection, model)
    for parent, leaves in groupby(sources, key=lambda source: source[0][0].rpartition(".")[0]):
        module = model.get_submodule(parent)
        for places, source in leaves:
            shape = tuple(whole.get_parameter(source.name).shape)
            name = family.on_disk(files, (source.name, *places[1:]))
            wanted = torch.float32 if module in packs and places[0].endswith(".weight") else dtype
            tensor = files.read(name, shape=shape, rows=source.rows, columns=source.columns, dtype=wanted)
            parameter = nn.Parameter(tensor.to(device), requires_grad=False)
            for place in places:
                owner, _, leaf = place.rpartition(".")
                setattr(model.get_submodule(owner), leaf, parameter)
        if module in packs:
            module = packed(module, quantize, dtype)
            model.set_submodule(parent, module)
        shard(module)
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    if model.can_generate() and backbone.ends != family.end_tokens(model.config):  # config.json lacks some
        model.config.eos_token_id = model.generation_config.eos_token_id = backbone.ends
    return model


def shape_of(selection: Selection, full: Shape) -> Shape:
    """The shape of the partial PLM that a selection makes."""

    def stack(kept: StackSelection, whole: Stack) -> Stack:
        return Stack(len(kept.blocks), whole.neurons if kept.neurons is None else len(kept.neurons[0]))

    return Shape(**{name: stack(kept, full[name]) for name, kept in selection.items()})


def save(
    model: Any,
    backbone: Backbone,
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    unsaid: Sequence[int] = (),
) -> None:
    """Write a partial PLM as a Hugging Face checkpoint that `from_pretrained` opens, tokenizer included.

    T5's stacks of unequal width are padded with zero neurons to the wider one: its config.json has one d_ff.
    `tokenizer` goes in the place of the backbone's; the tokens `unsaid` are never to be generated, sampled neither.
    """
    with _without_bars():
        model.save_pretrained(folder, state_dict=backbone.family.checkpoint_tensors(model, backbone.files))
    values, generation = backbone.family.checkpoint_values(model, read_values(backbone.folder))
    if unsaid:
        generation |= {"suppress_tokens": list(unsaid)}
    for name, settled in (("config.json", values), ("generation_config.json", generation)):
        if settled:
            file = folder / name
            file.write_text(json.dumps(json.loads(file.read_text()) | settled, indent=2) + "\n")
    (tokenizer or backbone.tokenizer).save_pretrained(folder)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Within, transformers draws no progress bars of its own."""
    were_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_on:
            logging.enable_progress_bar()
