"""Examples with any number of labels: how records and answers are read, and scores that are scikit-learn's."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from fpt.config.compose import load
from fpt.errors import UserError
from fpt.tasks.metrics import set_scores
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task
from tests.conftest import Outcome

LABELS = ["toxic", "severe toxic", "insult", "threat"]
HAD: list[list[str]] = [["insult", "toxic"], [], ["threat"], ["toxic", "insult"], ["severe toxic", "toxic"], []]


def words(file: Path, *more: str) -> list[str]:
    files = [f"task.train={file}", f"task.valid={file}", "task.source='{text}'", "task.target='{is}'"]
    return ["task=files", *files, "task.labels=[toxic, severe toxic, insult, threat]", "task.multilabel=true", *more]


def saved(folder: Path, had: list[Any], ending: str = "jsonl") -> Path:
    file = folder / f"a.{ending}"
    rows = [{"text": f"{index}", "is": labels} for index, labels in enumerate(had)]
    with file.open("w") as stream:
        if ending == "jsonl":
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(stream, ["text", "is"])
            writer.writeheader()
            writer.writerows(rows)
    return file


def opened(folder: Path, *more: str, had: list[Any] = HAD) -> Task:
    return open_task(load(words(saved(folder, had), *more)))


TARGETS = ["toxic, insult", "none", "threat", "toxic, insult", "toxic, severe toxic", "none"]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_lists_and_texts_with_commas_become_targets_in_the_labels_order(tmp_path: Path, ending: str) -> None:
    had = HAD if ending == "jsonl" else [",".join(labels) for labels in HAD]
    task = open_task(load(words(saved(tmp_path, had, ending))))
    assert [example.target.removeprefix("<extra_id_0> ") for example in task.train] == TARGETS
    assert [example.golds for example in task.train] == [(target,) for target in TARGETS]
    assert (task.metric, task.labels, task.classes) == ("micro_f1", tuple(LABELS), ())


def test_values_stand_for_label_words(tmp_path: Path) -> None:
    """Also a value with a comma, and a word for two values; `none` says that there is no label."""
    more = "task.labels={0: sport, '1': food, 'eat, drink': food}"
    task = opened(tmp_path, more, had=[[1, 0], "0", "eat, drink", ["eat, drink", 1], "none", " , "])
    assert [example.golds[0] for example in task.train] == ["sport, food", "sport", "food", "food", "none", "none"]


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("insult, toxic", "toxic, insult"),
        (" INSULT,Toxic ,toxic,", "toxic, insult"),
        ("none", "none"),
        ("None ", "none"),
        ("toxic none", "toxic none"),
        ("none, toxic", "toxic, none"),
        ("rude, toxic", "toxic, rude"),
        ("", ""),
        (" , ", ""),
    ],
)
def test_an_answer_is_read_as_a_set_and_what_is_no_label_is_wrong(tmp_path: Path, said: str, read: str) -> None:
    task = opened(tmp_path)
    answer = task.from_text(said)
    assert answer == read
    assert task.correct is not None
    assert [task.correct(answer, example) for example in task.train] == [read == gold for gold in TARGETS]
    assert (task.score([answer] * 6, task.valid)["subset_accuracy"] > 0) == (read in TARGETS)


def expected(answers: list[set[str]], golds: list[set[str]]) -> dict[str, float]:
    """What scikit-learn says, to which whatever is no label is a label of its own."""
    others = sorted(set().union(*answers) - set(LABELS))
    said, had = (MultiLabelBinarizer(classes=[*LABELS, *others]).fit_transform(sets) for sets in (answers, golds))
    only = len(LABELS)
    return {
        "micro_f1": 100 * f1_score(had, said, average="micro", zero_division=0),
        "macro_f1": 100 * f1_score(had[:, :only], said[:, :only], average="macro", zero_division=0),
        "subset_accuracy": 100 * accuracy_score(had, said),
    }


@pytest.mark.parametrize("seed", range(20))
def test_scores_are_scikit_learns(seed: int) -> None:
    """Of sets some of which are empty, and of answers with garbage; a label may never occur."""
    drawn = random.Random(seed)
    some = LABELS[: drawn.randint(1, 4)]
    golds = [set(drawn.sample(some, drawn.randint(0, len(some)))) for _ in range(30)]
    said = [*some, "garbage", ""]
    answers = [gold if drawn.random() < 0.4 else set(drawn.sample(said, drawn.randint(0, len(said)))) for gold in golds]
    assert set_scores(answers, golds, LABELS) == pytest.approx(expected(answers, golds))


def test_without_any_label_there_is_no_f1() -> None:
    assert set_scores([set()], [set()], LABELS) == expected([set()], [set()])
    assert set_scores([set()], [set()], LABELS)["subset_accuracy"] == 100


def test_texts_are_scored_as_sets(tmp_path: Path) -> None:
    task = opened(tmp_path, "task.metric=macro_f1")
    answers = ["insult, toxic", "", "threat, rude", "toxic", "none", "none"]
    sets = [{"insult", "toxic"}, {""}, {"threat", "rude"}, {"toxic"}, set(), set()]
    scores = task.score([task.from_text(answer) for answer in answers], task.valid)
    assert scores == pytest.approx(expected(sets, [set(labels) for labels in HAD]))
    assert (task.metric, task.baseline_name) == ("macro_f1", "most common set of labels")
    assert task.majority == pytest.approx(task.score(["none"] * 6, task.valid)["macro_f1"])


def test_examples_are_parted_and_drawn_without_regard_to_labels(tmp_path: Path) -> None:
    had = [*HAD * 5, ["threat", "insult"]]
    task = opened(tmp_path, "task.valid=null", had=had)
    assert (len(task.train), len(task.valid)) == (28, 3)
    assert len(opened(tmp_path, "task.shots=5", had=had).train) == 5


def test_a_test_file_may_lack_the_column_but_an_empty_cell_is_an_answer(tmp_path: Path) -> None:
    file = saved(tmp_path, HAD)
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"text": "a"}\n{"text": "b"}\n')
    tests = [open_task(load(words(file, f"task.test={test}"))).test for test in (bare, file)]
    assert [example.golds for example in tests[0]] == [(), ()]
    assert [example.golds[0] for example in tests[1]] == TARGETS


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["task.labels=null"], r"task\.multilabel=True: is for tasks with labels; give task\.labels"),
        (["task.labels=[toxic, 'a, b']"], r"the label word 'a, b': with task\.multilabel=true commas part labels"),
        (["task.labels=[toxic, None]"], "the label word 'None': .* none stands for no label; give another word"),
        (["task.metric=accuracy"], r"with task\.multilabel=true, allowed are micro_f1, macro_f1, subset_accuracy"),
        (["task.multilabel=false", "task.metric=micro_f1"], "with 4 label words, allowed are accuracy, macro_f1"),
        (["task.answer=score"], r"task\.answer=score: is for examples with one label each, unlike those of files"),
        (["task.class_weights=balanced"], "is for examples with one label each, unlike those of files; leave it out"),
        (["task.labels=[toxic, insult]"], r"line 3: the label {is} is 'threat'; expected toxic or insult, as in"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, more: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        opened(tmp_path, *more)
    assert "\n" not in str(caught.value)


def test_it_is_for_ones_own_files() -> None:
    with pytest.raises(UserError, match=r"task\.multilabel=True: is for task=files, not for boolq"):
        open_task(load(["task=boolq", "task.multilabel=true"]))


def test_fpt_show_counts_every_label(cli: Any, tmp_path: Path) -> None:
    done: Outcome = cli("show", *words(saved(tmp_path, HAD)), "n=0", "--json")
    assert done.status == 0, done.err
    train = json.loads(done.out)["splits"][0]
    assert train["labels"] == {"toxic": 3, "severe toxic": 1, "insult": 2, "threat": 1, "none": 2}


def test_a_model_that_says_one_word_refuses_it(cli: Any, tmp_path: Path) -> None:
    done: Outcome = cli("plan", *words(saved(tmp_path, HAD)), "model=roberta-large")
    assert done.status == 2
    assert "answers by one label at a mask, unlike files; take a model that writes" in done.err
