"""A generated task's files are what its original distribution looks like."""

import json
from pathlib import Path

import pytest

from fpt.config import compose
from fpt.tasks.opening import open_task
from fpt.tasks.world.records import TASKS
from pretraining import world_files

pytestmark = pytest.mark.dear


@pytest.mark.parametrize("world", ["plain", "customs"])
@pytest.mark.parametrize("task", TASKS)
def test_written_files_are_read_as_the_tasks_own(task: str, world: str, tmp_path: Path) -> None:
    world_files.main([task, str(tmp_path), *(["--land", "0"] if world == "customs" else [])])
    files = open_task(compose.load([f"task={task}", f"task.data={tmp_path}"]))
    direct = open_task(compose.load([f"task={task}", f"task.world={world}"]))
    assert [(one.source, one.target, one.golds) for one in (*files.train, *files.valid)] == [
        (one.source, one.target, one.golds) for one in (*direct.train, *direct.valid)
    ]
    written = [
        name for split, name in world_files.FILES[task][1].items() if world == "plain" or "mismatched" not in split
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(written)


def test_squad_files_have_the_original_shape(tmp_path: Path) -> None:
    world_files.main(["squad_v2", str(tmp_path), "--train", "30", "--val", "30"])
    content = json.loads((tmp_path / "dev-v2.0.json").read_text())
    assert content["version"] == "v2.0"
    asked = [qa for article in content["data"] for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
    assert sum(qa["is_impossible"] for qa in asked) == 10 == sum(not qa["answers"] for qa in asked)
