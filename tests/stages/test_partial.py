"""A partial PLM is the full one with blocks and neurons left out, and nothing else changed."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from fpt.backbones.shapes import STACKS, Selection, StackSelection
from stages import partial
from stages.selection import everything
from tests.conftest import FAMILIES, SMALL, on_cpu, open_folder, save_checkpoint
from tests.models import logits
from tests.processes import run_code


def surgery(model: Any, kept: Selection) -> Any:
    """The same cut made by hand in transformers' own model, blocks and weights moved one by one."""
    for name in STACKS:
        stack, chosen = getattr(model, name), kept[name]
        table = stack.block[0].layer[0].SelfAttention.relative_attention_bias
        stack.block = nn.ModuleList(stack.block[index] for index in chosen.blocks)
        stack.block[0].layer[0].SelfAttention.relative_attention_bias = table
        stack.block[0].layer[0].SelfAttention.has_relative_attention_bias = True
        for block, neurons in zip(stack.block, chosen.neurons or (), strict=chosen.neurons is not None):
            ffn, picked = block.layer[-1].DenseReluDense, list(neurons)
            for row in ("wi", "wi_0", "wi_1"):
                if hasattr(ffn, row):
                    getattr(ffn, row).weight = nn.Parameter(getattr(ffn, row).weight[picked])
            ffn.wo.weight = nn.Parameter(ffn.wo.weight[:, picked])
    model.config.use_cache = False
    return model


def some(blocks: int, neurons: int | None, first: int = 0) -> StackSelection:
    picked = tuple(range(first, blocks, 2))
    if neurons is None:
        return StackSelection(picked)
    return StackSelection(picked, tuple(tuple(range(index % 3, 48, 48 // neurons))[:neurons] for index in picked))


@pytest.mark.dear
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("neurons", "first"), [((None, None), 0), ((16, 8), 0), ((16, None), 1)])
def test_partial_equals_surgery_on_transformers_model(
    family: str, neurons: tuple[int | None, int | None], first: int, tmp_path: Path
) -> None:
    """`first` 1 drops block 0, where the position bias of the whole stack lives."""
    folder = save_checkpoint(tmp_path / "model", family)
    backbone = open_folder(folder)
    kept = Selection(
        some(backbone.shape.encoder.blocks, neurons[0], first), some(backbone.shape.decoder.blocks, neurons[1], first)
    )
    theirs = surgery(AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval(), kept)
    torch.testing.assert_close(logits(partial.build(backbone, kept)), logits(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.dear
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_partial_opens_in_transformers(family: str, tmp_path: Path) -> None:
    backbone = open_folder(save_checkpoint(tmp_path / "model", family))
    kept = Selection(some(backbone.shape.encoder.blocks, 16), some(backbone.shape.decoder.blocks, 24))
    model = partial.build(backbone, kept)
    partial.save(model, backbone, tmp_path / "saved")
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved", dtype=torch.float32).eval()
    assert theirs.config.d_ff == 24
    assert theirs.config.use_cache
    assert theirs.generation_config.use_cache == (len(kept.decoder.blocks) <= len(kept.encoder.blocks))
    theirs.generate(torch.tensor([[5, 6, 1]]), max_new_tokens=2)  # with a cache it fails for a deeper decoder
    assert theirs.config.dropout_rate == 0.1
    torch.testing.assert_close(logits(theirs), logits(model), rtol=1e-5, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")("yes").input_ids == backbone.tokenizer("yes").input_ids


def test_surgery_leaves_files_and_full_model_alone(checkpoint: Path) -> None:
    def digest() -> str:
        return hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()

    before, backbone = digest(), open_folder(checkpoint)
    full = partial.build(backbone, everything(backbone.shape))
    expected = logits(full)
    small = partial.build(backbone, Selection(some(6, 16), some(6, 8)))
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert torch.equal(logits(full), expected)
    fresh = partial.build(backbone, everything(backbone.shape))
    assert torch.equal(logits(fresh), expected)
    assert digest() == before


def test_everything_is_frozen_and_in_eval_mode(checkpoint: Path) -> None:
    backbone = open_folder(checkpoint)
    model = partial.build(backbone, everything(backbone.shape), on_cpu(dtype="bfloat16"))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(module.p == 0 for module in model.modules() if isinstance(module, nn.Dropout))


MEMORY = """
import re
from pathlib import Path
import torch
from fpt.backbones.shapes import Selection, StackSelection
from stages import partial
from tests.processes import run_code
from tests.conftest import on_cpu, open_folder
backbone = open_folder(Path.cwd())
part, whole = StackSelection((0, 4), (tuple(range(0, 1024, 4)),) * 2), StackSelection(tuple(range(8)))
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
before = peak()
partial.build(backbone, Selection(*[{what}] * 2), on_cpu(dtype="bfloat16"))
print(peak() - before)
"""


@pytest.mark.trains
def test_peak_memory_follows_the_partial_model(tmp_path: Path) -> None:
    """A quarter of the blocks at a quarter of the neurons: what is left out is never brought into memory."""
    size = {**SMALL, "d_model": 512, "d_ff": 1024, "num_heads": 8, "d_kv": 64, "num_layers": 8}
    T5ForConditionalGeneration(T5Config(**size)).save_pretrained(tmp_path)
    on_disk = (tmp_path / "model.safetensors").stat().st_size / 2**20
    part, whole = (float(run_code(MEMORY.replace("{what}", what), tmp_path)) for what in ("part", "whole"))
    assert whole > 0.5 * on_disk  # the measurement sees what is read
    assert part < 0.35 * on_disk
