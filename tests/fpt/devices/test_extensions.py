"""A lock in torch's extension cache stops a run only where nobody builds."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fpt.devices import extensions
from fpt.errors import UserError
from tests.conftest import Outcome


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock that a killed build has left an hour ago."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (tmp_path / "pin_memory").mkdir()
    file = tmp_path / "pin_memory" / "lock"
    file.touch()
    os.utime(file, (time.time() - 3600,) * 2)
    return file


def test_an_old_lock_without_a_builder_is_named(lock: Path) -> None:
    assert extensions.abandoned_locks() == [lock]
    with pytest.raises(UserError, match=f"{lock}: .* remove this file"):
        extensions.check_locks()
    lock.unlink()
    assert extensions.abandoned_locks() == []
    extensions.check_locks()


def test_a_lock_that_its_builder_has_open_is_left_to_deepspeed(lock: Path) -> None:
    """As torch's FileBaton has it; however long the build takes."""
    with lock.open():
        assert extensions.abandoned_locks() == []
        extensions.check_locks()


@pytest.mark.dear
def test_a_young_lock_may_be_another_machines_and_is_waited_for(
    lock: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extensions, "OLD", 2.0)
    lock.touch()
    assert extensions.abandoned_locks() == []
    start = time.monotonic()
    with pytest.raises(UserError, match="remove this file"):
        extensions.check_locks()
    assert time.monotonic() - start > 1
    assert capsys.readouterr().err == f"waiting for {lock}: another machine may be building there\n"


@pytest.mark.trains
def test_a_run_is_refused_before_deepspeed_waits(lock: Path, quick: list[str], cli: Callable[..., Outcome]) -> None:
    outcome = cli("train", *quick, "engine=deepspeed")
    assert outcome.status == 2
    assert f"fpt: {lock}: " in outcome.err
