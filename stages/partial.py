"""From a backbone and a selection to a partial PLM: an ordinary transformers model with a smaller shape.

The full model is the partial PLM that keeps everything; the backbone's files are only ever read.
"""

import json
import shutil
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fpt.backbones import t5
from fpt.backbones.backbone import Backbone
from fpt.backbones.location import read_values
from fpt.backbones.shapes import Selection, Shape, Stack, StackSelection, WeightSlice
from fpt.errors import UserError


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
    config, files = backbone.config, backbone.files
    model = t5.skeleton(config, shape_of(selection, backbone.shape))
    for parent, leaves in groupby(t5.body_sources(selection, model), key=lambda item: item[0].rpartition(".")[0]):
        module = model.get_submodule(parent)
        for name, source in leaves:
            shape = _shape_on_disk(model.get_parameter(name), source, config.d_ff)
            tensor = files.read(source.name, shape=shape, rows=source.rows, columns=source.columns, dtype=dtype)
            setattr(module, name.rpartition(".")[2], nn.Parameter(tensor.to(device), requires_grad=False))
        shard(module)
    table = (config.vocab_size, config.d_model)
    t5.tie_embeddings(model, files.read(t5.embedding_name(files), shape=table, dtype=dtype).to(device))
    shard(model.shared)
    if backbone.has_own_head:
        t5.untie_head(model, files.read(t5.HEAD, shape=table, dtype=dtype).to(device))
        shard(model.lm_head)
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

    Raises:
        UserError: the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already; give a new folder")
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside, state_dict=t5.widened(model))
    original = read_values(backbone.folder)
    settled = {  # what building set aside, and what transformers 5 writes wrongly for a head of its own
        "use_cache": original.get("use_cache", True),
        "dropout_rate": original.get("dropout_rate", 0.1),
        "tie_word_embeddings": model.lm_head.weight is model.shared.weight,
    }
    (aside / "config.json").write_text(json.dumps(read_values(aside) | settled, indent=2) + "\n")
    generation = aside / "generation_config.json"
    # transformers sizes its cache by the encoder's depth, which fails for a deeper decoder.
    cached = {"use_cache": model.config.num_decoder_layers <= model.config.num_layers}
    generation.write_text(json.dumps(json.loads(generation.read_text()) | cached, indent=2) + "\n")
    backbone.tokenizer.save_pretrained(aside)
    aside.rename(folder)


def _shape_on_disk(kept: nn.Parameter, source: WeightSlice, neurons: int) -> tuple[int, ...]:
    shape = list(kept.shape)
    if source.rows is not None:
        shape[0] = neurons
    if source.columns is not None:
        shape[1] = neurons
    return tuple(shape)
