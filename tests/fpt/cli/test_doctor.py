"""fpt doctor tells what is here, and that something is wrong, whatever is wrong."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fpt.backbones import tiny
from tests.conftest import Outcome

pytestmark = pytest.mark.dear

Cli = Callable[..., Outcome]


def test_it_tells_what_a_bug_report_needs(cli: Cli) -> None:
    done = cli("doctor", "--json")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert report["problems"] == []
    assert report["versions"]["deepspeed"]
    people = cli("doctor").out
    for line in (
        "PyTorch version: ",
        f"deepspeed {report['versions']['deepspeed']}",
        "nothing is broken",
    ):
        assert line in people


def test_what_is_broken_is_named_and_is_status_1(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the embedded model, and a torch that cannot be imported."""
    shutil.copytree(tiny.FOLDER, tmp_path / "tiny")
    (tmp_path / "tiny/config.json").write_text("{}")
    (tmp_path / "tiny/spiece.model").unlink()
    monkeypatch.setattr(tiny.problems, "__defaults__", (tmp_path / "tiny",))
    done = cli("doctor")
    assert (done.status, done.err) == (
        1,
        "fpt: the embedded model's config.json is damaged, not what was written;"
        " the embedded model's spiece.model is missing\n",
    )
    (tmp_path / "tiny/sha256.json").write_text("[]")
    monkeypatch.setitem(sys.modules, "torch.utils.collect_env", None)
    broken = cli("doctor").err
    assert "sha256.json cannot be read" in broken
    assert "torch: ModuleNotFoundError: " in broken


def test_it_takes_nothing_else(cli: Cli) -> None:
    assert cli("doctor", "task=boolq").status == 2
