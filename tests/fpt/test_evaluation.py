"""Outputs come back in the data's order, whatever order and batches they were generated in."""

from pathlib import Path

import pytest
import torch

from fpt.data import encode
from fpt.evaluation import evaluate, longest_answer
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.soft import SoftPrompt
from fpt.tasks import open_task
from stages import partial
from stages.selection import everything
from tests.conftest import open_folder


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_outputs_are_those_of_each_example_alone(checkpoint: Path, boolq: Path, batch_size: int) -> None:
    from fpt.compose import load

    backbone, task = open_folder(checkpoint), open_task(load([f"task.data={boolq}"]))
    tokenizer = backbone.tokenizer
    data = encode(task.valid, tokenizer, source_length=64, target_length=10)
    assert len({source for source, _ in data.lengths}) > 3
    body = partial.build(backbone, everything(backbone.shape))
    model = PromptedModel(body, SoftPrompt(torch.randn(3, 32, generator=torch.Generator().manual_seed(2)) * 5))
    found = evaluate(
        model,
        task,
        data,
        tokenizer,
        batch_size=batch_size,
        max_new_tokens=4,
        device=torch.device("cpu"),
        watch=lambda batches, _: batches,
    )
    assert len(set(found.outputs)) > 1
    for index, output in enumerate(found.outputs):
        ids = model.generate(data.batch([index]), max_new_tokens=4)
        assert tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip() == output


def test_a_label_task_generates_no_longer_than_its_longest_label(checkpoint: Path, boolq: Path) -> None:
    from fpt.compose import load

    task, tokenizer = open_task(load([f"task.data={boolq}"])), open_folder(checkpoint).tokenizer
    longest = max(len(tokenizer(f"<extra_id_0> {word}").input_ids) for word in ("yes", "no"))
    assert longest_answer(task, tokenizer, 10) == longest
    assert longest_answer(task, tokenizer, 2) == 2
