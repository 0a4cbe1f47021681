"""A mixture's tasks have settings of their own and weights, and one score; what cannot be is refused in one line."""

import json
import shlex
from pathlib import Path

import pytest

from fpt.cli.arguments import read_task
from fpt.config.compose import load
from fpt.config.mixture import tasks_of
from fpt.errors import UserError
from fpt.runs.progress import Progress
from fpt.tasks.catalogue import most_examples
from fpt.tasks.mixture import counts_of, joined_scores
from fpt.tasks.opening import open_task

OWN = "train: faq.jsonl\nsource: '{q}'\ntarget: '{a}'\nlabels: {red: rouge, blue: bleu}\nmetric: macro_f1\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    rows = [{"q": f"thing {index}", "a": ("red", "blue")[index % 2]} for index in range(40)]
    (tmp_path / "faq.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "faq.yaml").write_text(OWN)
    return tmp_path / "faq.yaml"


def test_each_task_has_its_own_settings_and_those_of_all(own: Path, boolq: Path) -> None:
    words = [f"task.of=[boolq,mnli,{own}]", f"task.data={boolq.parent}", "task.shots=3", "task.target_length=20"]
    config = load(words)
    tasks = {name: part.task for name, part in tasks_of(config).items()}
    assert config.task.name == "mixture"
    assert list(tasks) == ["boolq", "mnli", "faq"]
    assert [task.data for task in tasks.values()] == [str(boolq), f"{boolq.parent}/mnli", "auto"]
    assert [task.valid_split for task in tasks.values()] == ["validation", "matched", "validation"]
    assert {(task.shots, task.target_length, task.source_length) for task in tasks.values()} == {(3, 20, 128)}
    assert (tasks["faq"].train, tasks["faq"].metric) == (str(own.parent / "faq.jsonl"), "macro_f1")


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ("[boolq,mnli]", (128, 10)),
        ("[boolq,xsum]", (128, 512)),
        ("[boolq,{own}]", (128, 128)),
        ("[boolq,mnli] task.target_length=7", (128, 7)),
        ("[boolq,mnli] model=t5-large", (492, 10)),
        ("[boolq,{long}]", (200, 90)),
    ],
)
def test_limits_are_the_longest_of_the_tasks(own: Path, given: str, limits: tuple[int, int]) -> None:
    long = own.with_name("long.yaml")
    long.write_text(OWN + "source_length: 200\ntarget_length: 90\n")
    config = load(f"task.of={given.format(own=own, long=long)}".split())
    assert {(one.task.source_length, one.task.target_length) for one in tasks_of(config).values()} == {limits}
    assert (config.task.source_length, config.task.target_length) == limits


def test_labels_in_a_file_may_be_a_list(own: Path) -> None:
    own.write_text(OWN.replace("{red: rouge, blue: bleu}", "[red, blue]"))
    assert tasks_of(load([f"task.of=[boolq,{own}]"]))["faq"].task.labels == {"red": "red", "blue": "blue"}


def test_a_file_changes_a_named_task(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("name: mnli\nvalid_split: mismatched\ndata: hub\n")
    mnli = tasks_of(load([f"task.of=[boolq,{tmp_path}/other.yaml]", "task.world=plain"]))["mnli"].task
    assert (mnli.valid_split, mnli.data, mnli.world) == ("mismatched", "hub", "plain")


def test_a_task_of_a_run_is_as_it_was_in_the_mixture(own: Path, boolq: Path) -> None:
    config = load([f"task.of=[boolq,{own}]", f"task.data={boolq.parent}", "task.valid_examples=4"])
    for name, part in tasks_of(config).items():
        assert load([f"task={name}"], base=config).task == part.task
    assert load(["task=cb"], base=config).task == load(["task=cb"]).task


@pytest.mark.parametrize(
    ("weights", "counts"),
    [("null", [48, 36]), ("[1,1]", [36, 36]), ("[1,2]", [18, 36]), ("{faq: 1, boolq: 4}", [48, 12])],
)
def test_an_epoch_ends_with_the_first_task_that_has_given_all(
    own: Path, boolq: Path, weights: str, counts: list[int]
) -> None:
    config = load([f"task.of=[boolq,{own}]", f"task.data={boolq.parent}", f"task.weights={weights}"])
    task = open_task(config)
    assert [len(part.train) for part in task.tasks.values()] == [48, 36]
    assert task.counts == counts
    assert (len(task.train), len(task.valid)) == (84, 28)
    assert [example.task for example in task.valid] == ["boolq"] * 24 + ["faq"] * 4


def test_by_default_tasks_weigh_as_many_as_they_have_up_to_a_limit() -> None:
    config = load(["task.of=[boolq,mnli]"])
    assert counts_of(config, [9_427, 392_702]) == [9_427, 392_702]
    assert counts_of(config, [2**21, 2**17]) == [2**19, 2**17]


def test_gain_is_the_mean_above_the_baselines(boolq: Path) -> None:
    task = open_task(load(["task.of=[boolq,mnli]", "task.train_examples=30", "task.valid_examples=10"]))
    scores = joined_scores(task.tasks, [{"accuracy": 80.0}, {"accuracy": 50.0}])
    floors = [scores["boolq.majority"], scores["mnli.majority"]]
    assert floors == [part.majority for part in task.tasks.values()]
    assert scores["gain"] == pytest.approx((80 - floors[0] + 50 - floors[1]) / 2)
    assert list(scores) == ["gain", "boolq.accuracy", "boolq.majority", "mnli.accuracy", "mnli.majority"]


def test_how_many_examples_there_are_is_known_before_they_are_read(own: Path) -> None:
    assert most_examples(load(["task.of=[boolq,mnli]", "task.train_examples=100"])) == (200, 1000)
    assert most_examples(load([f"task.of=[boolq,{own}]"])) == (None, None)


MISTAKES = {
    "task=mixture": ["task.of=[]", "two tasks or more", "task=NAME"],
    "task.of=[boolq]": ["task.of=[boolq]", "two tasks or more"],
    "task.of=[boolq,mnly]": ["task.of=[boolq, mnly]", "allowed are", "FILE.yaml", "Did you mean 'mnli'?"],
    "task.of=[boolq,mixture]": ["task.of=[boolq, mixture]", "allowed are boolq, cb"],
    "task.of=[boolq,files]": ["task.of=[boolq, files]", "FILE.yaml"],
    "task.of=[boolq,boolq]": ["task.of=[boolq, boolq]", "two tasks are called boolq"],
    "task.of=[boolq,nowhere.yaml]": ["nowhere.yaml: no such file"],
    "task.of=boolq": ["task.of=boolq", "expected a list or null"],
    "task=boolq task.of=[cb,mnli]": ["task.of=[cb, mnli]", "is for task=mixture", "task=boolq"],
    "task.weights=[1,2]": ["task.weights=[1, 2]", "is for task=mixture"],
    "task.of=[boolq,mnli] task.weights=[1]": ["task.weights=[1]", "a number for each of boolq, mnli"],
    "task.of=[boolq,mnli] task.weights=[1,-2]": ["task.weights=[1, -2]", "from 0.000001", "for mnli, not -2"],
    "task.of=[boolq,mnli] task.weights=[0,1]": ["task.weights=[0, 1]", "for boolq, not 0"],
    "task.of=[boolq,mnli] task.weights=[1,true]": ["for mnli, not True"],
    "task.of=[boolq,mnli] 'task.weights={boolq: 1, cb: 1}'": [
        "task.weights={boolq: 1, cb: 1}",
        "for each of boolq, mnli",
    ],
    "task.of=[boolq,mnli] 'task.labels={no: nein}'": ["task.labels=", "is for one task", "YAML"],
    "task.of=[boolq,mnli] task.test_split=test": ["task.test_split=test", "this is a mixture; leave it out"],
    "task.of=[boolq,mnli] task.class_weights=balanced": ["task.class_weights=balanced", "is for one task"],
    "task.of=[boolq,squad_v2] task.answer=score": ["task.answer=score", "squad_v2"],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_clear_line(words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_task(load(shlex.split(words)), Progress())
    assert "\n" not in str(caught.value)
    for part in MISTAKES[words]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("of: [boolq, cb]", "sets of; what a task of a mixture can set is name, data"),
        ("name: mnli\nclass_weights: balanced", "sets class_weights"),
        ("name: mnli\ntemplates: x", r"sets templates.*Did you mean 'template'\?"),
        ("- boolq", "cannot be read as settings"),
        ("train: 5", "cannot be read as settings"),
        ("name: [boolq]", "mine.yaml: task.name=.*expected a text"),
        ("target: {answer}", "mine.yaml: task.target=.*expected a text or null; a text that begins with { stands in"),
        ("name: mnli\nlabels: [no, yes]", "mine.yaml: task.labels=.*put them in quotes|labels.*in quotes"),
        ("labels: [[a], b]", "mine.yaml: task.labels="),
    ],
)
def test_a_file_that_is_no_task_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=why):
        tasks_of(load([f"task.of=[boolq,{tmp_path}/mine.yaml]"]))
