"""What a model's way to read does not go with is refused before weights are read, in one line with a way out."""

import json
import re
from pathlib import Path

import pytest

from fpt.backbones.location import config_values
from fpt.config import compose
from fpt.errors import UserError
from stages import resolve, schedule
from stages.resolve import for_training

REFUSED = {
    "model=roberta-large task=squad_v2": "answers by one label at a mask, unlike squad_v2; take a model that writes",
    "model=roberta-large task.source_length=600": "has 512 positions, .* give task.source_length=512 or less",
    "model=gpt2-large task.source_length=1100": "has 1024 positions, of which 9 are for task.target_length=10",
    "model=gpt2-large task.max_new_tokens=900": (
        "has 1024 positions, of which 899 are for task.max_new_tokens=900 .* give task.source_length=125 or less"
    ),
    "model=gpt2-large task.max_new_tokens=2000": "1999 are for task.max_new_tokens=2000 .* give a lower task.max_",
    "model=gemma3-270m task.source_length=32750": "of which 9 are for task.target_length=10 and 20 for the prompt",
    "model=t5gemma-s task.max_new_tokens=9000": "writes up to 8192 tokens; give task.max_new_tokens=8192 or less",
    "model=gpt2-large engine.quantize=int8": "packs linear layers, and model=gpt2-large has layers of another kind",
    "model=gpt2-large prompt=late prompt.layer=99": "reads with 36 blocks; give 0 to 36",
    "model=gpt2-large prompt=late prompt.layer=1.0": r"1.0: all blocks of schedule.stages\[1\] \(36\) lie",
    "model=roberta-large task=sst2 prompt=late prompt.layer=24": "prompt.layer=24: all blocks of schedule",
    "model=qwen3-0.6b prompt=late schedule.stages=[{'depth':1,'share':0.5},{'share':0.5}]": r"\(1\) lie",
    "model=bert-large task=sst2 prompt=late schedule.stages=[{'depth':1,'updates':9},{'updates':1}]": r"\(1\) lie",
    "model=gpt2-large prompt=late prompt.pool=first": "the first token sees no other there",
    "model=roberta-large task=sst2 prompt=late prompt.layer=0": "the first token sees no other there",
    "prompt=late prompt.layer=0 prompt.pool=last": "give prompt.pool=mean, a higher prompt.layer",
    "model=bert-large task=sst2 prompt.place=suffix": "a masked model's source sees what stands behind it",
    "model=gpt2-large prompt=late prompt.layer=0.01": "prompt.layer=0.01: the last token sees no other there",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_go_together_is_refused(words: str) -> None:
    with pytest.raises(UserError, match=REFUSED[words]):
        schedule.of(compose.load(words.split()))


def test_a_prompt_in_front_of_a_decoder_is_as_wide_as_its_states() -> None:
    config = compose.load(["model=t5gemma-s", "prompt.place=suffix"])
    values, _ = config_values(config.model)
    resolve.check(config, values, "")
    wider = {**values, "decoder": {**values["decoder"], "hidden_size": 640}}
    with pytest.raises(UserError, match=r"prompt\.place=suffix: the stacks of model=t5gemma-s have states of unlike"):
        resolve.check(config, wider, "")


SEEN = (
    "model=gpt2-large prompt=late prompt.layer=35",
    "model=gpt2-large schedule.stages=[{'depth':1,'share':0.5},{'share':0.5}]",
    "model=bert-large task=sst2 prompt=late prompt.layer=0 prompt.pool=mean schedule.stages=[{'depth':1,'share':1}]"
    " schedule.partial_end=true",
    "prompt=late prompt.layer=1.0 schedule.stages=[{'depth':1,'share':0.5},{'share':0.5}]",  # which a decoder sees
)


@pytest.mark.parametrize("words", SEEN)
def test_a_prompt_that_something_sees_is_not_refused(words: str) -> None:
    schedule.of(compose.load(words.split()))


@pytest.mark.parametrize(
    ("words", "pool"),
    [
        ("model=gpt2-large", "last"),
        ("model=qwen3-0.6b prompt.pool=mean", "mean"),
        ("model=qwen3-0.6b prompt.generator=appg", "first"),
        ("model=roberta-large task=sst2", "first"),
        ("model=t5gemma-s", "first"),
        ("model=t5-small", "first"),
    ],
)
def test_the_pooled_state_is_one_that_has_seen_the_source(words: str, pool: str) -> None:
    config = for_training(compose.load(["prompt=late", *words.split()]))
    assert config.prompt.pool == pool
    assert for_training(config) == config


def test_a_stretched_model_has_the_positions_that_its_configuration_says(tmp_path: Path) -> None:
    angles = {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 64}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    values = {"model_type": "llama", **sizes, "vocab_size": 99, "max_position_embeddings": 256}
    (tmp_path / "config.json").write_text(json.dumps({**values, "rope_scaling": angles}))
    words = [f"model={tmp_path}", "task=rte", "task.target_length=5", "prompt.length=10"]
    schedule.of(compose.load([*words, "task.source_length=242"]))
    with pytest.raises(UserError, match=r"has 256 positions.*give task.source_length=242 or less"):
        schedule.of(compose.load([*words, "task.source_length=243"]))


MASKED = {  # what is wrong with a mask there, "" if nothing is
    ("tiny", "{passage} {mask} {question}"): "",
    ("mt5-small", "lpt"): "",
    ("roberta-large", "lpt"): "",
    ("roberta-large", "{passage} {mask} {question} {mask}"): "task.template: has 2 times {mask} for one answer",
    ("gpt2-large", "{passage} {question} {mask}"): "",
    ("gpt2-large", "{passage} {{mask}} {question}"): "",
    (
        "gpt2-large",
        "{passage} {question} {mask}.",
    ): "model=gpt2-large: goes on behind its source: give a task.template that ends in {mask}",
    (
        "qwen3-0.6b",
        "lpt",
    ): "give a task.template that ends in {mask}, or has none; this one is {premise} ? {mask} , {hypo",
    ("t5gemma-s", "lpt"): "model=t5gemma-s: has no mark for an answer in its source: give",
    ("t5gemma2-270m", "lpt"): "has no mark for an answer",
}


@pytest.mark.parametrize(("model", "template"), MASKED)
def test_a_mask_stands_where_the_model_can_answer(model: str, template: str) -> None:
    task = "mnli" if template == "lpt" else "boolq"
    config, said = (
        compose.load([f"model={model}", f"task={task}", f"task.template={template}"]),
        MASKED[model, template],
    )
    if not said:
        schedule.of(config)
        return
    with pytest.raises(UserError, match=re.escape(said)):
        schedule.of(config)
