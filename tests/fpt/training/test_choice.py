"""By score an answer is always a label, the one of least loss; in validation, evaluation and prediction alike."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fpt.backbones.family_table import FAMILY_TABLE
from fpt.config.compose import load
from fpt.data.encoding import check_labels, encode
from fpt.data.tokens import Tokens
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.readers import prompted_model
from fpt.runs.progress import Progress
from fpt.tasks.opening import open_task
from fpt.tasks.task import Example
from fpt.training.evaluation import Choice, Evaluator
from stages import partial
from stages.selection import everything
from tests.conftest import ON_CPU, Outcome, open_folder
from tests.families import WIDTH, opened, save_byte_level

Cli = Callable[..., Outcome]


def test_of_all_labels_the_one_of_least_loss_is_taken(checkpoint: Path, boolq: Path) -> None:
    backbone, task = open_folder(checkpoint), open_task(load([f"task.data={boolq}"]))
    data = encode(task.valid, Tokens(backbone.tokenizer), source_length=64, target_length=10)
    model = prompted_model(partial.build(backbone, everything(backbone.shape)), SoftPrompt(torch.randn(3, 32) * 5))
    more = (ON_CPU, lambda batches, _: batches, 7, 4)
    said = Evaluator(task, data, backbone.tokenizer, *more).answers(model, data, "validation")
    assert not {"no", "yes"} & set(said.read)  # a random model says neither
    choice = Choice(task.labels, check_labels(task, Tokens(backbone.tokenizer, FAMILY_TABLE["t5"]), chosen=True))
    chosen = Evaluator(task, data, backbone.tokenizer, *more, choice=choice).answers(model, data, "validation")
    assert set(chosen.read) == {"no", "yes"}
    for index, word in enumerate(chosen.outputs):
        example = task.valid[index]
        losses = {}
        for label in task.labels:
            one = [example._replace(target=f"<extra_id_0> {label}")]
            batch = encode(one, Tokens(backbone.tokenizer), source_length=64, target_length=10).batch([0])
            losses[label] = model(batch).item()
        assert word == min(losses, key=losses.__getitem__)


@pytest.mark.parametrize("answer", ["score", "score_mean", "score_norm"])
def test_a_labels_length_counts_as_it_is_said(answer: str, tmp_path: Path) -> None:
    """By transformers' own loss, which is the mean of a target's tokens; the end is one."""
    folder, words = save_byte_level(tmp_path / "llama", "llama"), ["no", "a stone is old", "ziggurats"]
    backbone, prompt = open_folder(folder), torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    sources, theirs = [f"is it number {number}" for number in range(6)], opened(folder, "llama")
    examples = [Example(source, source, "", ()) for source in sources]
    tokenizer, row = backbone.tokenizer, FAMILY_TABLE["llama"]
    batch = encode(examples, Tokens(tokenizer, row), source_length=64, target_length=2).batch(list(range(6)))
    model = prompted_model(partial.build(backbone, everything(backbone.shape)), SoftPrompt(prompt))
    chosen, _, _ = Choice(words, Tokens(tokenizer, row).of_targets(words), answer).choose(model, batch)
    expected = []
    for source in sources:
        losses = {}
        for word in words:
            said = [*tokenizer(f" {word}").input_ids, tokenizer.eos_token_id]
            ids = torch.tensor([[*tokenizer(source).input_ids, *said]])
            embedded = torch.cat([prompt[None], theirs.get_input_embeddings()(ids)], 1)
            labels = torch.tensor([[-100] * (embedded.shape[1] - len(said)) + said])
            mean = theirs(inputs_embeds=embedded, labels=labels).loss.item()
            losses[word] = {"score_mean": mean, "score": mean * len(said), "score_norm": mean * len(said) / len(word)}
        expected.append(min(words, key=lambda word: losses[word][answer]))
    assert chosen == expected
    assert set(chosen) == {words[("score", "score_norm", "score_mean").index(answer)]}  # lengths decide here


@pytest.mark.trains
def test_a_run_validates_evaluates_and_predicts_by_score(
    cli: Cli, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, answers, bars, with_bar = tmp_path / "run", tmp_path / "answers.jsonl", [], Progress.with_bar
    monkeypatch.setattr(Progress, "with_bar", lambda own, *given: bars.append(given[1]) or with_bar(own, *given))
    words = [*quick, "task.answer=score", "train.updates=2", "schedule=pt", "train.eval_every=1"]
    assert cli("train", *words).status == 0
    assert bars.count("validation") == 2  # the best prompt is not scored once more in the end
    lines = (run / "predictions.jsonl").read_bytes()
    rows = [json.loads(line) for line in lines.splitlines()]
    assert {row["answer"] for row in rows} == {"no", "yes"}
    looks = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    share = 100 * sum(row["correct"] for row in rows) / len(rows)
    assert max(line["accuracy"] for line in looks if "split" in line) == pytest.approx(share)
    done = cli("eval", f"run={run}", f"output={answers}")
    assert done.status == 0, done.err
    assert answers.read_bytes() == lines
    (tmp_path / "asked.txt").write_text("".join(f"{row['input']}\n" for row in rows))
    done = cli("predict", f"run={run}", f"input={tmp_path}/asked.txt", "--json")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [row["answer"] for row in found] == [row["answer"] for row in rows]
    assert {row["output"]: [token["token"] for token in row["tokens"]][-1] for row in found} == {
        "no": "</s>",
        "yes": "</s>",
    }
    generated = cli("eval", f"run={run}", "task.answer=generate", f"output={tmp_path}/said.jsonl")
    assert generated.status == 0, generated.err
    assert (tmp_path / "said.jsonl").read_bytes() != lines
    refused = cli("predict", f"run={run}", "text=is it", "max-new-tokens=3")
    assert refused.status == 2
    assert "max-new-tokens=3: is of generation; with task.answer=score nothing is generated" in refused.err


@pytest.mark.parametrize("task", ["squad_v2", "stsb", "xsum"])
def test_a_task_without_labels_has_nothing_to_choose_from(cli: Cli, task: str) -> None:
    refused = cli("train", f"task={task}", "task.answer=score")
    assert refused.status == 2
    assert refused.err.strip().endswith(
        f"task.answer=score: is for examples with one label each, unlike those of {task}; leave it out"
    )
