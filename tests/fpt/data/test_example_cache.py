"""Large data are read once, and what is kept of them is what was read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fpt.config import compose
from fpt.config.run_config import RunConfig
from fpt.data import example_cache
from fpt.data.encoding import encode
from fpt.data.example_cache import open_task
from fpt.data.token_cache import tokenised
from fpt.errors import UserError
from fpt.runs.run import open_run
from fpt.tasks import opening
from tests.conftest import Outcome, open_folder, quick_words


@pytest.fixture(autouse=True)
def _all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_cache, "LARGE", 1)


def config(boolq: Path, cache: Path, *words: str) -> RunConfig:
    return compose.load([f"task.data={boolq}", f"cache_dir={cache}", *words])


def test_what_is_kept_is_what_was_read(boolq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = config(boolq, tmp_path, "task.source_length=20")
    plain = opening.open_task(values)
    first = open_task(values)
    monkeypatch.setattr(opening, "open_task", None)  # it is not read a second time
    again = open_task(values)
    for task in (first, again):
        assert (list(task.train), task.valid) == (plain.train, plain.valid)
        assert (task.train[-1], task.train[3:5]) == (plain.train[-1], plain.train[3:5])
        for name in ("name", "origin", "notes", "baseline_name", "majority", "metric", "labels"):
            assert getattr(task, name) == getattr(plain, name)
    with pytest.raises(IndexError):
        first.train[len(plain.train)]


def test_other_files_settings_or_seeds_are_read_anew(tmp_path: Path, boolq: Path) -> None:
    for name in ("train.jsonl", "val.jsonl"):
        (tmp_path / name).write_text((boolq / name).read_text())
    lengths = []
    for number, words in enumerate([(), ("task.shots=2",), ("task.shots=2", "seed=1"), ("task.valid_examples=3",)], 1):
        task = open_task(config(tmp_path, tmp_path, *words))
        lengths.append((len(task.train), len(task.valid)))
        assert len(list((tmp_path / "examples").iterdir())) == number
    assert lengths == [(48, 24), (4, 24), (4, 24), (48, 3)]
    row = {"question": "is it", "passage": "it is", "idx": 9999, "label": True}
    with (tmp_path / "val.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    assert len(open_task(config(tmp_path, tmp_path)).valid) == 25
    with (tmp_path / "val.jsonl").open("a") as file:
        file.write("{\n")
    with pytest.raises(UserError, match=r"val\.jsonl, line 26: not JSON"):
        open_task(config(tmp_path, tmp_path))


def test_only_what_decides_the_reading_makes_it_read_anew(boolq: Path, tmp_path: Path) -> None:
    def stored(cache: str, *words: str) -> int:
        open_task(compose.load([f"cache_dir={tmp_path / cache}", *words]))
        return len(list((tmp_path / cache / "examples").iterdir()))

    data = f"task.data={boolq}"
    lengths = ("task.source_length=9", "task.target_length=3", "task.reduce_decoder=true")
    assert [stored("a", data, *words) for words in ((), ("seed=1",), lengths)] == [1, 1, 1]
    assert [stored("a", data, "task.shots=2", *words) for words in ((), ("seed=1",))] == [2, 3]
    file = boolq / "train.jsonl"
    own = ["task=files", f"task.train={file}", "task.source={question}", "task.target={label}"]
    assert [stored("b", *own, *words) for words in ((), ("task.name=lamps",), ("seed=1",))] == [1, 1, 2]
    assert [stored("c", *own, f"task.valid={file}", *words) for words in ((), ("seed=1",))] == [1, 1]


def test_its_tokens_are_kept_too(boolq: Path, tmp_path: Path, checkpoint: Path) -> None:
    values, backbone, seen = config(boolq, tmp_path, "task.source_length=20"), open_folder(checkpoint), []
    for _ in range(2):
        task = open_task(values)
        train, valid = tokenised(task, backbone, values.task, tmp_path, lambda parts, _: seen.append(1) or parts)
    assert len(seen) == 2
    for data, examples in ((train, task.train), (valid, task.valid)):
        fresh = encode(examples, backbone.tokenizer, source_length=20, target_length=10)
        assert (list(data.sources), list(data.targets)) == (list(fresh.sources), list(fresh.targets))


def test_a_test_split_is_kept_with_the_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.source").write_text("the lamp is red\na stone is old\n")
        (tmp_path / f"{name}.target").write_text("a lamp\na stone\n")
    (tmp_path / "test.target").unlink()
    values = compose.load(["task=xsum", f"task.data={tmp_path}", f"cache_dir={tmp_path}", "task.test_split=test"])
    plain, first = opening.open_task(values), open_task(values)
    monkeypatch.setattr(opening, "open_task", None)  # it is not read a second time
    for task in (first, open_task(values)):
        assert (list(task.test), task.test_split) == (plain.test, "test")
        assert [example.golds for example in task.test] == [(), ()]
    monkeypatch.undo()
    monkeypatch.setattr(example_cache, "LARGE", 1)
    (tmp_path / "test.target").write_text("a lamp\na stone\n")
    assert [example.golds for example in open_task(values).test] == [("a lamp",), ("a stone",)]
    (tmp_path / "train.target").write_text("no lamp\na stone\n")
    assert open_task(values).train[0].golds == ("no lamp",)


def test_generated_data_are_not_kept(tmp_path: Path) -> None:
    values = compose.load([f"cache_dir={tmp_path}", "task.train_examples=20"])
    assert len(open_task(values).train) == 20
    assert not list(tmp_path.iterdir())


@pytest.mark.trains
def test_a_run_takes_them(checkpoint: Path, boolq: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    done = [cli("train", *quick_words(checkpoint, boolq, tmp_path / name), "train.updates=8") for name in ("a", "b")]
    assert [outcome.status for outcome in done] == [0, 0], done[0].err
    runs = [open_run(tmp_path / name).metrics for name in ("a", "b")]
    one, two = ([{**line, "seconds": 0, "tokens_per_second": 0} for line in lines] for lines in runs)
    assert one == two
    assert len(list((tmp_path / "cache" / "examples").iterdir())) == 1
