"""XSum is read as it is distributed, and its baseline is the document's first sentence."""

import json
from pathlib import Path
from typing import Any

import pytest

from fpt.config import compose
from fpt.errors import UserError
from fpt.tasks.answers import most_common
from fpt.tasks.opening import open_task
from fpt.tasks.task import Example, Task

GOOD = {"document": "The lamp fell. It broke.\nNobody saw it.", "summary": "The lamp fell", "id": "17"}


def xsum(folder: Path, *rows: Any, valid: str = "validation.jsonl") -> Task:
    for name in ("train.jsonl", valid):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_task(compose.load(["task=xsum", f"task.data={folder}"]))


@pytest.mark.parametrize("valid", ["validation.jsonl", "val.jsonl"])
def test_a_document_becomes_text(tmp_path: Path, valid: str) -> None:
    task = xsum(tmp_path, GOOD, valid=valid)
    assert task.valid[0].source == f"summarize: {GOOD['document']}"
    assert (task.valid[0].target, task.valid[0].golds) == ("<extra_id_0> The lamp fell", ("The lamp fell",))
    assert task.correct is None


def test_the_baseline_is_the_first_sentence(tmp_path: Path) -> None:
    task = xsum(tmp_path, GOOD, {**GOOD, "document": "A stone\nThe lamp fell.", "id": "18"})
    assert task.baseline_name == "first sentence"
    assert task.majority == pytest.approx(50)
    assert task.score(["The lamp fell", "x"], task.valid) == pytest.approx({"rougeL": 50, "rouge1": 50, "rouge2": 50})


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl, line 2: 'summary' is missing; expected a text"):
        xsum(tmp_path, GOOD, {"document": "x"})
    (tmp_path / "validation.jsonl").rename(tmp_path / "dev.jsonl")
    (tmp_path / "train.jsonl").write_text(json.dumps(GOOD))
    names = r"validation\.jsonl or val\.jsonl"
    with pytest.raises(UserError, match=rf"has no {names}; it has dev\.jsonl, train\.jsonl"):
        open_task(compose.load(["task=xsum", f"task.data={tmp_path}"]))


def test_the_most_common_is_the_first_among_equals() -> None:
    train = [Example("", "", "", (gold,)) for gold in ["no", "yes", "yes", "no", "maybe"]]
    assert most_common("label", train, train[:2]) == ("most common label", ["no", "no"])
    assert most_common("answer", [Example("", "", "", ("",))], train[:1]) == ("always no answer", [""])
