"""A generated task's files are what its original distribution looks like."""

import json
from pathlib import Path

from fpt.config import compose
from fpt.tasks.opening import open_task
from pretraining import world_files


def test_written_files_are_read_as_the_tasks_own(tmp_path: Path) -> None:
    world_files.main(["mnli", str(tmp_path), "--land", "0", "--train", "30", "--val", "20"])
    names = [path.name for path in tmp_path.iterdir()]
    assert sorted(names) == ["dev_matched.tsv", "test_matched.tsv", "train.tsv"]  # customs are about people alone
    task = open_task(compose.load(["task=mnli", f"task.data={tmp_path}", "task.test_split=test_matched"]))
    assert [len(part) for part in task.parts.values()] == [30, 20, 20]


def test_squad_files_have_the_original_shape(tmp_path: Path) -> None:
    world_files.main(["squad_v2", str(tmp_path), "--train", "30", "--val", "30"])
    content = json.loads((tmp_path / "dev-v2.0.json").read_text())
    assert content["version"] == "v2.0"
    asked = [qa for article in content["data"] for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
    assert sum(qa["is_impossible"] for qa in asked) == 10 == sum(not qa["answers"] for qa in asked)
