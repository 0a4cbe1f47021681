"""A tracker is told what metrics.jsonl has, every line once, also where a run was stopped; and never stops a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fpt.config import compose
from fpt.errors import UserError
from fpt.runs import trackers
from fpt.runs.trackers import Tracker, open_tracker, scalars
from tests.conftest import Outcome, stopped_after

Cli = Callable[..., Outcome]
Points = dict[tuple[str, int], float]


def written(folder: Path) -> Points:
    """Every number of metrics.jsonl by name and update."""
    points: Points = {}
    for record in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        for name, value in scalars(record).items():
            assert (name, record["update"]) not in points
            points[name, record["update"]] = value
    return points


def read(events: EventAccumulator) -> Points:
    """The same as TensorBoard reads it."""
    events.Reload()
    found = [(name, point.step, point.value) for name in events.Tags()["scalars"] for point in events.Scalars(name)]
    assert len({(name, step) for name, step, _ in found}) == len(found)
    return {(name, step): value for name, step, value in found}


def in_single_precision(points: Points) -> Points:
    return {key: pytest.approx(value, rel=1e-6, abs=1e-12) for key, value in points.items()}


@pytest.mark.trains
def test_tensorboard_shows_every_line_once_also_of_a_run_that_was_stopped(
    cli: Cli, quick: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    words = [*quick, "train.save_every=4", "schedule=pt"]

    with stopped_after(11):
        cli("train", *words)
    watching = EventAccumulator(str(folder / "tensorboard"))  # as a TensorBoard that is open all the time
    before = read(watching)
    assert before == in_single_precision(written(folder))
    assert ("train/loss", 11) in before
    assert cli("train", *words).status == 0
    points = written(folder)
    assert {step for name, step in points if name == "train/flops"} == set(range(1, 21))
    assert {step for name, step in points if name == "validation/accuracy"} == {5, 10, 15, 20}
    assert read(watching) == in_single_precision(points)
    assert read(EventAccumulator(str(folder / "tensorboard"))) == in_single_precision(points)


@pytest.mark.trains
def test_tracking_changes_nothing_else_and_may_change_when_a_run_goes_on(cli: Cli, quick: list[str]) -> None:
    folder = Path(next(word for word in quick if word.startswith("run.dir=")).partition("=")[2])
    short = [*quick, "schedule=pt", "train.updates=5"]
    assert cli("train", *short, "tracking=none").status == 0
    assert not (folder / "tensorboard").exists()
    without = (folder / "prompt.safetensors").read_bytes()
    assert cli("train", *short, "tracking=tensorboard").status == 0  # finished: nothing is left to track
    assert cli("train", *short, "tracking=tensorboard", f"run.dir={folder.parent / 'other'}").status == 0
    assert (folder.parent / "other/tensorboard").is_dir()
    assert (folder.parent / "other/prompt.safetensors").read_bytes() == without


def test_a_tracker_that_is_not_installed_is_one_line_before_anything_is_read(
    cli: Cli, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    done = cli("train", *quick, "tracking=wandb")
    assert done.status == 2
    assert (
        done.err == "fpt: tracking=wandb: is not installed; pip install 'fpt[wandb]', or tracking=none does without\n"
    )
    assert not (tmp_path / "run").exists()
    assert "Did you mean 'tensorboard'?" in cli("train", *quick, "tracking=tensorbord").err


def test_a_tracker_that_cannot_start_stops_the_run_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in its way")
    config = compose.load([f"run.dir={tmp_path}", "tracking=tensorboard"])
    with pytest.raises(UserError, match=r"tracking=tensorboard: cannot be started \(FileExistsError"):
        open_tracker(config, [], print)


class Broken:
    def log(self, record: dict[str, Any]) -> None:
        raise OSError(28, f"No space left for {len(record)} numbers")

    def close(self) -> None:
        raise AssertionError("it was given up")


def test_a_tracker_that_fails_is_given_up_with_one_line() -> None:
    said: list[str] = []
    broken = Broken()
    tracker = Tracker("wandb", broken.log, broken.close, said.append)
    for update in (1, 2):
        tracker.log({"update": update, "loss": 1.0})
    tracker.close()
    assert len(said) == 1
    assert said[0].startswith("tracking=wandb: failed (OSError: [Errno 28] No space left for 2 numbers)")


def offline_history(file: Path) -> Points:
    """Every number that W&B's offline file of a run has, by name and update; LevelDB logs in blocks of 32 kB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, chunk, points = file.read_bytes(), 7, b"", dict[tuple[str, int], float]()
    assert data.startswith(b":W&B")
    while place < len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        place += 7 + size
        chunk += data[place - size : place]
        if kind in (1, 4):  # whole, or the last of several parts
            record, chunk = Record.FromString(chunk), b""
            values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            new = {(name, values["update"]): value for name, value in values.items() if "/" in name}
            assert not new.keys() & points.keys()
            points |= new
    return points


def test_weights_and_biases_is_only_sent_lines_that_it_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped between an update and its validation goes on with the validation."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb.Run, "step", property(lambda _: 3))  # as its server says where the run is known
    tracker = open_tracker(compose.load([f"run.dir={tmp_path}", "tracking=wandb"]), [{"update": 1, "loss": 1.0}], print)
    assert tracker is not None
    for update in (2, 3, 4):
        tracker.log({"update": update, "loss": float(update)})
        if update == 3:
            tracker.log({"update": update, "split": "validation", "accuracy": 50.0})
    tracker.close()
    wandb.teardown()  # only then are its files whole
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert offline_history(file) == {("validation/accuracy", 3): 50.0, ("train/loss", 4): 4.0}


@pytest.mark.trains
def test_weights_and_biases_has_every_line_once_also_of_a_run_that_was_stopped(
    cli: Cli, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its own offline files, which `wandb sync` sends: one for each part of the run, all of one id."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = [*quick, "schedule=pt", "tracking=wandb"]
    with stopped_after(7):
        cli("train", *words)
    before = written(tmp_path / "run")
    assert cli("train", *words).status == 0
    wandb.teardown()
    name = (tmp_path / "run/.wandb-id").read_text()
    first, second = sorted((tmp_path / "run/wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert offline_history(first) == before
    assert offline_history(second) == written(tmp_path / "run")
