"""Answers to texts of the user's own: as in validation, in order, and streamed."""

import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fpt.api import Predictor, SoftPrompt, build, configure, open_backbone, prompted_model
from fpt.data.tokens import Tokens
from fpt.runs.run import open_run
from fpt.training.prediction import TaskPrompt
from stages.selection import everything
from stages.using.learned import from_run, predictor
from tests.conftest import Outcome
from tests.processes import Command

Cli = Callable[..., Outcome]


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def validated(finished: Path) -> list[dict[str, Any]]:
    return rows(finished / "predictions.jsonl")


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".txt"])
def test_a_file_is_answered_as_in_validation(
    cli: Cli, finished: Path, boolq: Path, validated: list[dict[str, Any]], tmp_path: Path, ending: str
) -> None:
    records = rows(boolq / "val.jsonl")
    file, output = tmp_path / f"asked{ending}", tmp_path / "answers.jsonl"
    lines = {
        ".jsonl": [json.dumps(record) for record in records],
        ".csv": ["passage,question", *(f"{record['passage']},{record['question']}" for record in records)],
        ".txt": [row["input"] for row in validated],
    }[ending]
    file.write_text("\n".join(lines) + "\n")
    done = cli("predict", f"run={finished}", f"input={file}", f"output={output}", "train.eval_batch=5")
    assert done.status == 0, done.err
    kept = ("input", "output", "answer")
    assert [[row[key] for key in kept] for row in rows(output)] == [[row[key] for key in kept] for row in validated]


def test_one_text_is_printed_and_scored(cli: Cli, finished: Path, validated: list[dict[str, Any]]) -> None:
    text = validated[0]["input"]
    assert cli("predict", f"run={finished}", "--text", text).out == validated[0]["answer"] + "\n"
    found = json.loads(cli("predict", f"run={finished}", f"--text={text}", "--json").out)
    assert found["output"] == validated[0]["output"]
    assert math.isclose(found["score"], sum(math.log(token["probability"]) for token in found["tokens"]), abs_tol=1e-4)


@pytest.mark.trains
def test_standard_input_is_answered_line_by_line(
    finished: Path, validated: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The second line is written only when the answer to the first is there."""
    place = tmp_path / "said"
    for suffix in (".in", ".out"):
        os.mkfifo(place.with_suffix(suffix))
    command = Command(["predict", f"run={finished}"], place)
    with place.with_suffix(".out").open() as answers, place.with_suffix(".in").open("w") as asked:
        for row in validated[:2]:
            asked.write(row["input"] + "\n")
            asked.flush()
            assert answers.readline() == row["answer"] + "\n"
    command.process.join(60)
    assert command.status == 0


def test_a_bad_record_ends_before_any_answer_and_a_file_of_answers_is_never_replaced(
    cli: Cli, finished: Path, tmp_path: Path
) -> None:
    file, output = tmp_path / "asked.txt", tmp_path / "answers.jsonl"
    words = ["predict", f"run={finished}", f"input={file}", f"output={output}", "train.eval_batch=1"]
    file.write_bytes(b"one\n" * 66 + b"\xff\n")
    done = cli(*words)
    assert done.status == 2
    assert done.err.startswith(f"fpt: {file}, line 67: not UTF-8")
    assert len(done.err.splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["asked.txt"]
    output.write_text("mine")
    assert f"output={output}: exists already" in cli(*words).err
    assert output.read_text() == "mine"


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_a_table_is_answered_by_a_table(
    cli: Cli, finished: Path, validated: list[dict[str, Any]], tmp_path: Path, ending: str
) -> None:
    """Its own columns come along, also what the template does not name; a bad row is left out where that is asked."""
    mark = "," if ending == ".csv" else "\t"
    asked = [row["input"].removeprefix("question: ").split(" passage: ") for row in validated[:3]]
    rows = [["note", "question", "passage"], *([f"n{number}", *texts] for number, texts in enumerate(asked)), ["bad"]]
    file, output = tmp_path / f"asked{ending}", tmp_path / f"answers{ending}"
    file.write_text("".join(mark.join(cells) + "\n" for cells in rows))
    words = ["predict", f"run={finished}", f"input={file}", f"output={output}", "train.eval_batch=1"]
    done = cli(*words)
    assert done.status == 2
    assert done.err.endswith(
        "line 5: 1 columns, expected 3: note, question, passage; task.on_error=skip leaves such out\n"
    )
    done = cli(*words, "task.on_error=skip")
    assert done.status == 0, done.err
    assert "1 skipped" in done.err
    with output.open(newline="") as stream:
        answers = list(csv.DictReader(stream, delimiter=mark))
    assert [row["note"] for row in answers] == ["n0", "n1", "n2"]
    assert [[row["question"], row["passage"]] for row in answers] == asked
    assert [row["prediction"] for row in answers] == [row["answer"] for row in validated[:3]]
    assert all(float(row["score"]) < 0 for row in answers)
    again = [word.replace(str(output), str(tmp_path / f"again{ending}")) for word in words]
    assert (
        "the input has a column 'prediction' already"
        in cli(*(word.replace(str(file), str(output)) for word in again)).err
    )


def test_texts_of_no_table_make_one_of_three_columns_and_empty_ones_are_said(
    cli: Cli, finished: Path, tmp_path: Path
) -> None:
    file, output = tmp_path / "asked.txt", tmp_path / "answers.csv"
    file.write_text('one, "two"\n\nthree\n')
    done = cli("predict", f"run={finished}", f"input={file}", f"output={output}")
    assert done.status == 0, done.err
    assert "1 of 3 texts is empty" in done.err
    with output.open(newline="") as stream:
        answers = list(csv.DictReader(stream))
    assert [row["text"] for row in answers] == ['one, "two"', "", "three"]
    assert list(answers[0]) == ["text", "prediction", "score"]


def test_scores_are_those_of_transformers(finished: Path, boolq: Path) -> None:
    """Its own teacher-forced forward on each text alone, without padding."""
    records = open_run(finished)
    texts = [row["input"] for row in records.predictions[:5]]
    with predictor({"": (records.config, from_run(records, None))}, max_new_tokens=4) as answer:
        found, body, tokenizer = answer(texts), answer.model.body, answer.prompts[""].tokens.tokenizer
        for text, ours in zip(texts, found, strict=True):
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            embedded = torch.cat([answer.model.prompt.tensors["prompt"][None], body.get_input_embeddings()(ids)], 1)
            said = body.generate(inputs_embeds=embedded, max_new_tokens=4)[0, 1:]
            assert tokenizer.convert_ids_to_tokens(said[: len(ours.tokens)]) == [name for name, _ in ours.tokens]
            with torch.no_grad():
                logs = body(inputs_embeds=embedded, labels=said[None]).logits[0].log_softmax(-1)
            wanted = logs.gather(1, said[:, None])[: len(ours.tokens), 0]
            assert torch.allclose(torch.tensor([value for _, value in ours.tokens]), wanted.exp(), atol=1e-5)
            assert math.isclose(ours.score, wanted.sum().item(), abs_tol=1e-4)


def test_the_end_is_part_of_an_output_and_nothing_behind_it(tmp_path: Path) -> None:
    """Of two outputs of different lengths in one batch, each as transformers generates it for its text alone."""
    backbone = open_backbone(configure("model=tiny").model)
    prompt = SoftPrompt(backbone.embeddings(list(range(100, 120))))
    model = prompted_model(build(backbone, everything(backbone.shape)), prompt)
    use = TaskPrompt(prompt, Tokens(backbone.tokenizer), str, source_length=100, max_new_tokens=20)
    answer = Predictor(model, {"": use}, torch.device("cpu"), batch_size=2)
    texts = ["question: is the lamp red passage: The lamp is red.", "summarize: The lamp is red. The stone is old."]
    found, lengths = answer(texts), []
    for text, ours in zip(texts, found, strict=True):
        ids = backbone.tokenizer(text, return_tensors="pt")["input_ids"]
        embedded = torch.cat([prompt.tensors["prompt"][None], model.body.get_input_embeddings()(ids)], 1)
        said = model.body.generate(inputs_embeds=embedded, max_new_tokens=20)[0, 1:]
        assert [name for name, _ in ours.tokens] == backbone.tokenizer.convert_ids_to_tokens(said)
        assert ours.tokens[-1][0] == "</s>"
        lengths.append(len(said))
    assert len(set(lengths)) == 2


def test_a_text_too_long_is_cut_as_in_training(cli: Cli, finished: Path, tmp_path: Path) -> None:
    record = {"question": "is it red", "passage": "the lamp is red . " * 200}
    (tmp_path / "asked.jsonl").write_text(json.dumps(record) + "\n")
    done = cli("predict", f"run={finished}", f"input={tmp_path}/asked.jsonl", "task.source_length=50", "--json")
    assert json.loads(done.out)["cut"] > 700


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["text=x", "input=y"], "both say what to answer"),
        (["input=/nowhere.txt"], "input=/nowhere.txt: no such file"),
        (["input=/etc/hosts"], "the name must end in one of .jsonl"),
        (["text=x", "output=answers.md"], "the name must end in .jsonl or .txt or .csv or .tsv"),
        (["text=x", "--max-new-tokens", "few"], "max-new-tokens=few: expected a whole number"),
        (
            ["text=x", "max-new-tokens=1000000"],
            "max-new-tokens=1000000: expected a whole number, at least 0 and at most 1",
        ),
        (["text=x", "task.max_new_tokens=1000000"], "task.max_new_tokens=1000000: must be at most 100000"),
        (["text=x", "--beam", "3"], "--beam: unknown option"),
        (
            ["input={folder}/asked.jsonl"],
            "line 1: 'question' is missing; expected a text or a number, or the whole source as 'text'",
        ),
    ],
)
def test_bad_input_ends_in_one_line(cli: Cli, finished: Path, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "asked.jsonl").write_text('{"premise": "x"}\n')
    done = cli("predict", f"run={finished}", *(word.format(folder=tmp_path) for word in words))
    assert done.status == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
