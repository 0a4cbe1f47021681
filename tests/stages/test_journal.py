"""What a stage's journal notices while it trains."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fpt.config.compose import load
from fpt.runs.progress import Progress
from fpt.runs.shared_folder import SharedFolder
from fpt.tasks.opening import open_task
from fpt.training.loop import Updated
from stages import schedule
from stages.inputs import open_inputs
from stages.journal import Journal, Meter
from stages.resolve import for_training
from stages.setup import prepare
from tests.conftest import Outcome, quick_words
from tests.families import save_family

SAID = "the expansion to stage 2 lost what the prompt had learned"
TOLD = "the training loss rose from 2.1 to 6.3 in the first 60 updates of stage 1: try a lower optim.lr (now 0.3)"


@pytest.mark.trains
def test_a_loss_that_rises_in_a_stages_first_updates_is_told_once(
    quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = for_training(load([*quick, "schedule=pt", "train.updates=100"]))
    stages, inputs = schedule.of(config), open_inputs(config, open_task(config), Progress())
    with closing(SharedFolder(config.folder)) as folder:
        setup = prepare(config, stages, inputs, folder, Progress())
        assert setup is not None
        journal = Journal(setup)
        for first in (1, 31):  # and goes on after an interruption
            journal.begin(setup, stages.last, 0.0, before=0.0)
            for update in range(first, 31 if first == 1 else 90):
                journal.record(Updated(update, update * 0.1, 2.1 if update == 1 else 6.3, 0.3, 8))
    said = capsys.readouterr().err
    assert (said.count("the training loss"), TOLD in said) == (1, True)


@pytest.mark.trains
@pytest.mark.parametrize(("first", "is_lost"), [("depth: 0.5", True), ("width: 47", False)])
def test_an_expansion_that_loses_the_prompt_is_said(
    first: str, is_lost: bool, cli: Callable[..., Outcome], boolq: Path, tmp_path: Path
) -> None:
    """Half of a random model's blocks are another model, all but one of its neurons are nearly the same."""
    model, run = save_family(tmp_path / "llama", "llama"), tmp_path / "run"
    weights = load_file(model / "model.safetensors")
    save_file(
        {**weights, "lm_head.weight": 4 * weights["lm_head.weight"]}, model / "model.safetensors", {"format": "pt"}
    )
    stages = f"schedule.stages=[{{{first}, updates: 15}}, {{updates: 4}}]"
    steady = ["train.batch_size=48", "task.valid_examples=6", "train.eval_every=50", "optim.lr=0.3"]
    done = cli("train", *quick_words(model, boolq, run), stages, *steady)
    assert done.status == 0, done.err
    assert done.err.count(SAID) == is_lost
    lost = json.loads((run / "result.json").read_text())["stages"][1]["lost"]
    assert (lost is not None) == is_lost
    assert not is_lost or lost["after"] > lost["before"] + 0.5
    page = Path(cli("report", str(run)).out.splitlines()[0]).read_text()
    assert page.count(SAID) == is_lost


def test_a_validations_time_is_not_the_updates() -> None:
    meter = Meter(torch.device("cpu"), seconds=100.0)
    assert meter.updated(102.0, 300) == 150
    meter.validated(150.0)
    assert meter.updated(154.0, 600) == 150
    assert meter.found["tokens_per_second"] == 900 / 6
    meter = Meter(torch.device("cpu"), seconds=0.0)
    assert meter.found["tokens_per_second"] is None
    assert meter.updated(0.0, 300) is None


def test_a_run_says_how_fast_its_updates_were(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    for number, stage in enumerate(json.loads((finished / "result.json").read_text())["stages"], 1):
        rates = [line["tokens_per_second"] for line in lines if line["stage"] == number and "loss" in line]
        assert len(rates) == stage["updates"]
        assert rates[-1] == round(stage["tokens_per_second"]) > 0
