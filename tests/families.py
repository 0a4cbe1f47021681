"""A small random checkpoint of every family, saved by transformers: one line in a table for each."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoTokenizer

from fpt.backbones import tiny
from fpt.backbones.family import MODELS
from fpt.backbones.rows import ROWS
from fpt.backbones.shapes import Selection, Shape, StackSelection
from tests.conftest import VOCABULARY

WIDTH, NEURONS = 32, 48
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": NEURONS, **TOKENS}
TYPES = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
SLIDING = {**GROUPED, "sliding_window": 6, "layer_types": TYPES}
DEEPER = {**SLIDING, "num_hidden_layers": 5, "layer_types": [*TYPES, "sliding_attention"]}
EYES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
VISION = {**EYES, "image_size": 28, "patch_size": 14}
T5 = {"d_model": WIDTH, "d_ff": NEURONS, "d_kv": 8, "num_heads": 4, "num_layers": 4, "feed_forward_proj": "gated-gelu"}


@dataclass(frozen=True)
class Case:
    """A family's small model.

    Attributes:
        values: of its config.json.
        own_head: its checkpoints have a head of their own, although transformers' configuration says tied.
    """

    values: dict[str, Any]
    own_head: bool = False


CASES = {
    "mt5": Case({**T5, **TOKENS, "decoder_start_token_id": 0}, own_head=True),
    "umt5": Case({**T5, **TOKENS, "decoder_start_token_id": 0, "num_decoder_layers": 5}, own_head=True),
    "t5gemma": Case({"encoder": SLIDING, "decoder": DEEPER, "vocab_size": VOCABULARY}),
    "t5gemma2": Case({"encoder": {"text_config": SLIDING, "vision_config": VISION}, "decoder": DEEPER}),
}


def save_family(folder: Path, family: str) -> Path:
    """A random model of a family, with the embedded model's tokenizer beside it."""
    case = CASES[family]
    torch.manual_seed(7)
    model = MODELS[ROWS[family].reads].from_config(CONFIG_MAPPING[family](**case.values), dtype=torch.float32)
    if case.own_head:
        model.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
    with torch.no_grad():
        for parameter in model.parameters():  # far enough from 0 for every part to matter
            parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.5))
    model.save_pretrained(folder)
    if case.own_head:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "tie_word_embeddings": False}))
    AutoTokenizer.from_pretrained(tiny.FOLDER).save_pretrained(folder)
    return folder


def opened(folder: Path, family: str) -> Any:
    """transformers' own model of a checkpoint."""
    model = MODELS[ROWS[family].reads].from_pretrained(folder, dtype=torch.float32).eval()
    if family == "umt5":  # which transformers takes for tied, and scales: no published checkpoint is
        model.config.tie_word_embeddings = False
    return model.requires_grad_(False)


def part_of(shape: Shape, *, blocks: int = 2, neurons: int = 16) -> Selection:
    """Some blocks, not the first ones alone, with some of their neurons, other ones in each."""

    def some(total: int) -> StackSelection:
        kept = tuple(range(1, total))[-blocks:]
        return StackSelection(kept, tuple(tuple(range(block % 3, NEURONS, 3))[:neurons] for block in kept))

    return Selection(**{name: some(size.blocks) for name, size in shape.items()})
