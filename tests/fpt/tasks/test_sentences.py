"""MPQA, MR, Subj and TREC from the files people have, LPT's texts and words, and what a user may say otherwise."""

from pathlib import Path

import pytest

from fpt.config.compose import load
from fpt.errors import UserError
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task

TREC = (
    b"DESC:manner How did serfdom develop in and then leave Russia ?\n"
    b"ENTY:cremat What films featured the character Popeye Doyle ?\n"
    b"ABBR:exp What is the full form of .com ?\n"
    b"HUM:ind Who was Camp David named for , caf\xe9 ?\n"  # Latin-1, as the original
    b"LOC:other Where is it ?\n"
    b"NUM:date When was it ?\n"
)


def opened(name: str, folder: Path, *words: str) -> Task:
    return open_task(load([f"task={name}", f"task.data={folder}", *words]))


def pairs(task: Task) -> list[tuple[str, str]]:
    return [(example.source, example.golds[0]) for example in task.train]


def test_trecs_own_files(tmp_path: Path) -> None:
    (tmp_path / "train_5500.label").write_bytes(TREC)
    (tmp_path / "TREC_10.label").write_bytes(TREC[:63])
    task = opened("trec", tmp_path)
    words = ["description", "entity", "abbreviation", "human", "location", "number"]
    assert [gold for _, gold in pairs(task)] == words
    assert task.train[0].source == "sentence: How did serfdom develop in and then leave Russia ?"
    assert task.train[3].source == "sentence: Who was Camp David named for , café ?"
    assert len(task.valid) == 1
    worded = opened("trec", tmp_path, "task.template=lpt")
    assert worded.train[0].source == "{mask} : How did serfdom develop in and then leave Russia ?"
    assert worded.train[2].target == "<extra_id_0> Expression"


@pytest.mark.parametrize(
    ("files", "content"),
    [
        (("train.tsv", "dev.tsv"), '1\tit is "good" , really\n0\tbad\n'),
        (("train.tsv", "test.tsv"), 'label\ttext\n1\tit is "good" , really\n0\tbad\n'),
        (("train.csv", "test.csv"), '1,"it is ""good"" , really"\n0,bad\n'),
        (("train.txt", "test.txt"), '1 it is "good" , really\n\n0 bad\n'),
        (("rt-polarity.all", "test.txt"), '1 it is "good" , really\n0 bad\n'),
    ],
)
def test_every_form_says_the_same(tmp_path: Path, files: tuple[str, str], content: str) -> None:
    for name in files:
        (tmp_path / name).write_text(content)
    task = opened("mr", tmp_path)
    assert pairs(task) == [('sentence: it is "good" , really', "positive"), ("sentence: bad", "negative")]
    assert len(task.valid) == 2
    worded = opened("mr", tmp_path, "task.template=lpt")
    assert pairs(worded)[1] == ("bad . It was {mask} .", "terrible")


@pytest.mark.parametrize(("task", "file"), [("mr", "rt-polarity.all"), ("mpqa", "mpqa.all"), ("subj", "subj.all")])
def test_of_one_file_alone_a_part_is_for_validation(tmp_path: Path, task: str, file: str) -> None:
    (tmp_path / file).write_text("".join(f"{number % 2} number {number}\n" for number in range(40)))
    found = opened(task, tmp_path)
    assert (len(found.train), len(found.valid)) == (36, 4)
    assert found.notes == (
        f"{tmp_path / file}: 4 of its 40 examples are for validation, drawn with the seed, as there is no other file",
    )
    assert opened(task, tmp_path, "seed=1").valid != found.valid
    expected = "subjective" if task == "subj" else "negative"
    assert found.train[0].golds == (expected,)


def test_few_validation_examples_of_a_sorted_file_have_every_label(tmp_path: Path) -> None:
    (tmp_path / "subj.all").write_text("".join(f"{number // 200} number {number}\n" for number in range(400)))
    whole, few = opened("subj", tmp_path), opened("subj", tmp_path, "task.valid_examples=20")
    assert len(few.valid) == 20
    assert {example.golds for example in few.valid} == {("subjective",), ("objective",)}
    assert set(few.valid) < set(whole.valid)


def test_the_first_examples_of_a_sorted_file_lack_a_label_which_is_said(tmp_path: Path) -> None:
    (tmp_path / "subj.all").write_text("".join(f"{number // 200} number {number}\n" for number in range(400)))
    first = opened("subj", tmp_path, "task.train_examples=150").notes[-1]
    assert first.startswith(
        "no training example has the label objective: a sorted file begins with others; task.shots=N"
    )
    assert not any("no training example" in note for note in opened("subj", tmp_path, "task.shots=20").notes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1\tgood\n2\tbad\n", "train.tsv, line 2: the label {label} is '2'; expected 0 or 1"),
        ("1\tgood\n0\n", "train.tsv, line 2: 1 columns, expected 2: label, text"),
        ("1\tgood\n0\t \n", "train.tsv, line 2: 1 columns, expected 2: label, text"),
    ],
)
def test_a_line_of_another_form_is_named(tmp_path: Path, content: str, said: str) -> None:
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        opened("mr", tmp_path)
    assert said in str(caught.value)


def test_the_hub_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match=r"task\.data=hub: subj is not read from the Hub; give a folder with train\.ts"):
        open_task(load(["task=subj"]))


def words_of(*more: str) -> tuple[str, ...]:
    return open_task(load(["task.data=world", "task.train_examples=20", "task.valid_examples=20", *more])).labels


def test_a_labels_word_is_a_setting() -> None:
    assert words_of("task=mnli") == ("entailment", "neutral", "contradiction")
    assert words_of("task=mnli", "task.labels={neutral: perhaps}") == ("entailment", "perhaps", "contradiction")
    assert words_of("task=mnli", "task.labels={entailment: Yes, neutral: 0}") == ("Yes", "0", "contradiction")
    assert words_of("task=mnli", "task.template=lpt", "task.labels={neutral: Well}") == ("Yes", "Well", "No")
    task = open_task(load(["task=mnli", "task.data=world", "task.train_examples=20", "task.labels={neutral: perhaps}"]))
    assert {example.target for example in task.train} >= {"<extra_id_0> perhaps"}
    assert task.origin.startswith("generated, land 0")  # what else was said still holds


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["task=mnli", "task.labels={netural: x}"],
            "task.labels={netural: …}: mnli has entailment, neutral, contra",
        ),
        (
            ["task=mnli", "task.labels={neutral: Entailment}"],
            "'entailment' and 'Entailment' differ only in case",
        ),
        (["task=mnli", "task.labels={neutral: entailment}"], "two labels have the word 'entailment'"),
        (["task=mnli", "task.labels={neutral: ' x'}"], "the label word ' x' is empty, or has white space around it"),
        (["task=xsum", "task.labels={yes: x}"], "task.labels: xsum has no labels; leave it out"),
        (["task=mnli", "task.template=lpd"], "whose named texts are lpt"),
        (["task=boolq", "task.template=lpt"], "task.template=lpt: names no field; boolq has question, passage"),
    ],
)
def test_words_and_texts_that_cannot_be_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        words_of(*words)
    assert said in str(caught.value)


def test_the_published_texts() -> None:
    """As the published processors put them, with T5's sentinel for the mask."""
    task = open_task(load(["task=mnli", "task.data=world", "task.valid_examples=1", "task.template=lpt"]))
    plain = open_task(load(["task=mnli", "task.data=world", "task.valid_examples=1"]))
    hypothesis, _, premise = plain.valid[0].source.removeprefix("hypothesis: ").partition(" premise: ")
    assert task.valid[0].source == f"{premise} ? {{mask}} , {hypothesis}"
    qqp = open_task(load(["task=qqp", "task.data=world", "task.valid_examples=1", "task.template=lpt"]))
    assert " {mask} , " in qqp.valid[0].source


def test_another_of_the_metrics_may_choose() -> None:
    words = ["task=qqp", "task.data=world", "task.train_examples=20", "task.valid_examples=20"]
    assert open_task(load([*words, "task.metric=f1"])).metric == "f1"
    for name, metric, allowed in (("qqp", "f2", "accuracy, f1"), ("xsum", "rouge1", "rougeL")):
        with pytest.raises(UserError, match=rf"task\.metric={metric}: {name} has {allowed}\."):
            open_task(load([f"task={name}", "task.data=world", f"task.metric={metric}"]))
