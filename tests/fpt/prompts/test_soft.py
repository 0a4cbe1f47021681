"""Where a prompt starts: seeded, of the right shape, and from what was asked for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fpt.config.schema import PromptConfig
from fpt.prompts.files import initial
from tests.conftest import open_folder
from tests.families import save_byte_level


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
