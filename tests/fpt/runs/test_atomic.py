"""Files and folders are whole under their names, or as they were."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fpt.runs.atomic import naming, new_folder, replaced_file, try_writing
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
        try_writing(folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
