"""Several prompts on one model answer as each alone, and several processes as one."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fpt.__main__ import main
from fpt.backbones.shapes import Selection, StackSelection
from fpt.config.compose import load
from fpt.config.schema import PromptConfig
from fpt.errors import UserError
from fpt.runs.run import open_run
from fpt.tasks.catalogue import rules_of
from fpt.tasks.fields import Faults
from fpt.tasks.predict_input import by_prompt, raw_example, rows_and_examples
from stages.using.learned import LearnedPrompt, from_run, predictor
from tests.conftest import Outcome
from tests.families import WIDTH, save_family
from tests.processes import Command, in_processes

Cli = Callable[..., Outcome]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def asked(two_runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of both tasks by turns, each naming its prompt, some by the fields of its template."""
    rows: Rows = [{"prompt": "boolq", "question": "is the lamp red", "passage": "The lamp is red."}]
    for name, run in two_runs.items():
        lines = (run / "predictions.jsonl").read_text().splitlines()[:12]
        rows += [{"prompt": name, "text": json.loads(line)["input"]} for line in lines]
    rows = [row for pair in zip(rows, reversed(rows), strict=True) for row in pair]
    file = tmp_path_factory.mktemp("asked") / "asked.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def both(runs: dict[str, Path]) -> str:
    return "run=" + ",".join(map(str, runs.values()))


def answers(cli: Cli, *words: str) -> Rows:
    done = cli("predict", *words, "--json")
    assert done.status == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


WAYS = [
    ["max-new-tokens=2", "train.eval_batch=3"],
    ["task.answer=score", "train.eval_batch=7"],
    pytest.param([], marks=pytest.mark.slow),
]


@pytest.mark.parametrize("more", WAYS)
def test_each_row_is_answered_as_by_its_prompt_alone(
    cli: Cli, two_runs: dict[str, Path], asked: Path, tmp_path: Path, more: list[str]
) -> None:
    found = answers(cli, both(two_runs), f"input={asked}", *more)
    names = [json.loads(line)["prompt"] for line in asked.read_text().splitlines()]
    assert [row["prompt"] for row in found] == names
    assert len({row["answer"] for row in found}) > 3
    for name, run in two_runs.items():
        own = tmp_path / f"{name}.jsonl"
        own.write_text("".join(line + "\n" for line in asked.read_text().splitlines() if f'"{name}"' in line))
        alone = answers(cli, f"run={run}", f"input={own}", *more)
        mixed = [row for row in found if row["prompt"] == name]
        for one, other in zip(mixed, alone, strict=True):
            assert [one[key] for key in ("input", "output", "answer")] == [
                other[key] for key in ("input", "output", "answer")
            ]
            assert [token["token"] for token in one["tokens"]] == [token["token"] for token in other["tokens"]]
            assert math.isclose(one["score"], other["score"], abs_tol=1e-4)


def test_one_prompt_scores_its_labels_while_another_generates(two_runs: dict[str, Path], asked: Path) -> None:
    runs = {name: open_run(folder) for name, folder in two_runs.items()}
    learnt = {name: from_run(run, None) for name, run in runs.items()}
    of_all = {name: (load([], base=run.config), learnt[name]) for name, run in runs.items()}
    scored = load(["task.answer=score"], base=runs["boolq"].config), learnt["boolq"]
    reads = by_prompt({name: rules_of(config.task) for name, (config, _) in of_all.items()}, "prompt")
    examples, found = [example for _, example in rows_and_examples(asked, reads, Faults())], []
    for prompts in (of_all, of_all | {"boolq": scored}):
        with predictor(prompts) as mixed:
            found.append(mixed.answer(examples))
    with predictor({"boolq": scored}) as alone:
        said = iter(alone.answer([example for example in examples if example.group == "boolq"]))
    for example, one, other in zip(examples, *found, strict=True):
        wanted = next(said) if example.group == "boolq" else one
        assert (other.prompt, other.input, other.output) == (example.group, wanted.input, wanted.output)
        assert math.isclose(other.score, wanted.score, abs_tol=1e-4)
    assert {one.output for one in found[1] if one.prompt == "boolq"} <= {"no", "yes"}


def test_a_table_of_several_prompts_comes_back_without_what_was_skipped(
    cli: Cli, two_runs: dict[str, Path], asked: Path, tmp_path: Path
) -> None:
    """Rows stay beside their answers, also where one names no prompt, or has not the fields of its prompt's task."""
    rows = [json.loads(line) for line in asked.read_text().splitlines()]
    texts = [(row["prompt"], row["text"]) for row in rows if "text" in row][:6]
    file, output = tmp_path / "asked.tsv", tmp_path / "answers.tsv"
    lines = ["note\tprompt\ttext", *("\t".join([f"n{at}", *pair]) for at, pair in enumerate(texts))]
    file.write_text("\n".join([*lines[:3], "bad\tcola\tx", *lines[3:], "empty\tmnli\t"]) + "\n")
    words = ["predict", both(two_runs), f"input={file}", f"output={output}", "train.eval_batch=1"]
    assert "line 4: 'prompt' is 'cola'; expected the name of a prompt, one of boolq, mnli" in cli(*words).err
    done = cli(*words, "task.on_error=skip")
    assert done.status == 0, done.err
    assert "1 skipped" in done.err
    assert "1 of 7 texts is empty" in done.err
    with output.open(newline="") as stream:
        found = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["note"] for row in found] == [*(f"n{at}" for at in range(6)), "empty"]
    asked_again = [{"prompt": name, "text": text} for name, text in [*texts, ("mnli", "")]]
    (tmp_path / "again.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked_again))
    again = answers(cli, both(two_runs), f"input={tmp_path / 'again.jsonl'}", "train.eval_batch=1")
    assert [row["prediction"] for row in found] == [row["answer"] for row in again]


def test_another_prompt_says_something_else(cli: Cli, two_runs: dict[str, Path], asked: Path, tmp_path: Path) -> None:
    """Names and fields as one likes; the same texts to the other prompt are answered otherwise."""
    rows = [json.loads(line) for line in asked.read_text().splitlines()]
    rows = [{"to": {"boolq": "b", "mnli": "a"}[row["prompt"]], "text": row["text"]} for row in rows if "text" in row]
    (tmp_path / "turned.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [both(two_runs), f"input={tmp_path / 'turned.jsonl'}", "prompt-field=to"]
    found, turned = (answers(cli, *words, f"names={names}") for names in ("a,b", "b,a"))
    assert [row["prompt"] for row in found] == [row["prompt"] for row in turned] == [row["to"] for row in rows]
    assert [row["output"] for row in found] != [row["output"] for row in turned]


def test_two_processes_answer_as_one(cli: Cli, two_runs: dict[str, Path], asked: Path, tmp_path: Path) -> None:
    """To the last bit, since the batches are the same; as torchrun starts them."""
    for words in (
        ["eval", f"run={two_runs['boolq']}", "train.eval_batch=7"],
        ["predict", both(two_runs), f"input={asked}", "train.eval_batch=3"],
    ):
        once, twice = (tmp_path / f"{words[0]}-{number}.jsonl" for number in (1, 2))
        assert cli(*words, f"output={once}").status == 0
        in_processes(2, partial(main, [*words, f"output={twice}"]), tmp_path / words[0] / "said")
        assert twice.read_bytes() == once.read_bytes()


@pytest.mark.slow
def test_two_processes_are_started_and_a_bad_line_ends_both(
    two_runs: dict[str, Path], asked: Path, tmp_path: Path
) -> None:
    """By one command, with the answers before it, and in one clear line, though one process alone reads."""
    file = tmp_path / "bad.jsonl"
    file.write_text(asked.read_text() + '{"prompt": "cola", "text": "x"}\n')
    words = ["predict", both(two_runs), "train.eval_batch=1", f"input={file}", "engine.processes=2"]
    bad = Command(words, tmp_path / "bad")
    out, err = bad.ended(240)
    assert (bad.status, len(out.splitlines())) == (2, 32)
    assert "'prompt' is 'cola'; expected the name of a prompt, one of boolq, mnli" in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["text=x"], "which prompt is a text for? give input=FILE, records with a field 'prompt'"),
        (["input={folder}/lines.txt"], "lines cannot name one of several prompts; give records with a field 'prompt'"),
        (["input={folder}/none.jsonl"], "line 1: no field 'prompt'; expected the name of a prompt, one of boolq, mnli"),
        (["input={folder}/none.jsonl", "prompt-field=text"], "line 1: 'text' is 'x'; expected the name of a prompt"),
        (
            ["input={folder}/none.jsonl", "max-new-tokens=2", "task.answer=score"],
            "max-new-tokens=2: is of generation; with task.answer",
        ),
        (["names=a"], "names=a: 1 names for 2 runs"),
        (["names=a,a"], "expected values parted by commas, each once"),
    ],
)
def test_bad_input_ends_in_one_line(
    cli: Cli, two_runs: dict[str, Path], tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "lines.txt").write_text("x\n")
    (tmp_path / "none.jsonl").write_text('{"text": "x"}\n')
    done = cli("predict", both(two_runs), *(word.format(folder=tmp_path) for word in words))
    assert (done.status, len(done.err.strip().splitlines())) == (2, 1), done.err
    assert said in done.err


def test_prompts_of_another_model_or_precision_are_refused(
    cli: Cli, two_runs: dict[str, Path], finished: Path, asked: Path
) -> None:
    words = ["predict", f"run={two_runs['boolq']},{finished}", "names=boolq,mnli", f"input={asked}"]
    assert "holds vectors of 32, but" in cli(*words).err
    assert "names=…: is for run=A,B" in cli("predict", f"run={finished}", "names=a", "text=x").err
    assert "prompt-field=a: is for run=A,B" in cli("predict", f"run={finished}", "prompt-field=a", "text=x").err


def test_a_causal_model_takes_several_prompts_that_stand_alike(tmp_path: Path) -> None:
    folder = save_family(tmp_path / "llama", "llama")
    config = load([f"model={folder}", "task=boolq"])

    def of_lengths(place: str, *lengths: int) -> dict[str, tuple[Any, LearnedPrompt]]:
        settings = {length: PromptConfig(length=length, place=place) for length in lengths}
        tensors = {length: {"prompt": torch.randn(length, WIDTH)} for length in lengths}
        return {str(length): (config, LearnedPrompt("p", tensors[length], settings[length])) for length in lengths}

    texts = [raw_example(text)._replace(group=name) for text in ("a lamp", "it is red") for name in ("2", "5")]
    for place in ("prefix", "suffix"):
        with predictor(of_lengths(place, 2, 5)) as mixed:
            alone = [mixed.answer([text])[0].output for text in texts]
            assert [one.output for one in mixed.answer(texts)] == alone
    refused = pytest.raises(UserError, match="as a prefix after 0 blocks, and that of p as a suffix after 0 blocks")
    with refused, predictor(of_lengths("suffix", 2) | of_lengths("prefix", 5)):
        pass
    own, prompt = of_lengths("prefix", 5)["5"]
    part = replace(prompt, part=Selection(decoder=StackSelection((0,))))
    refused = pytest.raises(UserError, match="another part of the model than that of p")
    with refused, predictor(of_lengths("prefix", 2) | {"5": (own, part)}):
        pass
