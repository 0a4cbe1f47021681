"""What ended a process early is one line, for the user or for torchrun."""

import errno
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from fpt.devices.ending import GOES_ON, Failed, Interrupted, one_of_several, tell
from fpt.errors import UserError
from tests.conftest import Outcome, copied_run, no_file_longer_than
from tests.processes import in_processes

FULL = OSError(errno.ENOSPC, "No space left on device", "/x")


def test_the_line_that_a_process_tells_goes_to_torchrun_where_it_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [
        (UserError("seed=x: is no number"), ["train"], 2, "seed=x: is no number"),
        (Failed("was killed", 1), ["eval"], 1, "was killed"),
        (Interrupted(signal.SIGTERM), ["train", "seed=1"], 143, f"stopped by SIGTERM; {GOES_ON}"),
        (KeyboardInterrupt(), ["plan"], 130, "interrupted"),
        (FULL, ["eval"], 1, "/x: No space left on device"),
        (FULL, ["--json", "compare"], 1, f"/x: No space left on device; {GOES_ON}"),
    ]
    for error, words, status, line in told:
        assert tell(error, words) == status
        assert capsys.readouterr().err == f"fpt: {line}\n"
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    for error, words, status, line in told:
        assert tell(error, words) == status
        failure = ProcessFailure(local_rank=3, pid=1, exitcode=status, error_file=str(tmp_path / "error.json"))
        assert failure.message == f"rank 3: {line}"
    assert capsys.readouterr().err == ""


def test_a_fault_of_ours_names_the_command_and_a_file_with_the_details(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(ZeroDivisionError("a fault"), ["eval", "run=a b"]) == 1
    said = re.fullmatch(
        r"fpt: failed \(ZeroDivisionError: a fault\); details for a bug report are in (.*)\n",
        capsys.readouterr().err,
    )
    assert said
    details = Path(said[1])
    assert "eval 'run=a b'\n" in details.read_text()
    assert "ZeroDivisionError: a fault" in details.read_text()
    details.unlink()


def test_ctrl_c_is_told_though_a_library_makes_another_error_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    for link in ("__cause__", "__context__"):
        error = ImportError("initialization failed")
        setattr(error, link, KeyboardInterrupt())
        assert tell(error, ["plan"]) == 130
        assert capsys.readouterr().err == "fpt: interrupted\n"


@pytest.mark.trains
@pytest.mark.parametrize("words", ["eval", "predict input={run}/q.txt output={run}/a.txt", "report", "export to=npy"])
def test_a_full_disk_is_named_by_what_it_has_no_room_for(
    cli: Callable[..., Outcome], finished: Path, tmp_path: Path, words: str
) -> None:
    run = copied_run(finished, tmp_path / "run")
    (run / "q.txt").write_text("is it red\n" * 20)
    verb, *rest = words.format(run=run).split()
    with no_file_longer_than(100):
        done = cli(verb, *rest, str(run) if verb == "report" else f"run={run}")
    last = done.err.splitlines()[-1]
    assert (done.status, last.endswith(": File too large")) == (1, True), last
    assert last.startswith(f"fpt: {run}/"), last
    assert not list(run.rglob("*.part"))


def _fail_in_one() -> None:
    with one_of_several():
        if os.environ["RANK"] == "1":
            raise ZeroDivisionError("a fault of ours")
        time.sleep(60)


@pytest.mark.trains
def test_a_fault_of_one_process_is_told_with_its_rank(tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        in_processes(2, _fail_in_one, tmp_path / "processes")
    said = str(caught.value)
    assert "Traceback" not in said
    assert re.search(r"fpt: rank 1: failed \(ZeroDivisionError: a fault of ours\); details .* in /", said)
