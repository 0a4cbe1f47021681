"""Files of a run are whole or not there; whatever happened to them is noticed."""

import json
from pathlib import Path

import pytest

from fpt.errors import UserError
from fpt.runs.folder import LEDGER, METRICS, check_metrics, check_usable, set_aside
from fpt.runs.shared_folder import SharedFolder


def test_what_is_written_reads_back_in_a_new_process(tmp_path: Path) -> None:
    folder = SharedFolder(tmp_path)
    folder.write("a/b.bin", b"one")
    folder.write("a/b.bin", b"two")
    folder.close()
    again = SharedFolder(tmp_path)
    assert again.read("a/b.bin") == b"two"
    assert "a/b.bin" in again
    assert "other" not in again
    again.close()


class Kill(BaseException):
    """Stands for a kill: nothing after it happens."""


def killed_before(name: str, monkeypatch: pytest.MonkeyPatch, folder: SharedFolder, data: bytes) -> None:
    """Write a file, killed after the ledger was written and before the file itself is renamed."""
    replace = Path.replace

    def stop(aside: Path, target: Path) -> Path:
        if target.name == name:
            raise Kill
        return replace(aside, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(Kill):
        folder.write(name, data)
    monkeypatch.setattr(Path, "replace", replace)
    folder.close()


def test_a_kill_leaves_the_old_file_good_however_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SharedFolder(tmp_path)
    folder.write("a", b"old")
    for data in (b"new", b"newer", b"newest"):
        killed_before("a", monkeypatch, folder, data)
        folder = SharedFolder(tmp_path)
        assert folder.read("a") == b"old"
    folder.write("a", b"last")
    assert folder.read("a") == b"last"
    folder.close()


def test_a_kill_before_a_first_write_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_before("a", monkeypatch, SharedFolder(tmp_path), b"new")
    folder = SharedFolder(tmp_path)
    assert "a" not in folder
    folder.close()


def test_damage_and_loss_are_told_apart(tmp_path: Path) -> None:
    folder = SharedFolder(tmp_path)
    folder.write("a", b"first")
    folder.write("a", b"second")
    folder.close()
    for data, problem in ((b"first, but not quite", "is damaged"), (None, "is missing")):
        if data is None:
            (tmp_path / "a").unlink()
        else:
            (tmp_path / "a").write_bytes(data)
        with pytest.raises(UserError, match=rf"{tmp_path}/a: {problem}.*; start over with resume=never"):
            SharedFolder(tmp_path)


def test_hashes_of_long_ago_are_not_accepted(tmp_path: Path) -> None:
    folder = SharedFolder(tmp_path)
    for data in (b"first", b"second", b"third"):
        folder.write("a", data)
    (tmp_path / "a").write_bytes(b"first")
    with pytest.raises(UserError, match="is damaged"):
        folder.read("a")
    folder.close()
    with pytest.raises(UserError, match="is damaged"):
        SharedFolder(tmp_path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is noticed at the latest when the bytes are to be on it."""
    folder = SharedFolder(tmp_path)
    folder.write("a", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write("a", b"new")
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"old"
    folder.close()
    folder = SharedFolder(tmp_path)
    assert folder.read("a") == b"old"
    folder.close()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        SharedFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    for starts_over in (False, True):
        check_usable(tmp_path / "runs" / "run", starts_over=starts_over)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        check_usable(tmp_path / "file" / "run", starts_over=False)


def test_a_check_refuses_what_would_be_refused_later(tmp_path: Path) -> None:
    SharedFolder(tmp_path / "taken").close()
    check_usable(tmp_path / "taken", starts_over=False)
    held = SharedFolder(tmp_path / "taken")
    with pytest.raises(UserError, match="another process"):
        check_usable(tmp_path / "taken", starts_over=False)
    held.close()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").touch()
    for starts_over, problem in ((False, "has files"), (True, "is not a run")):
        with pytest.raises(UserError, match=problem):
            check_usable(tmp_path / "foreign", starts_over=starts_over)
    assert [file.name for file in (tmp_path / "foreign").iterdir()] == ["thesis.tex"]


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text("{")
    with pytest.raises(UserError, match=LEDGER):
        SharedFolder(tmp_path)


def test_two_processes_cannot_have_one_folder(tmp_path: Path) -> None:
    folder = SharedFolder(tmp_path)
    folder.write("a", b"x")
    with pytest.raises(UserError, match="another process"):
        SharedFolder(tmp_path)
    with pytest.raises(UserError, match="another process"):
        set_aside(tmp_path)
    folder.close()
    SharedFolder(tmp_path).close()


def test_starting_over_keeps_the_old_run_aside(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = SharedFolder(tmp_path / "run")
        folder.write("a", b"x")
        folder.close()
        aside = set_aside(tmp_path / "run")
        assert aside == tmp_path / f"run.old-{number}"
        assert (aside / "a").read_bytes() == b"x"
        assert not (tmp_path / "run").exists()


def test_starting_over_moves_nothing_but_runs(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(UserError, match="not a run"):
        set_aside(tmp_path / "home")
    assert (tmp_path / "home" / "thesis.tex").exists()
    assert set_aside(tmp_path / "nowhere") is None


def test_metrics_go_on_after_the_mark(tmp_path: Path) -> None:
    folder = SharedFolder(tmp_path)
    folder.write("config.yaml", b"")
    folder.open_metrics(None, lambda _: None)
    folder.log({"update": 1})
    mark = folder.metrics_mark()
    folder.log({"update": 2})
    folder.close()
    again = SharedFolder(tmp_path)
    check_metrics(tmp_path, mark)
    again.open_metrics(mark, lambda _: None)
    again.log({"update": 3})
    assert [json.loads(line)["update"] for line in (tmp_path / METRICS).read_text().splitlines()] == [1, 3]
    (tmp_path / METRICS).write_text("x")
    with pytest.raises(UserError, match=rf"{METRICS}: is damaged, .* resume=never"):
        check_metrics(tmp_path, mark)
    again.close()
