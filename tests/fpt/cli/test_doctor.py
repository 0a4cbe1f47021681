"""fpt doctor tells what is here, and that something is wrong, whatever is wrong."""

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from fpt.backbones import tiny
from fpt.backbones.tiny import checksums
from fpt.cli import doctor
from tests.conftest import Outcome

pytestmark = pytest.mark.dear

Cli = Callable[..., Outcome]


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> "socket.socket":
    """One that takes calls and does not answer."""
    server = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setattr(doctor, "PATIENCE", 0.5)
    return server


def test_it_tells_what_a_bug_report_needs_though_the_hub_is_silent(cli: Cli, silent_hub: "socket.socket") -> None:
    start = time.monotonic()
    done = cli("doctor", "--json")
    assert time.monotonic() - start < 20
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert {"versions", "machine", "torch", "disks", "devices", "deepspeed", "hub", "embedded_model"} < set(report)
    assert report["versions"]["torch"]
    assert report["torch"]["os"]
    assert report["devices"]["gloo"] is True
    assert isinstance(report["deepspeed"]["pin_memory"], bool)
    assert report["hub"]["answers"] is False
    assert report["embedded_model"]["checksums"] == "hold"
    assert report["problems"] == []
    people = cli("doctor").out
    assert "nothing is broken" in people
    assert str(tiny.FOLDER) in people
    silent_hub.close()


def test_a_file_that_is_not_the_embedded_models_is_status_1(
    cli: Cli, silent_hub: "socket.socket", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny.FOLDER, tmp_path / "tiny")
    (tmp_path / "tiny/config.json").write_text("{}")
    (tmp_path / "tiny/spiece.model").unlink()
    monkeypatch.setattr(checksums.problems, "__defaults__", (tmp_path / "tiny",))
    done = cli("doctor")
    assert done.status == 1
    assert done.err == (
        "fpt: the embedded model's config.json is damaged: it is not what was written;"
        " the embedded model's spiece.model is missing\n"
    )
    (tmp_path / "tiny/sha256.json").write_text("[]")
    assert "sha256.json cannot be read" in cli("doctor").err
    silent_hub.close()


def test_a_lock_that_a_killed_build_has_left_is_a_problem(
    cli: Cli, silent_hub: "socket.socket", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock = tmp_path / "pin_memory" / "lock"
    lock.parent.mkdir()
    lock.touch()
    os.utime(lock, (time.time() - 3600,) * 2)
    done = cli("doctor")
    assert (done.status, done.err) == (1, f"fpt: {lock}: is of a build that was killed; remove this file\n")
    silent_hub.close()


def test_it_takes_nothing_else(cli: Cli) -> None:
    assert cli("doctor", "task=boolq").status == 2


def test_what_cannot_be_told_is_said_and_not_raised(tmp_path: Path) -> None:
    def fail() -> dict[str, str]:
        raise OSError("no such thing here")

    assert doctor._safely(fail) == {"error": "OSError: no such thing here"}
    assert doctor.disks({"cache_dir": tmp_path / "not/there"})["cache_dir"]["writable"] is True
