"""Files and folders are whole under their names, or as they were; a name that was read is a file of its folder."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fpt.backbones.weights import WeightFiles
from fpt.errors import UserError
from fpt.runs.files import check_writable, inside, naming, new_folder, replaced_file
from fpt.runs.folder import LEDGER, read_ledger
from fpt.runs.shared_folder import SharedFolder
from tests.conftest import no_file_longer_than


def _fail_in_a_file(file: Path) -> None:
    with replaced_file(file) as stream:
        stream.write(b"half")
        raise OSError(28, "No space left on device")


def _fail_in_a_folder(folder: Path) -> None:
    with new_folder(folder) as aside:
        (aside / "half").touch()
        raise OSError(28, "No space left on device")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "of" / "answers"
    with replaced_file(file) as stream:
        stream.write(b"whole")
        assert not file.exists()
    with pytest.raises(OSError, match="No space"):
        _fail_in_a_file(file)
    assert [(path.name, path.read_bytes()) for path in file.parent.iterdir()] == [("answers", b"whole")]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "exports" / "hf"
    with pytest.raises(OSError, match="No space"):
        _fail_in_a_folder(folder)
    assert list(folder.parent.iterdir()) == []
    with new_folder(folder) as aside:
        (aside / "config.json").write_text("{}")
        assert not folder.exists()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")] == ["exports/hf/config.json"]


@pytest.mark.parametrize(
    "write", [lambda file: file.write_bytes(b"0" * 2000), lambda file: save_file({"a": torch.zeros(500)}, file)]
)
def test_a_full_disk_says_where(tmp_path: Path, write: Callable[[Path], object]) -> None:
    with no_file_longer_than(1000), pytest.raises(OSError, match="too large") as caught, naming(tmp_path):
        write(tmp_path / "file")
    assert caught.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as missing, naming(tmp_path):
        (tmp_path / "no" / "folder").read_bytes()
    assert missing.value.filename == str(tmp_path / "no" / "folder")


def test_trying_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "not" / "there"):
        check_writable(folder, "")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


OUTSIDE = [
    "../victim",
    "a/../../victim",
    "{place}/victim",
    "/",
    "",
    ".",
    "..",
    "a\0b",
    "\ud800",
    "x" * 300,
    3,
    None,
    ["a"],
]
ELSEWHERE = ["link/victim", "victim-link", "circle"]  # through a link


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "run").mkdir()
    for name, target in (("link", ".."), ("victim-link", "../victim"), ("circle", "circle")):
        (tmp_path / "run" / name).symlink_to(target)
    return tmp_path


@pytest.mark.parametrize("name", [*OUTSIDE, *ELSEWHERE])
def test_what_leads_out_is_refused_in_one_line(place: Path, name: object) -> None:
    name = name.format(place=place) if isinstance(name, str) else name
    with pytest.raises(UserError, match="nothing was touched") as caught:
        inside(place / "run", name, read_in=place / "run" / LEDGER)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_what_stays_is_its_path(place: Path) -> None:
    (place / "elsewhere").symlink_to(place / "run")  # a run may be reached through a link
    for name in ("a", "a/b.txt", "..a", "a..", "ä ö"):
        assert inside(place / "elsewhere", name, read_in=place) == place / "elsewhere" / name
    assert inside(place / "run", "victim-link", read_in=place, links=True) == place / "run" / "victim-link"


@pytest.mark.parametrize("name", [name for name in (*OUTSIDE, *ELSEWHERE) if isinstance(name, str)])
def test_a_ledger_that_names_files_elsewhere_is_refused_before_anything_is_touched(place: Path, name: str) -> None:
    ledger = {"config.yaml": ["0"], name.format(place=place): ["0", None]}
    (place / "run" / LEDGER).write_text(json.dumps(ledger))
    before = sorted(os.listdir(place / "run"))
    for take in (SharedFolder, read_ledger):
        with pytest.raises(UserError, match="nothing was touched"):
            take(place / "run")
    assert (place / "victim").read_text() == "precious"
    assert set(os.listdir(place / "run")) - {".lock"} == set(before)


def test_nothing_is_written_through_a_link(place: Path) -> None:
    (place / "run" / LEDGER).write_text("{}")
    folder = SharedFolder(place / "run")
    with pytest.raises(UserError, match="is no file of"):
        folder.write("link/new.txt", b"x")
    folder.close()
    assert not (place / "new.txt").exists()


@pytest.mark.parametrize("names", [["../victim"], ["{place}/victim"], [3], [["a"], "b"], [None, "b"], {}])
def test_an_index_of_weights_names_files_of_its_folder(place: Path, names: list[object]) -> None:
    text = json.dumps({"weight_map": dict(enumerate(names)) if names else 3})
    (place / "run" / "model.safetensors.index.json").write_text(text.replace("{place}", str(place)))
    with pytest.raises(UserError, match=r"index\.json: "):
        WeightFiles(place / "run")
