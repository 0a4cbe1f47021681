"""XSum is read as it is distributed, and its baseline is the document's first sentence."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fpt.config import compose
from fpt.config.run_config import RunConfig
from fpt.errors import UserError
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task

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
    names = r"validation\.jsonl or val\.jsonl or val\.source or validation\.document"
    with pytest.raises(UserError, match=rf"has no {names}; it has dev\.jsonl, train\.jsonl"):
        open_task(compose.load(["task=xsum", f"task.data={tmp_path}"]))


@cache
def composed() -> RunConfig:
    """Composed once: it takes longer than all that is tested with it."""
    return compose.load(["task=xsum"])


def xsum_of(folder: Path, **settings: Any) -> Task:
    return open_task(replace(composed(), task=replace(composed().task, data=str(folder), **settings)))


def pairs(folder: Path, documents: bytes, summaries: bytes | None, kind: str = "source", **settings: Any) -> Task:
    """The same lines as training and as test split, and one other as validation split."""
    beside, val = {"source": ("target", "val"), "document": ("summary", "validation")}[kind]
    for name, ending, content in (("train", kind, documents), ("test", kind, documents), (val, kind, b"A lamp.\n")):
        (folder / f"{name}.{ending}").write_bytes(content)
    for name, content in (("train", summaries), ("test", summaries), (val, b"a lamp\n")):
        if content is not None:
            (folder / f"{name}.{beside}").write_bytes(content)
    return xsum_of(folder, **settings)


@pytest.mark.parametrize("kind", ["source", "document"])
def test_lines_of_two_files_are_pairs(tmp_path: Path, kind: str) -> None:
    documents = "\ufeffIt fell.\u2028It broke.\r\nA stone.".encode()
    task = pairs(tmp_path, documents, b"it fell\na stone\n", kind, test_split="test")
    expected = [
        ("line 1", "summarize: It fell.\u2028It broke.", ("it fell",)),
        ("line 2", "summarize: A stone.", ("a stone",)),
    ]
    for part in (task.train, task.test):
        assert [(example.id, example.source, example.golds) for example in part] == expected
    assert [example.target for example in task.valid] == ["<extra_id_0> a lamp"]
    for ending in ("target", "summary"):
        (tmp_path / f"test.{ending}").unlink(missing_ok=True)
    assert [example.golds for example in xsum_of(tmp_path, test_split="test").test] == [(), ()]


@pytest.mark.parametrize(
    ("documents", "summaries", "reason", "is_skipped"),
    [
        (b"a\nb\n", b"x\n", "train.target: ends before line 2, which train.source has", False),
        (b"a\n", b"x\ny\nz\n", "train.source: ends before line 2, which train.target has", False),
        (b"a\n", None, "train.source, line 1, without train.target: 'summary' is missing", False),
        (b"a\n \nc\n", b"x\ny\nz\n", "train.source, line 2: the document is empty; expected a text", True),
        (b"a\nb\nc\n", b"x\n\nz\n", "train.target, line 2: the summary is empty; expected a text", True),
        (b"a\n\xff\nc\n", b"x\ny\nz\n", "train.source, line 2: not UTF-8; save the file as UTF-8", True),
        (b"a\nb\nc\n", b"x\n\xff\nz\n", "train.target, line 2: not UTF-8; save the file as UTF-8", True),
    ],
)
def test_a_line_without_its_pair_is_named(
    tmp_path: Path, documents: bytes, summaries: bytes | None, reason: str, is_skipped: bool
) -> None:
    with pytest.raises(UserError) as caught:
        pairs(tmp_path, documents, summaries)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    if is_skipped:
        kept = pairs(tmp_path, documents, summaries, on_error="skip").train
        assert [(example.id, example.golds) for example in kept] == [("line 1", ("x",)), ("line 3", ("z",))]
    else:
        with pytest.raises(UserError, match="train"):
            pairs(tmp_path, documents, summaries, on_error="skip")
