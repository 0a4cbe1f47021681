"""Outputs come back in the data's order, whatever order and batches they were generated in."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fpt.__main__ import main
from fpt.data.encoded import Batch, Encoded, RaggedRows
from fpt.data.encoding import encode
from fpt.data.tokens import Tokens
from fpt.errors import UserError
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from fpt.tasks.opening import open_task
from fpt.training.evaluation import Answers, Evaluator, longest_answer, predictions
from stages import partial
from stages.selection import everything
from tests.conftest import ON_CPU, open_folder


@pytest.mark.dear
@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_outputs_are_those_of_each_example_alone(checkpoint: Path, boolq: Path, batch_size: int) -> None:
    from fpt.config.compose import load

    backbone, task = open_folder(checkpoint), open_task(load([f"task.data={boolq}"]))
    tokenizer = backbone.tokenizer
    data = encode(task.valid, Tokens(tokenizer), source_length=64, target_length=10)
    assert len({source for source, _ in data.lengths}) > 3
    body = partial.build(backbone, everything(backbone.shape))
    model = prompted_model(body, SoftPrompt(torch.randn(3, 32, generator=torch.Generator().manual_seed(2)) * 5))
    evaluator = Evaluator(task, data, tokenizer, ON_CPU, lambda batches, _: batches, batch_size, max_new_tokens=4)
    found = evaluator.answers(model, data, "validation")
    assert len(set(found.outputs)) > 1
    for index, output in enumerate(found.outputs):
        ids = model.generate(data.batch([index]), max_new_tokens=4)
        assert tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip() == output


@pytest.mark.trains
def test_training_looks_at_some_examples_and_the_end_at_all(tmp_path: Path) -> None:
    """One of twenty while it trains; in the end the best prompt, and the last one as `fpt eval` scores it, on all."""
    folder, task = tmp_path / "run", ["task.world=plain", "task.valid_examples=20"]
    few = ["train.updates=4", "train.eval_every=2", "train.batch_size=4", "train.eval_examples=1", "schedule=pt"]
    few.append("optim.average=0.5")  # whose mean is what is scored
    assert main(["train", *task, *few, "task.train_examples=40", f"run.dir={folder}"]) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {line["accuracy"] for line in lines if "split" in line} <= {0.0, 100.0}
    result = json.loads((folder / "result.json").read_text())
    best = [json.loads(line)["correct"] for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(best) == 20
    assert result["metric"]["value"] == pytest.approx(100 * sum(best) / 20)
    (stage,) = (folder / "stages").iterdir()
    scored = tmp_path / "answers.jsonl"
    assert main(["eval", *task, f"prompt.file={stage}/prompt.safetensors", f"output={scored}"]) == 0
    last = [json.loads(line)["correct"] for line in scored.read_text().splitlines()]
    assert 0 < sum(last) < 20  # or one example could say it as well
    assert result["metric"]["last"] == pytest.approx(100 * sum(last) / 20)


def test_a_label_task_generates_no_longer_than_its_longest_label(checkpoint: Path, boolq: Path) -> None:
    from fpt.config.compose import load

    task, tokenizer = open_task(load([f"task.data={boolq}"])), open_folder(checkpoint).tokenizer
    longest = max(len(tokenizer(f"<extra_id_0> {word}").input_ids) for word in ("yes", "no"))
    data = encode(task.train, Tokens(tokenizer), source_length=64, target_length=10)
    assert longest_answer(task, data, 10) == longest
    assert longest_answer(task, data, 2) == 2


def test_answers_for_which_there_is_no_memory_are_given_in_parts(
    checkpoint: Path, boolq: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fpt.config.compose import load

    backbone, task = open_folder(checkpoint), open_task(load([f"task.data={boolq}"]))
    data = encode(task.valid, Tokens(backbone.tokenizer), source_length=64, target_length=10)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)) * 5
    model = prompted_model(partial.build(backbone, everything(backbone.shape)), SoftPrompt(vectors))
    evaluator = Evaluator(task, data, backbone.tokenizer, ON_CPU, lambda batches, _: batches, 8, max_new_tokens=4)
    wanted = evaluator.answers(model, data, "validation")
    generate, sizes, most = PromptedModel.generate, [], 3

    def short_of_memory(model: PromptedModel, batch: Batch, **more: Any) -> torch.Tensor:
        sizes.append(len(batch.source))
        if len(batch.source) > most:
            raise torch.OutOfMemoryError("CUDA out of memory (as a card would say)")
        return generate(model, batch, **more)

    monkeypatch.setattr(PromptedModel, "generate", short_of_memory)
    assert evaluator.answers(model, data, "validation") == wanted
    assert sizes[:4] == [8, 4, 2, 2]
    most = 0
    with pytest.raises(UserError, match="out of memory for 1 answer at once: give a smaller"):
        evaluator.answers(model, data, "validation")


def test_free_text_may_be_twice_as_long_as_in_training(checkpoint: Path, tmp_path: Path) -> None:
    """Whatever the validation's targets are: nothing may be known of them."""
    from fpt.config.compose import load

    for name, summary in (("train", "the lamp"), ("val", "the lamp is red . " * 9)):
        row = {"document": "the lamp is red .", "summary": summary, "id": name}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    task, tokenizer = open_task(load(["task=xsum", f"task.data={tmp_path}"])), open_folder(checkpoint).tokenizer
    data = encode(task.train, Tokens(tokenizer), source_length=64, target_length=512)
    assert longest_answer(task, data, 512) == 2 * len(tokenizer("<extra_id_0> the lamp").input_ids)
    assert longest_answer(task, data, 5) == 5
    for count, longest in ((200, 20), (50, 512)):  # one long target among many, and among few
        targets = RaggedRows.of([[8] * 10] * (count - 1) + [[8] * 300])
        assert longest_answer(task, Encoded(targets, targets), 512) == longest


@pytest.mark.parametrize(("name", "correct"), [("squad_v2", [True, True, False]), ("xsum", [None])])
def test_predictions_hold_every_gold_and_whether_it_was_met(tmp_path: Path, name: str, correct: list[object]) -> None:
    from fpt.config.compose import load

    lamps = [{"text": "the lamp"}, {"text": "a red lamp"}]
    asked = [{"id": str(number), "question": "what", "answers": lamps[number:]} for number in range(3)]
    tree = {"data": [{"paragraphs": [{"context": "the lamp is red", "qas": asked}]}]}
    for file in ("train-v2.0.json", "dev-v2.0.json"):
        (tmp_path / file).write_text(json.dumps(tree))
    for file in ("train.jsonl", "val.jsonl"):
        (tmp_path / file).write_text(json.dumps({"document": "the lamp is red", "summary": "red", "id": "0"}))
    task = open_task(load([f"task={name}", f"task.data={tmp_path}"]))
    outputs = ["Lamp.", "red lamp", "lamp"][: len(correct)]
    found = Answers(outputs, [task.from_text(output) for output in outputs])
    rows = [json.loads(line) for line in predictions(found, task, task.valid).splitlines()]
    assert [row["correct"] for row in rows] == correct
    golds = [["the lamp", "a red lamp"], ["a red lamp"], [""]] if name == "squad_v2" else [["red"]]
    assert [row["gold"] for row in rows] == golds
    assert list(rows[0]) == ["id", "input", "output", "answer", "gold", "correct"]
