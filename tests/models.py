"""Models, data and comparisons that tests of several rooms share."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import T5Config

from fpt.backbones.backbone import FAMILIES
from fpt.config.schema import PromptConfig
from fpt.data.encoded import Encoded, RaggedRows
from fpt.prompts.kinds import Late
from fpt.prompts.modules import LatePrompt, SoftPrompt, drawn
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from fpt.training.checkpoint import TrainState, load_state
from stages import partial
from stages.selection import everything
from tests.conftest import SMALL, on_cpu, open_folder

t5 = FAMILIES["t5"]
LENGTH, BLOCKS = 5, 6  # of a late prompt, and in the encoder of the fixture `checkpoint`
PRICED = T5Config(
    d_model=64, d_ff=96, d_kv=16, num_heads=4, vocab_size=500, decoder_start_token_id=0, num_layers=5, dropout_rate=0.0
)
DATA = Encoded(
    sources=RaggedRows.of(
        [[5, 6, 7, 1], [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 1], [15, 1], [16, 17, 18, 19, 20, 1]]
    ),
    targets=RaggedRows.of([[1100, 30, 1], [1100, 1], [1100, 31, 32, 33, 1], [1100, 34, 1]]),
)


def late(position: int = 3, **settings: Any) -> LatePrompt:
    config = PromptConfig(kind="late", **{"length": LENGTH, "bottleneck": 16, **settings})
    return Late(config).build(drawn(Late(config).shapes(32), 0), position)


def prompted(folder: Path, prompt: LatePrompt | SoftPrompt, **more: Any) -> PromptedModel:
    backbone = open_folder(folder)
    body = partial.build(backbone, everything(backbone.shape), on_cpu(dtype=more.get("dtype", "float32")))
    return prompted_model(body, prompt, checkpointing=more.get("checkpointing", False))


def logits(model: Any) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    source = torch.randint(3, SMALL["vocab_size"], (3, 11), generator=random)
    target = torch.randint(3, SMALL["vocab_size"], (3, 4), generator=random)
    mask = torch.ones_like(source)
    mask[1, 7:] = 0
    with torch.no_grad():
        return model(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits


def same(one: Path, other: Path) -> bool:
    tensors = [load_file(folder / "prompt.safetensors") for folder in (one, other)]
    assert tensors[0].keys() == tensors[1].keys()
    return all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def stage_states(run: Path) -> list[TrainState]:
    """The last state that each stage of a run saved, in the order of the stages."""
    return [load_state(file.read_bytes())[0] for file in sorted(run.glob("stages/*/state.safetensors"))]
