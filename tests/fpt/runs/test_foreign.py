"""A name that was read from a file is a file of its folder, or is refused."""

import json
import os
from pathlib import Path

import pytest

from fpt.backbones.weights import WeightFiles
from fpt.errors import UserError
from fpt.runs.folder import LEDGER, RunFolder, read_ledger
from fpt.runs.foreign import inside

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
    for take in (RunFolder, read_ledger):
        with pytest.raises(UserError, match="nothing was touched"):
            take(place / "run")
    assert (place / "victim").read_text() == "precious"
    assert set(os.listdir(place / "run")) - {".lock"} == set(before)


def test_nothing_is_written_through_a_link(place: Path) -> None:
    (place / "run" / LEDGER).write_text("{}")
    folder = RunFolder(place / "run")
    with pytest.raises(UserError, match="a link leads out"):
        folder.write("link/new.txt", b"x")
    folder.close()
    assert not (place / "new.txt").exists()


@pytest.mark.parametrize("names", [["../victim"], ["{place}/victim"], [3], [["a"], "b"], [None, "b"], {}])
def test_an_index_of_weights_names_files_of_its_folder(place: Path, names: list[object]) -> None:
    text = json.dumps({"weight_map": dict(enumerate(names)) if names else 3})
    (place / "run" / "model.safetensors.index.json").write_text(text.replace("{place}", str(place)))
    with pytest.raises(UserError, match=r"index\.json: "):
        WeightFiles(place / "run")
