"""GLUE's and SuperGLUE's tasks are read as they are distributed, and the Hub's records give the same."""

from pathlib import Path

import pytest

from fpt.config import compose
from fpt.errors import UserError
from fpt.tasks.benchmarks import RULES
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task
from tests.fpt.tasks.original_files import CASES, MULTIRC, SPANS, jsonl, tsv


def opened(folder: Path, name: str, content: str, *words: str) -> Task:
    for split in RULES[name].records.splits.values():
        (folder / split.files[0]).write_text(content)
    return open_task(compose.load([f"task={name}", f"task.data={folder}", *words]))


@pytest.mark.parametrize("name", CASES)
def test_original_files_and_hub_records_become_text(tmp_path: Path, name: str) -> None:
    content, expected, records = CASES[name]
    task, form = opened(tmp_path, name, content), RULES[name]
    shown = [(example.id, example.source, example.target.removeprefix("<extra_id_0> ")) for example in task.valid]
    assert shown == expected
    hub = [form.example(form.records.prepare(record, "x"), "x") for record in records]
    assert hub == list(task.valid)
    golds = [example.golds[0] for example in task.valid]
    assert task.from_text(f" {golds[0].upper()} ") == golds[0]
    if name not in ("cola", "stsb") and len(set(golds)) > 1:
        assert task.score(golds, task.valid)[task.metric] == 100
    assert not compose.load([f"task={name}"]).task.reduce_decoder


def test_every_task_with_labels_has_a_case() -> None:
    elsewhere = {"boolq", "mnli", "qqp", "squad_v2", "record", "xsum", "mpqa", "mr", "subj", "trec"}
    assert set(RULES) - set(CASES) == elsewhere


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("cola", ["matthews", "accuracy"]),
        ("mrpc", ["accuracy", "f1"]),
        ("stsb", ["pearson", "spearman"]),
        ("cb", ["accuracy", "macro_f1"]),
        ("multirc", ["f1a", "grouped_exact_match", "accuracy"]),
        ("wnli", ["accuracy"]),
    ],
)
def test_the_benchmarks_own_metric_is_the_main_one(tmp_path: Path, name: str, metrics: list[str]) -> None:
    task = opened(tmp_path, name, CASES[name][0])
    assert list(task.score(["x"] * len(task.valid), task.valid)) == metrics
    assert task.metric == metrics[0]


def test_multirc_counts_a_question_once(tmp_path: Path) -> None:
    other = {**MULTIRC, "idx": 5}
    task = opened(tmp_path, "multirc", jsonl(MULTIRC, other))
    assert len({example.group for example in task.valid}) == 2
    scores = task.score(["True", "False", "True", "True"], task.valid)
    assert scores == pytest.approx({"f1a": 80, "grouped_exact_match": 50, "accuracy": 75})


def test_a_wsc_span_that_is_spelt_otherwise_is_marked_by_its_words(tmp_path: Path) -> None:
    spans = {**SPANS, "span1_index": 0, "span1_text": "the Lamp", "span2_index": 4, "span2_text": "it"}
    row = {"text": "The lamp, fell and It, too.", "target": spans, "label": True, "idx": 0}
    assert opened(tmp_path, "wsc", jsonl(row)).valid[0].source == "text: * The lamp, * fell and # It, # too."
    with pytest.raises(UserError, match=r"line 1: span index 9 marks no word in a text of 6 words"):
        opened(tmp_path, "wsc", jsonl({**row, "target": {**spans, "span2_index": 9}}))


def test_stsb_reads_numbers_and_takes_garbage_as_far_off(tmp_path: Path) -> None:
    task = opened(tmp_path, "stsb", CASES["stsb"][0])
    assert [example.golds for example in task.valid] == [("4.467",), ("0.5",)]
    assert task.score(["4.4", "0.4"], task.valid)["pearson"] == pytest.approx(100)
    assert task.score(["", "none"], task.valid)["pearson"] == pytest.approx(-100)
    assert task.score(["9", "nan"], task.valid) == task.score(["0", "5"], task.valid)
    assert task.score(["3", "3"], task.valid) == {"pearson": 0, "spearman": 0}
    assert (task.baseline_name, task.majority) == ("any constant", 0)
    with pytest.raises(UserError, match=r"line 2: the target {label} is 'high'; expected a number from 0 to 5"):
        opened(tmp_path, "stsb", CASES["stsb"][0].replace("4.467", "high"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cola", tsv("gj04|1"), "line 1: 2 columns, expected 4: source, label, star, sentence"),
        ("cola", tsv("gj04|2||x"), "line 1: the label {label} is '2'; expected 0 or 1"),
        (
            "qnli",
            tsv("index|question|sentence|label", "0|q|s|yes"),
            "line 2: the label {label} is 'yes'; expected entailment or",
        ),
        ("wsc", jsonl({"text": "x", "target": 3, "label": True}), "line 1: 'target.span1_text' is missing"),
        ("multirc", jsonl({"passage": {"text": "x"}}), "line 1: 'passage.questions' is missing; expected a list"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, content: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        opened(tmp_path, name, content)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_generator_the_way_out_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no generated data for this task; give a folder with train\.tsv and dev\.tsv"):
        open_task(compose.load(["task=cola", "task.data=world"]))
