"""The embedded model is a T5 like any other, small enough to ship, and its recipe can be repeated."""

import json
import random
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from fpt.backbones import tiny
from fpt.config import compose
from fpt.tasks.opening import open_task
from pretraining import instructions, network, recipe, vocabulary
from pretraining.world import records as world
from tests.processes import in_processes

pytestmark = pytest.mark.dear

ROOT = Path(__file__).parents[2]


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
    for task in world.TASKS:
        for example in open_task(compose.load([f"task={task}"])).valid:
            assert tokenizer.unk_token_id not in tokenizer(example.source).input_ids


def test_bare_forms_are_laid_out_as_the_trainer_does() -> None:
    layouts = [re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(form.layout))) for form in instructions.FORMS]
    seen = set()
    for task in world.TASKS:
        for example in open_task(compose.load([f"task={task}"])).valid[:20]:
            fitting = [index for index, layout in enumerate(layouts) if layout.fullmatch(example.source)]
            assert len(fitting) == 1, example.source
            seen.add(fitting[0])
    assert len(seen) == len(layouts)


def test_every_instruction_can_be_answered() -> None:
    stream = random.Random(0)
    for form in instructions.FORMS:
        texts = [form.draw(stream, 4) for _ in range(60)]
        for command in form.commands:
            answers = {instructions.answer(command, each) for each in texts}
            assert len(answers) > 1, command  # what is always the same needs no reading


def write_gradients(file: Path) -> None:
    """The first batch's loss and gradients, by all processes together."""
    dist.init_process_group("gloo")
    codec, phase = vocabulary.Codec(tiny.FOLDER), recipe.PHASES[0]
    batch = next(recipe.batches(phase, codec, seed=0, first=0))
    model = network.new(recipe.shape(codec.size, phase), seed=0)
    loss = recipe.backward(model, batch)
    if dist.get_rank() == 0:
        torch.save([loss, *(parameter.grad for parameter in model.parameters())], file)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.trains
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    for processes in (1, 2):
        in_processes(processes, partial(write_gradients, tmp_path / str(processes)), tmp_path / "said" / "processes")
    one, two = (torch.load(tmp_path / name) for name in "12")
    for expected, found in zip(one, two, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_recipe_makes_a_model_that_opens(tmp_path: Path) -> None:
    """The whole recipe with a few updates: vocabulary, every phase, growth, card and log."""
    command = [sys.executable, "-m", "pretraining.recipe", "--out", str(tmp_path), "--updates", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    shipped = json.loads((tiny.FOLDER / "config.json").read_text())
    assert (model.config.num_layers, model.config.vocab_size) == (shipped["num_layers"], shipped["vocab_size"])
    assert (tmp_path / "spiece.model").read_bytes() == (tiny.FOLDER / "spiece.model").read_bytes()
    assert tokenizer("is it red").input_ids == AutoTokenizer.from_pretrained(tiny.FOLDER)("is it red").input_ids
    log = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in log] == [phase.name for phase in recipe.PHASES]
    assert "## Training" in (tmp_path / "README.md").read_text()
    assert not (tmp_path / ".training.pt").exists()
    assert tiny.problems(tmp_path) == {}


def test_its_files_are_those_that_are_recorded() -> None:
    assert tiny.problems() == {}
