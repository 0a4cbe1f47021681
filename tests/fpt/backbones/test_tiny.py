"""The embedded model is a T5 like any other, small enough to ship, and its recipe can be repeated."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from fpt.backbones import tiny
from fpt.tasks import world


def test_it_is_small_and_in_16_bit() -> None:
    assert sum(file.stat().st_size for file in tiny.FOLDER.iterdir() if file.is_file()) < 24 * 2**20
    assert {tensor.dtype for tensor in load_file(tiny.FOLDER / "model.safetensors").values()} == {torch.bfloat16}


def test_it_is_of_t5_11s_shape() -> None:
    config = json.loads((tiny.FOLDER / "config.json").read_text())
    assert (config["model_type"], config["feed_forward_proj"]) == ("t5", "gated-gelu")
    assert config["num_layers"] >= 8
    assert config["num_decoder_layers"] >= 4
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny.FOLDER)
    assert not torch.equal(model.lm_head.weight, model.shared.weight)


def test_its_vocabulary_is_as_t5s() -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny.FOLDER)
    size = json.loads((tiny.FOLDER / "config.json").read_text())["vocab_size"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == size - 1
    assert tokenizer.convert_tokens_to_ids("<extra_id_99>") == size - 100
    rows = list(world.boolq("validation", num=200, seed=0))
    for row in rows:
        assert (
            tokenizer.unk_token_id not in tokenizer(f"question: {row['question']} passage: {row['passage']}").input_ids
        )


def test_the_recipe_makes_a_model_that_opens(tmp_path: Path) -> None:
    """The whole recipe with a few updates: vocabulary, every phase, growth, card and log."""
    command = [sys.executable, "-m", "fpt.backbones.tiny.recipe", "--out", str(tmp_path), "--updates", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    shipped = json.loads((tiny.FOLDER / "config.json").read_text())
    assert (model.config.num_layers, model.config.vocab_size) == (shipped["num_layers"], shipped["vocab_size"])
    assert (tmp_path / "spiece.model").read_bytes() == (tiny.FOLDER / "spiece.model").read_bytes()
    assert tokenizer("is it red").input_ids == AutoTokenizer.from_pretrained(tiny.FOLDER)("is it red").input_ids
    log = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert len({line["phase"] for line in log}) == 5
    assert "## Training" in (tmp_path / "README.md").read_text()
    assert not (tmp_path / ".training.pt").exists()
