"""One prompt for several tasks: each is scored by its own metric, and used, resumed and gone on from like any other."""

import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from sklearn.metrics import accuracy_score, f1_score

from fpt.__main__ import main
from tests.conftest import Outcome, copied_run, made_once, quick_words, stopped_after

Cli = Callable[..., Outcome]
COLOURS = ("rouge", "bleu", "vert")


def words(checkpoint: Path, boolq: Path, folder: Path) -> list[str]:
    """Overrides for a run on BoolQ and a task of the user's own, whose labels and metric are others."""
    rows = [{"q": f"thing {index} is {COLOURS[index % 3]}", "a": COLOURS[index % 3]} for index in range(45)]
    own = boolq.parent / "faq.yaml"
    (own.parent / "faq.jsonl").write_text("\n".join(map(json.dumps, rows)))
    labels = json.dumps({label: label for label in COLOURS})
    own.write_text(f"train: faq.jsonl\nsource: '{{q}}'\ntarget: '{{a}}'\nmetric: macro_f1\nlabels: {labels}\n")
    quick = quick_words(checkpoint, boolq.parent, folder)
    return [*quick, "task=mixture", f"task.of=[boolq,{own}]", "task.weights=[1,2]", "task.answer=score"]


@pytest.fixture(scope="module")
def mixture(
    trains: None, checkpoint: Path, boolq: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a finished run on a mixture."""

    def train(folder: Path) -> None:
        assert main(["train", *words(checkpoint, boolq, folder)]) == 0

    return copied_run(made_once(shared / "mixture", train), tmp_path_factory.mktemp("mixture") / "run")


def read(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "result.json").read_text()))


def test_each_task_is_scored_by_its_own_metric_and_all_by_their_mean_gain(mixture: Path, boolq: Path) -> None:
    result, of_task = read(mixture), defaultdict[str, list[tuple[str, str]]](list)
    for line in (mixture / "predictions.jsonl").read_text().splitlines():
        row = json.loads(line)
        of_task[row["task"]].append((row["gold"][0], row["answer"]))
        assert row["answer"] in (("no", "yes") if row["task"] == "boolq" else COLOURS)
        assert row["correct"] == (row["answer"] == row["gold"][0])
    golds, answers = zip(*of_task["boolq"], strict=True)
    scores = {"boolq.accuracy": 100 * accuracy_score(golds, answers), "boolq.majority": 50.0}
    golds, answers = zip(*of_task["faq"], strict=True)
    common = min(COLOURS, key=lambda label: (golds.count(label), label))  # of 15 each, the fewest are held out
    macro = partial(f1_score, golds, average="macro", labels=COLOURS, zero_division=0)
    scores["faq.macro_f1"], scores["faq.majority"] = 100 * macro(answers), 100 * macro([common] * len(golds))
    scores["faq.accuracy"] = 100 * accuracy_score(golds, answers)
    scores["gain"] = fmean(
        (scores["boolq.accuracy"] - scores["boolq.majority"], scores["faq.macro_f1"] - scores["faq.majority"])
    )
    assert result["metrics"] == pytest.approx(scores)
    assert result["metric"]["name"] == "gain"
    assert result["metric"]["value"] == result["metrics"]["gain"]
    lines = [json.loads(line) for line in (mixture / "metrics.jsonl").read_text().splitlines()]
    validations = [line for line in lines if line.get("split") == "validation"]
    assert all(set(scores) <= set(line) for line in validations)
    full = [line for line in validations if line["stage"] == 4]
    assert max(line["gain"] for line in full) == result["metrics"]["gain"]


def test_all_tasks_are_scored_again_or_one_of_them(mixture: Path, cli: Cli) -> None:
    metrics = read(mixture)["metrics"]
    assert json.loads(cli("eval", f"run={mixture}", "--json").out)["metrics"] == metrics
    for task, name in (("boolq", "accuracy"), ("faq", "macro_f1")):
        scored = json.loads(cli("eval", f"run={mixture}", f"task={task}", "--json").out)
        assert (scored["metric"], scored["metrics"][name]) == (name, metrics[f"{task}.{name}"])
        assert scored["majority"] == metrics[f"{task}.majority"]


def test_a_text_is_answered_for_one_task(mixture: Path, cli: Cli) -> None:
    assert cli("predict", f"run={mixture}", "task=faq", "text=thing 1").out.strip() in COLOURS
    for asked in (["predict", "text=thing 1"], ["eval", "split=train"], ["serve"]):
        refused = cli(asked[0], f"run={mixture}", *asked[1:])
        assert (refused.status, refused.err.count("\n")) == (2, 1)
        assert "this prompt is of several tasks, boolq, faq; task=NAME says which is meant" in refused.err


def test_its_prompt_is_exported_and_another_run_starts_from_it(
    mixture: Path, quick: list[str], cli: Cli, tmp_path: Path
) -> None:
    assert cli("export", f"run={mixture}", "to=peft", f"output={tmp_path / 'peft'}").status == 0
    assert "| task | mixture of boolq, faq," in (tmp_path / "peft" / "README.md").read_text()
    more = [
        "train.updates=1",
        "schedule=pt",
        "train.score_untrained=true",
        "prompt.init=file",
        f"prompt.file={mixture}",
    ]
    assert cli("train", *quick, *more, "task.answer=score").status == 0
    untrained = read(Path(quick[2].removeprefix("run.dir=")))["untrained"]
    assert untrained == read(mixture)["metrics"]["boolq.accuracy"]


def test_a_stopped_run_ends_as_any_other(mixture: Path, checkpoint: Path, boolq: Path, tmp_path: Path) -> None:
    again = ["train", *words(checkpoint, boolq, tmp_path / "again")]
    with stopped_after(13):
        main(again)
    assert main(again) == 0
    for name in ("prompt.safetensors", "predictions.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (mixture / name).read_bytes()


def test_data_and_plan_are_shown_of_each_task(checkpoint: Path, boolq: Path, cli: Cli, tmp_path: Path) -> None:
    mixed = words(checkpoint, boolq, tmp_path / "run")
    views = json.loads(cli("show", *mixed, "n=1", "--json").out)
    assert [(view["task"], view["splits"][0]["examples"], view["labels"]) for view in views] == [
        ("boolq", 48, ["no", "yes"]),
        ("faq", 41, list(COLOURS)),
    ]
    assert cli("show", *mixed, "n=1").out.count("main metric") == 2
    assert json.loads(cli("plan", *mixed, "--json").out)["task"] == "mixture"
