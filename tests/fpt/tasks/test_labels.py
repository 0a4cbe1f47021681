"""Label tasks are read as they are distributed, and a line that is wrong is named with its reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fpt.config import compose
from fpt.errors import UserError
from fpt.tasks.benchmarks import TABLE, words_of
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task
from tests.conftest import Outcome, quick_words

GOOD = {"question": "is the lamp red", "passage": "The lamp is red.", "idx": 4, "label": True}


def boolq(folder: Path, *rows: Any, words: tuple[str, ...] = ()) -> Task:
    folder.mkdir(exist_ok=True)
    for name in ("train.jsonl", "val.jsonl"):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        (folder / name).write_bytes(b"\n".join(lines))
    return open_task(compose.load(["task=boolq", f"task.data={folder}", *words]))


def test_a_record_becomes_text(tmp_path: Path) -> None:
    task = boolq(tmp_path, GOOD, {**GOOD, "label": False, "idx": 5}, b"", {**GOOD, "label": 1, "idx": 6})
    assert [example.id for example in task.valid] == ["4", "5", "6"]
    assert task.valid[0].source == "question: is the lamp red passage: The lamp is red."
    assert [example.target for example in task.train] == ["<extra_id_0> yes", "<extra_id_0> no", "<extra_id_0> yes"]
    assert task.majority == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"{", "not JSON"),
        (b'{"idx": 1, "label": true, "idx": 2}', "the key 'idx' occurs twice in one object; give it once"),
        (b"[1]", "expected a JSON object, got list"),
        (b'{"question": "\xff"}', "not UTF-8"),
        ({**GOOD, "passage": None}, "'passage' is None"),
        ({key: value for key, value in GOOD.items() if key != "question"}, "'question' is missing"),
        ({**GOOD, "label": "yes"}, "the label {label} is 'yes'; expected false or true or 0 or 1"),
        ({key: value for key, value in GOOD.items() if key != "label"}, "'label' is missing"),
        ({**GOOD, "label": -1}, "the label {label} is '-1'"),
        (b'{"question": "\\ud83d", "passage": "x", "label": true}', "half of a surrogate pair"),
        (b'{"idx": ' + b"9" * 5000 + b"}", "not usable JSON"),
        (b"[" * 100_000, "not usable JSON"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: Any, reason: str) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl, line 2: ") as caught:
        boolq(tmp_path, GOOD, row)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_folder_or_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        open_task(compose.load([f"task.data={tmp_path / 'nowhere'}"]))
    (tmp_path / "train.json").touch()
    with pytest.raises(UserError, match=r"has no train\.jsonl; it has train\.json"):
        open_task(compose.load([f"task.data={tmp_path}"]))
    with pytest.raises(UserError, match="the train split is empty"):
        boolq(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    plain = boolq(tmp_path, GOOD, {**GOOD, "label": False, "idx": 5})
    for name in ("train.jsonl", "val.jsonl"):
        file = tmp_path / name
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    again = open_task(compose.load([f"task.data={tmp_path}"]))
    assert (again.train, again.valid) == (plain.train, plain.valid)


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").mkdir()
    with pytest.raises(UserError, match=r"train\.jsonl: cannot be read"):
        open_task(compose.load([f"task.data={tmp_path}"]))


def test_fewer_examples_on_request(tmp_path: Path) -> None:
    rows = [{**GOOD, "idx": index} for index in range(9)]
    task = boolq(tmp_path, *rows, words=("task.train_examples=4", "task.valid_examples=2"))
    assert (len(task.train), len(task.valid)) == (4, 2)
    generated, whole = (open_task(compose.load(list(words))) for words in (("task.train_examples=40",), ()))
    assert list(generated.train) == list(whole.train)[:40]
    assert len(whole.train) == 4000


def test_the_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(UserError, match=r"task\.data=hub.*task\.data=DIR") as caught:
        open_task(compose.load(["task.data=hub"]))
    assert "\n" not in str(caught.value)


def test_answers_are_read_strictly(tmp_path: Path) -> None:
    task = boolq(tmp_path, GOOD)
    assert [task.from_text(text) for text in ("yes", " Yes ", "yes yes", "", "maybe")] == [
        "yes",
        "yes",
        "yes yes",
        "",
        "maybe",
    ]


MNLI = ["index", "promptID", "sentence1", "sentence2", "label1", "gold_label"]
QQP = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]


def lines(header: list[str], *rows: tuple[str, str, str]) -> str:
    """A GLUE file: the two texts and the label of each row stand in the third to last and before."""
    fillers = [["7", "x"], ["y"]] if header is MNLI else [["9", "1", "2"], []]
    table = [header, *([*fillers[0], first, second, *fillers[1], label] for first, second, label in rows)]
    return "".join("\t".join(row) + "\n" for row in table)


def mnli(folder: Path, text: str, *words: str) -> Task:
    (folder / "train.tsv").write_text(lines(MNLI, ("a", "b", "neutral")))
    (folder / "dev_matched.tsv").write_bytes(text.encode())
    return open_task(compose.load(["task=mnli", f"task.data={folder}", *words]))


def test_mnli_quotes_are_letters_and_unlabelled_rows_are_left_out_on_request(tmp_path: Path) -> None:
    text = lines(MNLI, ('He said "no', "He spoke\r", "entailment"), ("a", "b", "-"), ('c"', "", "contradiction"))
    with pytest.raises(
        UserError, match=r"dev_matched\.tsv, line 3: the label {label} is '-'; .*task\.on_error=skip leaves such out"
    ):
        mnli(tmp_path, text.replace("\n", "\r\n"))
    task = mnli(tmp_path, text.replace("\n", "\r\n"), "task.on_error=skip")
    assert [example.source for example in task.valid] == [
        'hypothesis: He spoke\r premise: He said "no',
        'hypothesis:  premise: c"',
    ]
    assert [example.target for example in task.valid] == ["<extra_id_0> entailment", "<extra_id_0> contradiction"]
    assert [example.id for example in task.valid] == ["0", "2"]
    assert task.labels == ("entailment", "neutral", "contradiction")
    assert [note.partition(":")[0] for note in task.notes] == [
        "task.on_error=skip",
        "no training example has the label entailment, contradiction",
    ]
    assert (task.baseline_name, task.majority) == ("most common label", 0)


def test_mnli_has_two_validation_sets(tmp_path: Path) -> None:
    (tmp_path / "dev_mismatched.tsv").write_text(lines(MNLI, ("other", "b", "neutral")))
    text = lines(MNLI, ("same", "b", "neutral"))
    assert mnli(tmp_path, text).valid[0].source.endswith("premise: same")
    other = mnli(tmp_path, text, "task.valid_split=mismatched")
    assert other.valid[0].source.endswith("premise: other")
    assert other.origin == f"{tmp_path}, mismatched"
    with pytest.raises(UserError, match=r"task\.valid_split=test: mnli has matched, mismatched"):
        mnli(tmp_path, text, "task.valid_split=test")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lines(MNLI, ("a", "b", "maybe")), "line 2: the label {label} is 'maybe'; expected entailment or neutral or"),
        (lines(MNLI, ("a", "b", "neutral"), ("a", "b\tc", "neutral")), "line 3: 7 columns, expected 6"),
        (
            lines(MNLI, ("a", "b", "neutral")).replace("sentence2", "second"),
            "line 2: 'hypothesis' is missing; expected a text",
        ),
        (
            lines(MNLI, ("a", "b", "neutral")).replace("label1", "sentence2"),
            "line 1: 2 columns are called 'sentence2'; give each a name of its own",
        ),
        (lines(MNLI), "the matched split is empty"),
        ("", "the matched split is empty"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        mnli(tmp_path, text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_that_is_torn_apart_is_left_out_on_request(tmp_path: Path) -> None:
    """As some twenty of the 364,000 rows of GLUE's QQP are."""
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text(lines(QQP, ("a", "b", "0")) + "9\t1\t2\ttorn\n9\t1\t2\tc\td\t1\n")
    words = ["task=qqp", f"task.data={tmp_path}"]
    with pytest.raises(UserError, match=r"train\.tsv, line 3: 4 columns, expected 6: .*task\.on_error=skip leaves"):
        open_task(compose.load(words))
    task = open_task(compose.load([*words, "task.on_error=skip"]))
    assert [example.golds for example in task.valid] == [("not_duplicate",), ("is_duplicate",)]
    assert task.notes[0].startswith("task.on_error=skip: 2 skipped: ")


def test_qqp_scores_accuracy_first_and_garbage_is_wrong(tmp_path: Path) -> None:
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text(lines(QQP, ("a", "b", "0"), ("c", "d", "1"), ("e", "f", "0")))
    task = open_task(compose.load(["task=qqp", f"task.data={tmp_path}"]))
    assert task.score(["not_duplicate", "is_duplicate", "not_duplicate"], task.valid) == {"accuracy": 100, "f1": 100}
    assert task.score(["", "x", "0"], task.valid) == {"accuracy": 0, "f1": 0}
    scores = task.score(["x", "is_duplicate", "x"], task.valid)
    assert scores["f1"] == pytest.approx(50)  # two false alarms; as negatives they would have made it 100
    assert task.majority == pytest.approx(200 / 3)


@pytest.mark.trains
def test_a_run_says_what_is_left_out_and_refuses_labels_that_are_cut(
    tmp_path: Path, checkpoint: Path, cli: Callable[..., Outcome]
) -> None:
    mnli(tmp_path, lines(MNLI, ("a", "b", "-"), *[("a", "b", "neutral")] * 4), "task.on_error=skip")
    (tmp_path / "train.tsv").write_text(lines(MNLI, *[("a", "b", "neutral")] * 4))
    quick = quick_words(checkpoint, tmp_path, tmp_path / "run")
    words = ["task=mnli", *quick, "train.updates=8", "task.on_error=skip"]
    cut = cli("train", *words, "task.target_length=2")
    assert (cut.status, len(cut.err.splitlines())) == (2, 1)
    assert "task.target_length=2: cuts the labels of mnli (entailment, neutral" in cut.err
    done = cli("train", *words)
    assert done.status == 0, done.err
    assert "dev_matched.tsv, line 2: the label {label} is '-'" in done.err
    assert "most common label 100.00" in done.out


ROW = {"template", "spare", "words", "target", "metrics", "wordings", "records"}
RECORDS = ["hub", "files", "on_hub", "sizes", "generated", "whole", "revision", "format", "renamed", "header"]


@pytest.mark.parametrize("name", TABLE)
def test_a_row_of_the_table_has_no_key_that_nothing_reads(name: str) -> None:
    row = TABLE[name]
    assert set(row) <= ROW
    assert set(row["records"]) <= set(RECORDS)
    assert "train" in row["records"]["files"]
    for wording in row.get("wordings", {}).values():
        assert set(wording) <= {"template", "spare", "words"}
        assert len(wording["words"]) == len(set(words_of(row).values()))
