"""Two runs on the embedded model, of two tasks and with prompts of two lengths, for what takes several prompts."""

from pathlib import Path

import pytest

from fpt.__main__ import main
from tests.conftest import copied_run, made_once

PROMPTS = {"boolq": 20, "mnli": 7}  # their lengths


@pytest.fixture(scope="session")
def two_runs(trains: None, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By task; two updates leave prompts that say different things to different texts. Tests only read them."""
    made, own = made_once(shared / "two", train), tmp_path_factory.mktemp("two")
    return {task: copied_run(made / task, own / task) for task in PROMPTS}


def train(folder: Path) -> None:
    few = ["schedule=pt", "train.updates=2", "train.eval_every=2", "train.batch_size=4", "train.score_untrained=false"]
    few += ["task.world=plain", "task.train_examples=32", "task.valid_examples=50"]
    for task, length in PROMPTS.items():
        assert main(["train", f"task={task}", f"run.dir={folder / task}", f"prompt.length={length}", *few]) == 0
