"""Builds a partial PLM from a backbone and a selection: an ordinary transformers model with a smaller shape.

The full model is the partial PLM that keeps everything. The backbone's files are only ever read.
"""

import json
from collections.abc import Iterator, Sequence
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
from fpt.backbones.precision import Linear, compute_states_in_float32, layers_of
from fpt.backbones.shapes import Selection, Shape, Stack
from fpt.config.schema import EngineConfig, PromptConfig
from fpt.devices import distributed
from fpt.devices.engine import Engine
from fpt.prompts.kinds import kind_of
from fpt.prompts.modules import Prompt, Tensors
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model

IN_FLOAT32 = Engine(EngineConfig(name="torch", device="cpu", dtype="float32"), torch.device("cpu"))


def build(backbone: Backbone, selection: Selection, engine: Engine = IN_FLOAT32) -> Any:
    """The frozen model made of the kept blocks and neurons, in eval mode, with the engine's device and precision.

    No more memory is used than the result needs: each module is sharded, and each linear layer of a block quantised,
    as soon as its own weights are read and before the next ones are.
    """
    family, files, quantize = backbone.family, backbone.files, engine.config.quantize
    model = family.skeleton(backbone.config, shape_of(selection, backbone.shape), selection)
    whole = family.skeleton(backbone.config, backbone.shape)  # with the shapes of the files
    packs = set(layers_of(family, model)) if quantize != "none" else set()
    for skeleton in (model, whole):
        family.set_head(skeleton, is_own=backbone.has_own_head)
    family.fill_buffers(model, engine.device)
    sources = family.sources(selection, model)
    for parent, leaves in groupby(sources, key=lambda source: source[0][0].rpartition(".")[0]):
        module = model.get_submodule(parent)
        for places, source in leaves:
            shape = tuple(whole.get_parameter(source.name).shape)
            name = family.on_disk(files, (source.name, *places[1:]))
            dtype = torch.float32 if module in packs and places[0].endswith(".weight") else engine.dtype
            tensor = files.read(name, shape=shape, rows=source.rows, columns=source.columns, dtype=dtype)
            parameter = nn.Parameter(tensor.to(engine.device), requires_grad=False)
            for place in places:
                owner, _, leaf = place.rpartition(".")
                setattr(model.get_submodule(owner), leaf, parameter)
        if module in packs:
            module = Linear(module, quantize, engine.dtype)
            model.set_submodule(parent, module)
        engine.shard(module)
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    if model.can_generate() and backbone.ends != family.end_tokens(model.config):  # config.json lacks some end tokens
        model.config.eos_token_id = model.generation_config.eos_token_id = backbone.ends
    return model


@contextmanager
def opened(
    backbone: Backbone, selection: Selection, engine: Engine, prompt: Prompt, *, checkpointing: bool = False
) -> Iterator[PromptedModel]:
    """Within, the engine holds the partial PLM, with the prompt in it."""
    body = build(backbone, selection, engine)
    if engine.states_dtype != engine.dtype:
        compute_states_in_float32(body)
    with engine.holding(body) as (body, held):
        distributed.barrier()  # one process may take longer than another to read the weights
        prompt = prompt.to(engine.device)
        yield prompted_model(body, prompt, checkpointing=checkpointing, **held)


def prompt_in(backbone: Backbone, selection: Selection, config: PromptConfig, tensors: Tensors) -> Prompt:
    """A prompt's tensors as a module, at its place in the partial PLM."""
    kind = kind_of(config)
    block = kind.position(backbone.shape.source.blocks)
    return kind.build(tensors, sum(kept < block for kept in selection.source.blocks))


def shape_of(selection: Selection, full: Shape) -> Shape:
    """The shape of the partial PLM that a selection makes."""
    stacks = {}
    for name, kept in selection.items():
        neurons = full[name].neurons if kept.neurons is None else len(kept.neurons[0])
        stacks[name] = Stack(len(kept.blocks), neurons)
    return Shape(**stacks)


def save(
    model: Any,
    backbone: Backbone,
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    suppressed: Sequence[int] = (),
) -> None:
    """Write a partial PLM as a Hugging Face checkpoint that `from_pretrained` opens, tokenizer included.

    T5's config.json has one d_ff, so the narrower of its stacks is padded with zero neurons. `tokenizer` replaces the
    backbone's; generation never gives the tokens `suppressed`.
    """
    logging.disable_progress_bar()  # transformers' own, one for each file
    model.save_pretrained(folder, state_dict=backbone.family.checkpoint_tensors(model, backbone.files))
    values, generation = backbone.family.checkpoint_values(model, read_values(backbone.folder))
    if suppressed:
        generation |= {"suppress_tokens": list(suppressed)}
    for name, settled in (("config.json", values), ("generation_config.json", generation)):
        if settled:
            file = folder / name
            file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | settled, indent=2) + "\n")
    (tokenizer or backbone.tokenizer).save_pretrained(folder)
