"""A test split is read as it is distributed, mostly without labels, and its examples keep their original ids."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fpt.config import compose
from fpt.config.run_config import RunConfig
from fpt.config.schema import TaskConfig
from fpt.errors import UserError
from fpt.tasks.benchmarks import RULES
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task
from tests.fpt.tasks.original_files import CASES, COPA, MULTIRC, PARAGRAPH, SPANS, WIC, jsonl, tsv

MNLI = "index|promptID|pairID|genre|sentence1_parse|sentence1|sentence2"
BOOLQ = {"question": "is it red", "passage": "It is red.", "idx": 70}
PASSAGE = {"text": "Ole met Mira", "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 11}]}
ANSWERED = {"idx": 0, "passage": PASSAGE, "qas": [{"idx": 0, "query": "@placeholder", "answers": [{"text": "Ole"}]}]}
LABELLED = {
    "boolq": jsonl({**BOOLQ, "label": True}),
    "mnli": tsv(f"{MNLI}|label1|gold_label", "9|1|1|x|y|p|h|neutral|neutral"),
    "qqp": tsv("id|qid1|qid2|question1|question2|is_duplicate", "5|1|2|a|b|1"),
    "record": jsonl(ANSWERED),
    **{name: content for name, (content, _, _) in CASES.items()},
}
# The original test file, the id and source of its one example, and the Hub's record of the same.
HELD_OUT: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "boolq": (jsonl(BOOLQ), "70", "question: is it red passage: It is red.", {**BOOLQ, "label": -1}),
    "mnli": (
        tsv(MNLI, "70|1|1|x|y|p|h"),
        "70",
        "hypothesis: h premise: p",
        {"premise": "p", "hypothesis": "h", "label": -1, "idx": 70},
    ),
    "qqp": (
        tsv("id|question1|question2", "70|a|b"),
        "70",
        "question1: a question2: b",
        {"question1": "a", "question2": "b", "label": -1, "idx": 70},
    ),
    "cola": (
        tsv("index|sentence", "70|It fell."),
        "70",
        "sentence: It fell.",
        {"sentence": "It fell.", "label": -1, "idx": 70},
    ),
    "sst2": (tsv("index|sentence", "70|fine "), "70", "sentence: fine ", {"sentence": "fine ", "label": -1, "idx": 70}),
    "mrpc": (
        "\ufeff" + tsv("index|#1 ID|#2 ID|#1 String|#2 String", "70|702|703|It fell.|Down."),
        "70",
        "sentence1: It fell. sentence2: Down.",
        {"sentence1": "It fell.", "sentence2": "Down.", "label": -1, "idx": 70},
    ),
    "stsb": (
        tsv("index|genre|sentence1|sentence2", "70|x|A lamp.|A stone."),
        "70",
        "sentence1: A lamp. sentence2: A stone.",
        {"sentence1": "A lamp.", "sentence2": "A stone.", "label": -1.0, "idx": 70},
    ),
    "qnli": (
        tsv("index|question|sentence", "70|What?|The lamp."),
        "70",
        "question: What? sentence: The lamp.",
        {"question": "What?", "sentence": "The lamp.", "label": -1, "idx": 70},
    ),
    "rte": (
        tsv("index|sentence1|sentence2", "70|a|b"),
        "70",
        "sentence1: a sentence2: b",
        {"sentence1": "a", "sentence2": "b", "label": -1, "idx": 70},
    ),
    "wnli": (
        tsv("index|sentence1|sentence2", "70|a|b"),
        "70",
        "sentence1: a sentence2: b",
        {"sentence1": "a", "sentence2": "b", "label": -1, "idx": 70},
    ),
    "cb": (
        jsonl({"premise": "p", "hypothesis": "h", "idx": 70}),
        "70",
        "hypothesis: h premise: p",
        {"premise": "p", "hypothesis": "h", "label": -1, "idx": 70},
    ),
    "copa": (
        jsonl({**COPA, "idx": 70}),
        "70",
        "choice1: It broke. choice2: It sang. premise: It fell. question: effect",
        {**COPA, "label": -1, "idx": 70},
    ),
    "multirc": (
        jsonl(
            {
                "idx": 4,
                "passage": {
                    "text": MULTIRC["passage"]["text"],
                    "questions": [{"question": "What broke?", "idx": 7, "answers": [{"text": "He", "idx": 2}]}],
                },
            }
        ),
        "4-7-2",
        f"question: What broke? answer: He {PARAGRAPH}",
        {
            "paragraph": MULTIRC["passage"]["text"],
            "question": "What broke?",
            "answer": "He",
            "label": -1,
            "idx": {"paragraph": 4, "question": 7, "answer": 2},
        },
    ),
    "wic": (
        jsonl({**WIC, "idx": 70}),
        "70",
        "sentence1: A lamp. sentence2: Lamp it word: lamp",
        {**WIC, "label": -1, "idx": 70},
    ),
    "wsc": (
        jsonl({"text": "The lamp fell, and then it, too.", "target": SPANS, "idx": 70}),
        "70",
        "text: The * lamp * fell, and then # it #, too.",
        {"text": "The lamp fell, and then it, too.", **SPANS, "label": -1, "idx": 70},
    ),
    "record": (
        jsonl({"idx": 3, "passage": PASSAGE, "qas": [{"idx": 40, "query": "@placeholder waved"}]}),
        "3-40",
        "query: @placeholder waved entities: Ole, Mira passage: Ole met Mira.",
        {
            "query": "@placeholder waved",
            "passage": "Ole met Mira",
            "entities": ["Ole", "Mira"],
            "answers": [],
            "idx": {"passage": 3, "query": 40},
        },
    ),
}


@cache
def composed() -> RunConfig:
    """Composed once: it takes longer than all that is tested here."""
    return compose.load([])


def task_of(name: str, **settings: Any) -> Task:
    valid = {"valid_split": "matched"} if name == "mnli" else {}
    task = TaskConfig(name=name, target_length=10, reduce_decoder=False, **valid, **settings)
    return open_task(replace(composed(), task=task))


def opened(folder: Path, name: str, test: str, split: str = "test", **settings: Any) -> Task:
    source = RULES[name].records
    for each in source.splits.values():
        (folder / each.files[0]).write_text(LABELLED[name])
    (folder / source.splits[split].files[0]).write_text(test)
    return task_of(name, data=str(folder), test_split=split, **settings)


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_test_split_without_labels_is_read_with_its_ids(tmp_path: Path, name: str) -> None:
    content, name_of, source, record = HELD_OUT[name]
    task = opened(tmp_path, name, content, "test_mismatched" if name == "mnli" else "test")
    (example,) = task.test
    assert (example.id, example.source, example.target, example.golds) == (name_of, source, "", ())
    assert task.score_test(["x"]) is None
    form = RULES[name]
    assert form.example(form.records.prepare(record, "x"), "x", is_test=True) == example
    (tmp_path / form.records.splits["train"].files[0]).write_text(content)
    with pytest.raises(UserError, match=r"train\.(tsv|jsonl), line "):  # elsewhere a label that is missing is wrong
        task_of(name, data=str(tmp_path))


def test_every_task_has_a_case() -> None:
    assert set(RULES) - set(HELD_OUT) == {"squad_v2", "xsum", "mpqa", "mr", "subj", "trec"}


def test_a_test_split_with_labels_is_scored(tmp_path: Path) -> None:
    rows = [{**BOOLQ, "idx": index, "label": index == 70} for index in (70, 30)]
    task = opened(tmp_path, "boolq", jsonl(*rows))
    assert [(example.id, example.golds) for example in task.test] == [("70", ("yes",)), ("30", ("no",))]
    assert task.score_test(["yes", "yes"]) == {"accuracy": 50}
    labelled = tsv("index|Quality|#1 ID|#2 ID|#1 String|#2 String", "70|1|1|2|a|b")
    assert opened(tmp_path, "mrpc", labelled).score_test(["equivalent"]) == {"accuracy": 100, "f1": 100}


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize(("labels", "lines"), [((True, None, None), (1, 2)), ((None, None, False), (3, 1))])
def test_some_labels_are_refused_with_the_first_of_each(
    tmp_path: Path, on_error: str, labels: tuple[bool | None, ...], lines: tuple[int, int]
) -> None:
    rows = [{**BOOLQ, "idx": index, "label": label} for index, label in enumerate(labels)]
    reason = rf"test\.jsonl, line {lines[0]}: has a label .*test\.jsonl, line {lines[1]} has none; .*add those"
    with pytest.raises(UserError, match=reason) as caught:
        opened(tmp_path, "boolq", jsonl(*rows), on_error=on_error)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("boolq", jsonl({**BOOLQ, "label": 3}), "test.jsonl, line 1: the label {label} is '3'; expected false or true"),
        ("boolq", jsonl({"question": "x"}), "test.jsonl, line 1: 'passage' is missing"),
        ("boolq", jsonl(BOOLQ, BOOLQ), "test.jsonl, line 2: the id '70' occurs a second time"),
        ("boolq", "", "the test split is empty"),
        (
            "rte",
            tsv("index|sentence1", "0|a"),
            "test.tsv, line 2: 'sentence2' is missing; expected a text or a number. It has index",
        ),
        ("record", jsonl({**ANSWERED, "qas": [{"query": "x", "answers": None}]}), "'answers' is None; expected a list"),
    ],
)
def test_what_is_wrong_in_it_is_named(tmp_path: Path, name: str, content: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        opened(tmp_path, name, content)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("mnli", {"test_split": "test"}, "task.test_split=test: mnli has test_matched, test_mismatched."),
        ("boolq", {"test_split": "tests"}, "task.test_split=tests: boolq has test. Did you mean 'test'?"),
        ("boolq", {"test_split": ""}, "task.test_split=: boolq has test."),
        ("squad_v2", {"test_split": "test", "data": "hub"}, "squad_v2 has no public test split; leave it out, or give"),
        (
            "boolq",
            {"test": "a.jsonl"},
            "task.test=a.jsonl: is for task=files, not for boolq; give task.test_split=test",
        ),
    ],
)
def test_a_split_that_is_not_there_is_named(name: str, settings: dict[str, str], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        task_of(name, **settings)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_test_file_is_named(tmp_path: Path) -> None:
    opened(tmp_path, "boolq", jsonl(BOOLQ))
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(UserError, match=r"has no test\.jsonl; it has train\.jsonl, val\.jsonl"):
        task_of("boolq", data=str(tmp_path), test_split="test")
    assert task_of("boolq", data=str(tmp_path)).test == []


@pytest.mark.parametrize("name", [name for name, form in RULES.items() if form.records.generated])
def test_a_generated_test_split_is_another_than_the_validation_split(name: str) -> None:
    split = "test_matched" if name == "mnli" else "test"
    task = task_of(name, train_examples=20, valid_examples=500, test_split=split)
    assert len(task.test) == 500
    shared = {example.source for example in task.test} & {example.source for example in task.valid}
    assert len(shared) < 10  # of QQP's short pairs, a few are drawn twice
    golds = [example.golds[0] or "no answer" for example in task.test]
    scores = task.score_test([task.from_text(gold) for gold in golds])
    assert scores is not None
    assert scores[task.metric] == pytest.approx(100)


def rte(folder: Path, **content: Any) -> Task:
    for name, rows in content.items():
        (folder / f"{name}.jsonl").write_text(jsonl(*rows))
    return task_of("rte", data=str(folder), test_split="test")


def test_superglues_rte_is_read_too(tmp_path: Path) -> None:
    row = {"premise": "It fell.", "hypothesis": "It sang.", "idx": 8}
    labelled = [{**row, "label": "not_entailment"}, {**row, "label": "entailment", "idx": 9}]
    task = rte(tmp_path, train=labelled, val=labelled, test=[row])
    shown = [(example.id, example.source, example.golds) for example in (*task.valid, *task.test)]
    source = "sentence1: It fell. sentence2: It sang."
    assert shown == [("8", source, ("not_entailment",)), ("9", source, ("entailment",)), ("8", source, ())]
    with pytest.raises(
        UserError, match=r"val\.jsonl, line 1: the label {label} is 'maybe'; expected entailment or not_"
    ):
        rte(tmp_path, val=[{**row, "label": "maybe"}])
    other = json.dumps(row).replace("premise", "text")
    (tmp_path / "val.jsonl").write_text(other)
    with pytest.raises(UserError, match=r"val\.jsonl, line 1: 'sentence1' is missing"):
        task_of("rte", data=str(tmp_path))
