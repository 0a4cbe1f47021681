"""What a kind of prompt says of itself is what it then is: to a file and back, as a module, and where it starts."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fpt.config.schema import PromptConfig
from fpt.prompts.files import initial, open_prompt
from fpt.prompts.kinds import KINDS, kind_of, width_of
from fpt.runs.run import LEARNED
from fpt.training.checkpoint import dump_prompt
from tests.conftest import open_folder
from tests.families import save_byte_level

PROMPTS = {
    "soft": PromptConfig(length=7),
    "soft, behind": PromptConfig(length=7, place="suffix"),
    "late, npg": PromptConfig(kind="late", length=7, layer=3, bottleneck=5, pool="mean"),
    "late, appg": PromptConfig(kind="late", length=7, layer=3, bottleneck=5, generator="appg"),
    "late, mppg": PromptConfig(kind="late", length=7, layer=3, bottleneck=5, generator="mppg"),
    "late, none": PromptConfig(kind="late", length=7, layer=3, generator="none"),
}


def test_every_kind_that_may_be_typed_is_there() -> None:
    choices = PromptConfig.__dataclass_fields__["kind"].metadata["choices"]
    assert list(KINDS) == list(choices)
    assert {config.kind for config in PROMPTS.values()} == set(choices)


@pytest.mark.parametrize("name", PROMPTS)
def test_its_file_says_what_it_is(name: str, checkpoint: Path, tmp_path: Path) -> None:
    config = PROMPTS[name]
    kind, file = kind_of(config), tmp_path / "prompt.safetensors"
    tensors = initial(config, open_folder(checkpoint), labels=(), seed=0)
    file.write_bytes(dump_prompt(tensors, **kind.metadata(3)))
    stored = open_prompt(file)
    assert [getattr(stored.config, key) for key in LEARNED] == [getattr(config, key) for key in LEARNED]
    assert {key: array.shape for key, array in stored.arrays.items()} == kind.shapes(32)
    assert width_of(stored.arrays) == 32
    assert kind.mismatch(32, stored.config, 32) is None
    assert kind.mismatch(32, stored.config, 64) is not None


@pytest.mark.parametrize("name", PROMPTS)
def test_its_module_learns_what_it_says(name: str, checkpoint: Path) -> None:
    config = PROMPTS[name]
    kind = kind_of(config)
    module = kind.build(initial(config, open_folder(checkpoint), labels=(), seed=0), kind.position(6))
    assert (module.length, module.position) == (7, kind.position(6))
    assert {key: tuple(tensor.shape) for key, tensor in module.tensors.items()} == kind.shapes(32)
    assert sum(parameter.numel() for parameter in module.parameters()) == kind.num_learned(32)
    assert sum(math.prod(shape) for shape in kind.shapes(32).values()) == kind.num_learned(32)
    assert (not kind.not_exported) == (not module.is_behind and kind.position(6) == 0)
    assert kind.kept_blocks(6) == (6 if module.is_behind else kind.position(6) or None)


def test_kinds_answer_without_torch() -> None:
    code = (
        "import sys; from fpt.config.schema import PromptConfig; from fpt.prompts.kinds import KINDS, kind_of\n"
        "for name in KINDS:\n"
        "    kind = kind_of(PromptConfig(kind=name))\n"
        "    kind.position(6), kind.shapes(32), kind.num_learned(32), kind.flops(9, 32), kind.metadata(3)\n"
        "    kind.not_exported, kind.described(32, 3, 'it')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def start(checkpoint: Path, seed: int = 0, **config: Any) -> torch.Tensor:
    backbone = open_folder(checkpoint)
    return initial(PromptConfig(**{"length": 8, **config}), backbone, labels=("no", "yes"), seed=seed)["prompt"]


def table(checkpoint: Path) -> torch.Tensor:
    return load_file(checkpoint / "model.safetensors")["shared.weight"]


def test_uniform_is_the_papers(checkpoint: Path) -> None:
    prompt = start(checkpoint, init="uniform", length=400)
    bound = 32**-0.5
    assert prompt.shape == (400, 32)
    assert prompt.abs().max() <= bound
    assert prompt.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert torch.equal(prompt, start(checkpoint, init="uniform", length=400))
    assert not torch.equal(prompt, start(checkpoint, init="uniform", length=400, seed=1))


def test_vocab_rows_are_distinct_common_pieces(checkpoint: Path) -> None:
    prompt, rows = start(checkpoint, init="vocab"), table(checkpoint)
    ids = [int((rows == vector).all(1).nonzero()[0, 0]) for vector in prompt]
    special = set(open_folder(checkpoint).tokenizer.all_special_ids)
    assert len(set(ids)) == 8
    assert not special & set(ids)
    assert torch.equal(prompt, start(checkpoint, init="vocab"))
    assert not torch.equal(prompt, start(checkpoint, init="vocab", seed=1))


def test_labels_start_with_the_label_words(checkpoint: Path) -> None:
    tokenizer = open_folder(checkpoint).tokenizer
    words = [id for word in ("no", "yes") for id in tokenizer(word, add_special_tokens=False).input_ids]
    assert torch.equal(start(checkpoint, init="labels")[: len(words)], table(checkpoint)[words])


def test_labels_start_with_the_tokens_that_the_model_says(tmp_path: Path) -> None:
    """In a causal model's vocabulary the word behind a space is another token than the word alone."""
    folder = save_byte_level(tmp_path, "gpt2")
    tokenizer, rows = open_folder(folder).tokenizer, load_file(folder / "model.safetensors")["transformer.wte.weight"]
    words = [id for word in (" no", " yes") for id in tokenizer(word).input_ids]
    assert words != [id for word in ("no", "yes") for id in tokenizer(word).input_ids]
    assert torch.equal(start(folder, init="labels")[: len(words)], rows[words])


def test_text_is_repeated_to_the_length(checkpoint: Path) -> None:
    ids = open_folder(checkpoint).tokenizer("is it red", add_special_tokens=False).input_ids
    wanted = [ids[index % len(ids)] for index in range(8)]
    assert torch.equal(start(checkpoint, init="text", text="is it red"), table(checkpoint)[wanted])


@pytest.mark.parametrize("length", [20, 9, 2])
def test_labels_behind_the_source_end_in_the_cue_of_the_answer(tmp_path: Path, length: int) -> None:
    folder = save_byte_level(tmp_path, "gpt2")
    tokenizer, rows = open_folder(folder).tokenizer, load_file(folder / "model.safetensors")["transformer.wte.weight"]
    cue, labels = tokenizer("\nanswer:").input_ids, [id for word in (" no", " yes") for id in tokenizer(word).input_ids]
    found = start(folder, init="labels", place="suffix", length=length)
    assert len(found) == length
    assert torch.equal(found[-len(cue) :], rows[cue][-length:])
    room = min(len(labels), max(0, length - len(cue)))
    assert torch.equal(found[:room], rows[labels[:room]])
