"""Paths are stored so that they are relocated from anywhere, also when the run has moved with what they name."""

import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fpt.config import compose, literal
from fpt.config.stored import differences, relocated, stored


def test_paths_are_stored_from_the_root_and_other_words_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "hub", "google/t5"):
        Path(name).mkdir(parents=True)
    task = {"train": "a.jsonl", "valid": "~/b.csv", "test": "hub:acme/news:test", "data": "hub"}
    config = compose.load(["model=./model", "schedule=cr"])
    tree = stored(replace(config, task=replace(config.task, **task)))
    assert tree["model"]["weights"] == f"{tmp_path}/model"
    assert {key: tree["task"][key] for key in task} == {**task, "train": f"{tmp_path}/a.jsonl"}
    assert tree["run"]["dir"] == f"{tmp_path}/runs/boolq-model-cr-s0"
    for weights, kept in (("google/t5-base", "google/t5-base"), ("google/t5", f"{tmp_path}/google/t5")):
        assert stored(compose.load([f"model={weights}"]))["model"]["weights"] == kept
    assert stored(compose.load([]))["model"]["weights"] == "embedded"


def test_a_run_goes_on_from_another_place_and_from_what_an_older_fpt_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    config = compose.load(["model=./sub/model"])
    now, before = stored(config), literal.parse(literal.dump(asdict(config)))
    assert not differences(before, config)
    monkeypatch.chdir("sub")
    again = replace(config, model=replace(config.model, weights="./model"))
    assert not differences(now, again)
    assert differences(before, again)  # nothing says where that was relative to


def test_what_moved_with_its_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "model").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tree = stored(compose.load(["model=./model", "run.dir=runs/a", "task.data=../other"]))
    monkeypatch.chdir("/")
    assert relocated(tree, tmp_path / "here" / "runs" / "a") == tree
    (tmp_path / "here").rename(tmp_path / "there")
    moved = relocated(tree, tmp_path / "there" / "runs" / "a")
    assert moved["model"]["weights"] == f"{tmp_path}/there/model"
    assert moved["task"]["data"] == os.path.abspath(f"{tmp_path}/other")
    assert relocated(tree, tmp_path / "elsewhere")["model"]["weights"] == f"{tmp_path}/here/model"
