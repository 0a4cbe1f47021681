"""TensorBoard has what metrics.jsonl has, every line once, also where a run was stopped; and never stops a run.

A loss that rises or jumps by more than updates differ anyway is told; a stage that is too short says nothing.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fpt.config import compose
from fpt.errors import UserError
from fpt.runs import metrics
from fpt.runs.metrics import WATCHED, lost_at, open_tracker, risen_in
from tests.conftest import Outcome, stopped_after

Cli = Callable[..., Outcome]
Points = dict[tuple[str, int], float]


def written(folder: Path) -> Points:
    """Every number of metrics.jsonl by name and update."""
    points: Points = {}
    for record in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        update, split = record.pop("update"), record.pop("split", "train")
        for name, value in record.items():
            assert (f"{split}/{name}", update) not in points
            points[f"{split}/{name}", update] = value
    return points


def read(events: EventAccumulator) -> Points:
    """Every number that TensorBoard reads from event files, by name and update."""
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


def test_weights_and_biases_follows_tensorboards_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    lines = [{"update": update, "stage": 1, "loss": 1.0 / update, "seconds": 0.1} for update in (1, 2)]
    tracker = open_tracker(compose.load([f"run.dir={tmp_path}", "tracking=wandb"]), lines[:1], print)
    assert tracker is not None
    tracker.log(lines[1])
    tracker.close()
    (sent,) = (tmp_path / "wandb").glob("offline-run-*/files/**/events.out.tfevents.*")
    points = read(EventAccumulator(str(sent.parent)))
    assert points["train/loss", 1] == 1.0
    assert points["train/loss", 2] == 0.5


def test_a_tracker_that_is_not_installed_is_one_line_before_anything_is_read(
    cli: Cli, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda _: None)
    for name in ("tensorboard", "wandb"):
        done = cli("train", *quick, f"tracking={name}")
        assert done.status == 2
        assert (
            done.err
            == f"fpt: tracking={name}: tensorboard is not installed; pip install 'fpt[{name}]', or leave it out\n"
        )
    assert not (tmp_path / "run").exists()
    assert "Did you mean 'tensorboard'?" in cli("train", *quick, "tracking=tensorbord").err


def test_a_tracker_that_cannot_start_stops_the_run_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in its way")
    config = compose.load([f"run.dir={tmp_path}", "tracking=tensorboard"])
    with pytest.raises(UserError, match=r"tracking=tensorboard: cannot be started \(FileExistsError"):
        open_tracker(config, [], print)


def test_a_tracker_that_fails_is_given_up_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    tracker = open_tracker(compose.load([f"run.dir={tmp_path}", "tracking=tensorboard"]), [], said.append)
    assert tracker is not None

    def full(*_: object) -> None:
        raise OSError(28, "No space left")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    for update in (1, 2):
        tracker.log({"update": update, "loss": 1.0})
    tracker.close()
    assert len(said) == 1
    assert said[0].startswith("TensorBoard failed (OSError: [Errno 28] No space left)")


STEADY = [0.9, 1.1, 1.0, 1.2, 0.8, 1.0, 0.9, 1.1]
CASES = {
    "thrown back": (STEADY, [7.0, 6.0, 5.0], {"before": 1.0, "after": 6.0}),
    "thrown back while it still learned": ([14.0, *STEADY], [9.0, 8.0, 7.0], {"before": 1.0, "after": 8.0}),
    "as before": (STEADY, [1.2, 1.1, 1.0], None),
    "better": (STEADY, [0.5, 0.4, 0.3], None),
    "one hard batch": (STEADY, [1.9, 1.0, 0.9], None),
    "a little worse than steady": ([0.23, 0.24] * 4, [0.27, 0.28, 0.27], None),
    "still falling": ([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0], None),
    "too short before": (STEADY[:7], [7.0, 6.0, 5.0], None),
    "too early to tell": (STEADY, [7.0, 6.0], None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_jump_of_the_loss_is_a_lost_expansion(case: str) -> None:
    before, after, expected = CASES[case]
    rows = [(1, 20.0), *((2, loss) for loss in before), *((3, loss) for loss in after)]
    lines = [{"stage": stage, "loss": loss} for stage, loss in rows]
    lines.insert(5, {"stage": 2, "split": "validation", "accuracy": 50.0})
    assert lost_at(3, lines) == (expected and pytest.approx(expected))
    assert lost_at(1, lines) is None
    assert lost_at(4, lines) is None


RISES: dict[str, tuple[Callable[[int], float], int, bool]] = {
    "rises": (lambda update: 2.1 if update == 1 else 6.3, 1, True),
    "rises by less than batches differ": (lambda update: 2.1 if update == 1 else 2.5, 1, False),
    "rises, and falls again": (lambda update: 6.3 if 1 < update < 50 else 2.1, 1, False),
    "falls": (lambda update: 12.0 if update == 1 else 6.3, 1, False),
    "has lost its first lines": (lambda update: 2.1 if update == 5 else 6.3, 5, False),
}


@pytest.mark.parametrize("case", RISES)
def test_a_loss_has_risen_if_it_is_higher_after_a_stages_first_updates(case: str) -> None:
    loss, first, has_risen = RISES[case]
    lines = [{"stage": 2, "loss": loss(update)} for update in range(first, WATCHED + 1)]
    assert (risen_in(2, [{"stage": 1, "loss": 0.1}, *lines]) is not None) == has_risen
