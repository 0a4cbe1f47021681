"""BoolQ is read as it is distributed, and a line that is wrong is named with its reason."""

import json
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import accuracy_score

from fpt import compose, metrics
from fpt.errors import UserError
from fpt.tasks import open_task
from fpt.tasks.task import Task

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
        (b"[1]", "expected a JSON object, got list"),
        (b'{"question": "\xff"}', "not UTF-8"),
        ({**GOOD, "passage": None}, "'passage' is None"),
        ({key: value for key, value in GOOD.items() if key != "question"}, "'question' is missing"),
        ({**GOOD, "label": "yes"}, "'label' is 'yes'; expected false or true"),
        ({key: value for key, value in GOOD.items() if key != "label"}, "'label' is missing"),
        ({**GOOD, "label": -1}, "'label' is -1"),
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
    plain = boolq(tmp_path, GOOD, {**GOOD, "label": False})
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
    assert len(open_task(compose.load(["task.train_examples=4100"])).train) == 4100


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


def test_accuracy_is_scikit_learns_and_garbage_is_wrong() -> None:
    golds = ["yes", "no", "no", "yes", "no"]
    answers = ["yes", "no", "yes", "", "garbage"]
    assert metrics.accuracy(answers, golds) == pytest.approx(100 * accuracy_score(golds, answers))
    assert metrics.accuracy(["", "x"], ["yes", "no"]) == 0
    assert metrics.most_common(["no", "yes", "yes", "no", "maybe"]) == "no"
