"""Files of a run are whole or not there; whatever happened to them is noticed."""

import json
from pathlib import Path

import pytest
import torch

from fpt.checkpoint import LEDGER, METRICS, RunFolder, TrainState, dump_state, load_state, set_aside
from fpt.errors import UserError


def test_what_is_written_reads_back_in_a_new_process(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write("a/b.bin", b"one")
    folder.write("a/b.bin", b"two")
    folder.close()
    again = RunFolder(tmp_path)
    assert again.read("a/b.bin") == b"two"
    assert "a/b.bin" in again
    assert "other" not in again
    again.close()


def test_a_kill_between_ledger_and_file_leaves_the_old_file_good(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write("a", b"old")
    file = tmp_path / "a"
    folder.write("a", b"new")
    file.write_bytes(b"old")  # as if the last rename had not happened
    assert folder.read("a") == b"old"
    file.write_bytes(b"neither")
    with pytest.raises(UserError, match="is damaged"):
        folder.read("a")
    file.unlink()
    with pytest.raises(UserError, match="is missing"):
        folder.read("a")
    folder.close()


def test_hashes_of_long_ago_are_not_accepted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for data in (b"first", b"second", b"third"):
        folder.write("a", data)
    (tmp_path / "a").write_bytes(b"first")
    assert folder.problem("a")
    folder.close()


def test_no_half_written_file_is_left(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write("a", b"x")
    assert not list(tmp_path.rglob("*.part"))
    folder.close()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        RunFolder(tmp_path)


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text("{")
    with pytest.raises(UserError, match=LEDGER):
        RunFolder(tmp_path)


def test_two_processes_cannot_have_one_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write("a", b"x")
    with pytest.raises(UserError, match="another process"):
        RunFolder(tmp_path)
    with pytest.raises(UserError, match="another process"):
        set_aside(tmp_path)
    folder.close()
    RunFolder(tmp_path).close()


def test_starting_over_keeps_the_old_run_aside(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = RunFolder(tmp_path / "run")
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
    folder = RunFolder(tmp_path)
    folder.write("config.yaml", b"")
    folder.open_metrics(None)
    folder.log({"update": 1})
    mark = folder.metrics_mark()
    folder.log({"update": 2})
    folder.close()
    again = RunFolder(tmp_path)
    assert again.metrics_problem(mark) is None
    again.open_metrics(mark)
    again.log({"update": 3})
    assert [json.loads(line)["update"] for line in (tmp_path / METRICS).read_text().splitlines()] == [1, 3]
    (tmp_path / METRICS).write_text("x")
    assert "damaged" in str(again.metrics_problem(mark))
    again.close()


def test_a_state_survives_its_file_exactly() -> None:
    state = TrainState(
        update=7,
        prompt=torch.randn(3, 4),
        optimizer={"step": 7, "RMS": 0.1 + 0.2, "exp_avg_sq_row": torch.randn(3)},
        seconds=1 / 3,
        score=200 / 3,
        best_score=70.0,
        best_update=5,
        best_prompt=torch.randn(3, 4),
        stale=2,
        done=True,
    )
    again, mark = load_state(dump_state(state, {"bytes": 3, "sha256": "x"}))
    assert mark == {"bytes": 3, "sha256": "x"}
    for name, value in vars(state).items():
        other = getattr(again, name)
        if isinstance(value, dict):
            assert value.keys() == other.keys()
            assert all(torch.equal(torch.as_tensor(value[key]), torch.as_tensor(other[key])) for key in value)
            assert isinstance(other["step"], int)
        else:
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
