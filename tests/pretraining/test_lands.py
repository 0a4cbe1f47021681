"""The generated data that fpt ships are what the generator writes; another land is read once it was written."""

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from fpt.config import compose
from fpt.errors import UserError
from fpt.runs.files import replace_file
from fpt.tasks import origins
from fpt.tasks.catalogue import GENERATED
from fpt.tasks.opening import open_task
from pretraining import lands
from pretraining.world.records import SIZES, TASKS
from pretraining.world_files import files


def shipped(land: int | None, task: str) -> dict[str, bytes]:
    folder = origins.generated_folder(land) / task
    return {file.name: gzip.decompress(file.read_bytes()) for file in folder.iterdir()}


def test_shipped_files_are_those_that_were_written() -> None:
    """One task in full; the others by what was recorded when they were written."""
    assert tuple(SIZES.values()) == GENERATED
    digests = {}
    for land in lands.SHIPPED:
        assert shipped(land, "qqp") == {f"{name}.gz": content for name, content in files("qqp", land=land)}
        for task in TASKS:
            place = f"{origins.generated_folder(land).name}/{task}"
            contents = shipped(land, task).items()
            digests |= {f"{place}/{name}": hashlib.sha256(content).hexdigest() for name, content in contents}
    assert digests == json.loads(lands.CHECKSUMS.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_shipped_file_is_what_the_generator_writes(task: str) -> None:
    for land in lands.SHIPPED:
        assert shipped(land, task) == {f"{name}.gz": content for name, content in files(task, land=land)}


def test_another_land_is_read_where_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, first = compose.load(["task=qqp", "task.land=5"]), open_task(compose.load(["task=qqp"]))
    monkeypatch.setattr(origins, "WORLD", tmp_path)
    with pytest.raises(UserError, match=r"task\.land=5: only land 0 comes with fpt; .*-m pretraining\.lands 5'"):
        open_task(config)
    for name, content in files("qqp", land=5, train=30, validation=20):
        replace_file(tmp_path / "land-5" / "qqp" / f"{name}.gz", gzip.compress(content))
    other = open_task(config)
    assert (other.origin, len(other.train), len(other.valid)) == ("generated, land 5", 30, 20)
    assert {example.source for example in other.train}.isdisjoint(example.source for example in first.train)


@pytest.mark.slow
def test_a_land_is_written_where_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped_files = [str(file.relative_to(origins.WORLD)) for file in origins.generated_folder(0).rglob("*.gz")]
    monkeypatch.setattr(origins, "WORLD", tmp_path)
    lands.main(["5"])
    lands.write_missing([5])
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.gz")} == {
        name.replace("land-0", "land-5") for name in shipped_files
    }
    assert len(open_task(compose.load(["task=mnli", "task.land=5"])).train) == GENERATED[0]
