"""The gallery in small: prompts with their cards, runs that start from them, and nothing done twice."""

import re
from pathlib import Path

import pytest

from bench import gallery, records
from fpt.prompts.files import open_prompt


@pytest.mark.slow
def test_it_trains_keeps_and_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(gallery, "RECORDS", records.Records("gallery"))
    words = ["--tasks", "boolq", "mnli", "--updates", "3", "--jobs", "1"]
    gallery.main(words)
    page = capsys.readouterr().out
    assert "with 3 updates of 32" in page
    for task in ("boolq", "mnli"):
        kept = tmp_path / "examples" / "gallery" / task
        assert open_prompt(kept / "prompt.safetensors").arrays["prompt"].shape == (20, 128)
        assert "accuracy" in (kept / "README.md").read_text()
        record = gallery.RECORDS[f"{task}-to-{'mnli' if task == 'boolq' else 'boolq'}"]
        assert "prompt.init=file" in record["words"]
    starts = page.partition("| start |")[2]  # behind the table of the prompts themselves
    rows = re.findall(r"^\| (own start|boolq|mnli) \| (.*) \|$", starts, re.MULTILINE)
    assert [(name, cells.count("(")) for name, cells in rows] == [("own start", 2), ("boolq", 1), ("mnli", 1)]
    for folder in (tmp_path / "runs" / "gallery").iterdir():
        (folder / "result.json").unlink(missing_ok=True)  # what is kept is not run again, nor read
    gallery.main(words)
    assert capsys.readouterr().out == page


def test_runs_are_told_where_they_start() -> None:
    assert gallery.transfer_words(None, "mnli", 120) == gallery.words("mnli", 40)
    assert gallery.transfer_words("boolq", "mnli", 120)[-2:] == [
        "prompt.file=examples/gallery/boolq/prompt.safetensors",
        "prompt.init=file",
    ]
