"""A run that is stopped, once or several times, and goes on ends as one that was never stopped, whatever it trains."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fpt.__main__ import main
from tests.conftest import quick_words, stopped_after
from tests.families import CASES, save_family
from tests.models import same, stage_states
from tests.processes import Command

pytestmark = pytest.mark.trains
SHORT = [
    "train.updates=6",
    "train.eval_every=3",
    "train.save_every=2",
    "task.valid_examples=6",
    "prompt.length=3",
    "schedule.stages=[{depth: 0.5, width: 0.5, share: 0.3}, {depth: 0.75, share: 0.3}, {share: 0.4}]",
]
BOUNDARY, INSIDE, LAST = 2, 3, 6  # of SHORT's three stages, which end at updates 2, 4 and 6
LATE = ["prompt=late", "prompt.bottleneck=8", "optim.lr=0.01"]
KINDS = {
    "averaged": ["optim.average=0.5"],
    "late": [*LATE, "prompt.cache=off"],
    "late, states kept": [*LATE, "prompt.cache=memory"],
    "behind the source": ["prompt.place=suffix", "prompt.cache=off"],
    "behind the source, states kept": ["prompt.place=suffix", "prompt.cache=memory"],
}
OFTEN = ("t5gemma2", "gpt2", "roberta")  # one of each way to read


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(row["update"], row["loss"]) for row in lines(folder) if "loss" in row]


def measured_nothing(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what depends on the clock and the machine."""
    measured = ("seconds", "tokens_per_second", "peak_memory")
    kept = {key: value for key, value in result.items() if not key.startswith(measured)}
    kept["stages"] = [
        {key: value for key, value in stage.items() if not key.startswith(measured)} for stage in result["stages"]
    ]
    return kept


def assert_the_same(folder: Path, whole: Path) -> None:
    assert same(folder, whole)
    assert losses(folder) == losses(whole)
    assert (folder / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()
    ours, theirs = (json.loads((path / "result.json").read_text()) for path in (folder, whole))
    assert measured_nothing(ours) == measured_nothing(theirs)
    for our, their in zip(stage_states(folder), stage_states(whole), strict=True):
        for name, tensor in their.kept_prompt.items():
            assert torch.equal(our.kept_prompt[name], tensor)
            assert torch.equal(our.prompt[name], their.prompt[name])


def stop_and_go_on(words: list[str], *updates: int) -> None:
    """Train, ending after each of the updates in turn as a kill would, and then to the end."""
    folder = Path(next(word.partition("=")[2] for word in words if word.startswith("run.dir=")))
    for update in updates:
        with stopped_after(update):
            main(["train", *words])
        assert not (folder / "result.json").exists()
    assert main(["train", *words, "resume=must"]) == 0


ANY = [pytest.param((update,), marks=pytest.mark.slow) for update in range(1, 21)]


@pytest.mark.parametrize("updates", [(1, 4, 8, 20), (3, 5, 12, 19), *ANY])
def test_stopped_after_any_updates_it_is_the_same(
    quick: list[str], finished: Path, tmp_path: Path, updates: tuple[int, ...]
) -> None:
    """Around every boundary (4, 8, 12, 20), where the state was last saved at it, before it or after it."""
    stop_and_go_on([*quick, "train.save_every=3"], *updates)
    assert_the_same(tmp_path / "run", finished)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_prompt_goes_on(kind: str, checkpoint: Path, boolq: Path, tmp_path: Path) -> None:
    model = save_family(tmp_path / "model", "llama") if kind.startswith("behind") else checkpoint
    words = {name: [*quick_words(model, boolq, tmp_path / name), *SHORT, *KINDS[kind]] for name in ("whole", "on")}
    assert main(["train", *words["whole"]]) == 0
    stop_and_go_on(words["on"], BOUNDARY, INSIDE, LAST)
    assert_the_same(tmp_path / "on", tmp_path / "whole")


FAMILIES = [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_models_goes_on(family: str, boolq: Path, tmp_path: Path) -> None:
    model = save_family(tmp_path / "model", family)
    words = {name: [*quick_words(model, boolq, tmp_path / name), *SHORT] for name in ("whole", "on")}
    assert main(["train", *words["whole"]]) == 0
    stop_and_go_on(words["on"], INSIDE)
    assert_the_same(tmp_path / "on", tmp_path / "whole")


MANY = [pytest.param(seed, 4, marks=pytest.mark.slow) for seed in range(2, 52)]  # 200 kills


@pytest.mark.parametrize(("seed", "kills"), [(1, 3), *MANY])
def test_killed_at_random_points_it_is_the_same(
    quick: list[str], finished: Path, tmp_path: Path, seed: int, kills: int
) -> None:
    """By a signal that no process survives, somewhere within or behind updates that were drawn."""
    folder = tmp_path / "run"
    for update in sorted(random.Random(seed).sample(range(1, 19), kills)):
        run = Command(["train", *quick], tmp_path / "said")
        while run.status is None and count(folder) < update:
            time.sleep(0.005)
        run.process.kill()
        run.process.join()
        assert run.status == -signal.SIGKILL, run.said()
    assert main(["train", *quick]) == 0
    assert_the_same(folder, finished)


def count(folder: Path) -> int:
    """Lines of metrics so far."""
    file = folder / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0
