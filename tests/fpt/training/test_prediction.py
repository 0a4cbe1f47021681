"""Answers of a batch are those of each text alone, also where a tokenizer has nothing to pad with."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fpt.data.encoding import encode
from fpt.data.tokens import Tokens, decoded
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.readers import prompted_model
from fpt.tasks.predict_input import raw_example
from fpt.training.prediction import Predictor, TaskPrompt
from stages import partial
from stages.selection import everything
from tests.conftest import open_folder
from tests.families import WIDTH, opened, save_byte_level

TEXTS = ["the lamp is red{mask}", "a{mask}", "a stone is old, and the lamp{mask}", "Привет мир{mask}"]
EOT = 299  # <|eot|>, which stands behind all pieces and <|endoftext|>


def predictor(folder: Path, batch_size: int, lengths: dict[str, int] | None = None, **where: bool) -> Predictor:
    """A random model with prompts of these lengths, by name."""
    backbone, prompts = open_folder(folder), {}
    body = partial.build(backbone, everything(backbone.shape))
    for name, parameter in body.named_parameters():
        if name.endswith("bias"):  # or a random GPT-2 says the same token to all
            parameter.zero_()
    tokens = Tokens(backbone.tokenizer, backbone.family.row)
    for name, length in (lengths or {"": 3}).items():
        vectors = torch.randn(length, WIDTH, generator=torch.Generator().manual_seed(5))
        prompts[name] = TaskPrompt(SoftPrompt(vectors, **where), tokens, str, source_length=99, max_new_tokens=12)
    model = prompted_model(body, next(iter(prompts.values())).prompt)
    return Predictor(model, prompts, torch.device("cpu"), batch_size)


@pytest.mark.parametrize("pad", [None, -1, 0])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_batch_says_what_each_text_is_answered_alone(tmp_path: Path, family: str, pad: int | None) -> None:
    """Token 0 is "!", of which nothing may come from padding; many tokens end an output."""
    folder = save_byte_level(tmp_path / family, family, pad_token_id=pad, eos_token_id=[1, *range(3, 260, 8)])
    alone, together = (predictor(folder, size)(TEXTS) for size in (1, 4))
    assert [one.output for one in together] == [one.output for one in alone]
    assert len({len(one.tokens) for one in together}) > 1
    assert not any("!" in one.output for one in together)
    answer = predictor(folder, 4)
    tokens, examples = answer.prompts[""].tokens, [raw_example(text) for text in TEXTS]
    data = encode(examples, tokens, source_length=99, target_length=2)
    ids = answer.model.generate(data.batch([0, 1, 2, 3]), max_new_tokens=12)
    assert decoded(answer.model.trimmed(ids).tolist(), tokens.tokenizer) == [one.output for one in alone]


@pytest.mark.parametrize("is_behind", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_prompts_of_different_lengths_answer_a_mix_as_each_does_alone(
    tmp_path: Path, family: str, is_behind: bool
) -> None:
    folder = save_byte_level(tmp_path / family, family, eos_token_id=[1, *range(3, 260, 8)])
    lengths = {"2": 2, "5": 5}
    examples = [raw_example(text)._replace(group=name) for text in TEXTS for name in lengths]
    mixed = [one.output for one in predictor(folder, 4, lengths, is_behind=is_behind).answer(examples)]
    each = [predictor(folder, 4, {"": length}, is_behind=is_behind) for length in lengths.values()]
    alone = [one for both in zip(*(answer(TEXTS) for answer in each), strict=True) for one in both]
    assert mixed == [one.output for one in alone]
    assert mixed[0::2] != mixed[1::2]


@pytest.mark.parametrize(
    ("stated", "generation", "ends"),
    [(5, None, [5, EOT]), ([5, 7], 9, [5, 7, 9, EOT]), (EOT, [EOT], [EOT])],
)
def test_an_output_ends_where_training_ended_it_and_where_the_model_does(
    tmp_path: Path, stated: Any, generation: Any, ends: list[int]
) -> None:
    """The tokenizer's end, which targets have, is <|eot|>, as in Llama 3's chat models."""
    folder = save_byte_level(tmp_path / "llama", "llama", end="<|eot|>", eos_token_id=stated)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    backbone = open_folder(folder)
    assert Tokens(backbone.tokenizer, backbone.family.row).of_targets(["yes"])[0][-1] == EOT
    body = partial.build(backbone, everything(backbone.shape))
    assert backbone.family.end_tokens(body.config) == ends
    partial.save(body, backbone, tmp_path / "saved")
    saved = opened(tmp_path / "saved", "llama")
    assert saved.generation_config.eos_token_id in (ends, ends[0])
