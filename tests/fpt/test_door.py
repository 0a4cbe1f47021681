"""The command line answers at once, ends with the right status, and never with a traceback."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fpt.config import compose
from tests.conftest import Outcome

# Each command in a process of its own, forked when the command line is imported and nothing was done yet.
LIGHT = """
import json, os, sys, time
import fpt.cli.command
from fpt.__main__ import main
start = time.process_time()
for number, (before, words) in enumerate(json.loads(sys.argv[1])):
    if os.fork():
        os.wait()
        continue
    os.dup2(os.open(f"{sys.argv[2]}/{number}.err", os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(os.open(f"{sys.argv[2]}/{number}.out", os.O_WRONLY | os.O_CREAT), 1)
    exec(before)
    status = main(words)
    heavy = sorted({"torch", "transformers", "datasets"} & set(sys.modules))
    with open(f"{sys.argv[2]}/{number}.json", "w") as file:
        json.dump([status, heavy, start + time.process_time()], file)
    os._exit(0)
"""
COMMANDS: list[tuple[list[str], int]] = [
    (["--help"], 0),
    (["train", "--help"], 0),
    (["plan", "--help"], 0),
    (["show", "--help", "n=5"], 0),
    (["show", "n=many"], 2),
    (["show", "task=files"], 2),
    (["--version"], 0),
    ([], 2),
    (["trian"], 2),
    (["train", "--jsn"], 2),
    (["train", "train.updats=3"], 2),
    (["train", "schedule.stages=[{depth: 0.5, share: 1.0}]"], 2),
    (["train", "task.valid_split=mismatched"], 2),
    (["train", "task.data=/nowhere"], 2),
    (["train", "run.dir=/proc/x"], 2),
    (["train", "engine.processes=2", "run.dir=/proc/x"], 2),
    (["plan", "model=/nowhere"], 2),
    (["export", "--help"], 0),
    (["export"], 2),
    (["export", "run=/nowhere", "to=npy"], 2),
    (["export", "run=/nowhere", "to=onnx"], 2),
    (["export", "run=/nowhere", "to=npy", "seed=1"], 2),
    (["report", "--help"], 0),
    (["report"], 2),
    (["report", "/nowhere"], 2),
    (["compare", "--help"], 0),
    (["compare", "seeds=0,0"], 2),
    (["compare", "schedules=pt,crr"], 2),
    (["train", "-m", "seed=0,1", "--help"], 0),
    (["train", "-m", "optim.lr=0.1,high"], 2),
    (["train", "optim.lr=0.1,0.3"], 2),
    (["doctor", "--help"], 0),
    (["doctor", "task=boolq"], 2),
]


ASCII = "sys.stdout.reconfigure(encoding='ascii', errors='strict'); "
GONE = "import tempfile; os.chdir(place := tempfile.mkdtemp()); os.rmdir(place)"
INTERRUPTED = """
del sys.modules["fpt.cli.command"]
class Interrupting:
    def find_spec(name, *_):
        if name == "fpt.cli.command":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting)
"""
# What is done before the command, the command, its status, and its standard output and standard error.
CIRCUMSTANCES: list[tuple[str, list[str], int, str, str]] = [
    ("os.close(0); sys.stdin = None", ["--version"], 0, r"\d.*\n", ""),
    ("os.close(1); sys.stdout = None", ["plan", "--help"], 0, "", ""),
    ("os.close(2); sys.stderr = None", ["train", "seed=x"], 2, "", ""),
    ("os.close(1); os.close(2); sys.stdout = sys.stderr = None", ["train", "seed=x"], 2, "", ""),
    (ASCII, ["--help"], 0, r".*\[key=value …\].*", ""),
    (ASCII, ["train", "task=\udcff"], 2, "", r"fpt: 'task=\\udcff': not UTF-8.*\n"),
    (ASCII, ["train", "task=é"], 2, "", r"fpt: task=é: allowed are .*\n"),
    (GONE, ["--version"], 0, r"\d.*\n", ""),
    (GONE, ["train", "--help"], 2, "", r"fpt: the working directory is gone .*; cd to a folder that exists\n"),
    (INTERRUPTED, ["plan"], 130, "", "fpt: interrupted\n"),
    (
        "sys.modules['fpt.cli.command'] = None",
        ["plan", "task=\udcff"],
        1,
        "",
        r"fpt: failed \(ModuleNotFoundError: .*\); details for a bug report are in /.*\.txt\n",
    ),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what came of each command, and then of those under other circumstances."""
    folder = tmp_path_factory.mktemp("door")
    words = [("", words) for words, _ in COMMANDS] + [(before, words) for before, words, *_ in CIRCUMSTANCES]
    environment = os.environ | {"TMPDIR": str(folder)}
    command = [sys.executable, "-c", LIGHT, json.dumps(words), str(folder)]
    subprocess.run(command, check=True, env=environment)
    return folder


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=[" ".join(words) for words, _ in COMMANDS])
def test_help_and_errors_need_no_torch_and_less_than_two_seconds(said: Path, number: int) -> None:
    """Seconds of the processor, since other tests run beside this one."""
    words, wanted = COMMANDS[number]
    error = (said / f"{number}.err").read_text()
    assert "Traceback" not in error
    status, heavy, seconds = json.loads((said / f"{number}.json").read_text())
    assert (status, heavy) == (wanted, []), error
    assert seconds < 2
    if status == 2 and words:
        assert len(error.splitlines()) == 1
        assert error.startswith("fpt: ")


@pytest.mark.parametrize("number", range(len(CIRCUMSTANCES)))
def test_whatever_the_streams_and_the_folder_are_the_end_is_one_line(said: Path, number: int) -> None:
    """Closed and ASCII streams, a deleted working directory, Ctrl-C during an import, a broken installation."""
    _, _, status, *wanted = CIRCUMSTANCES[number]
    number += len(COMMANDS)
    assert json.loads((said / f"{number}.json").read_text())[0] == status
    for suffix, text in zip(("out", "err"), wanted, strict=True):
        written = (said / f"{number}.{suffix}").read_text(encoding="utf-8")
        assert re.fullmatch(text, written, re.DOTALL), written


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "run=~nouser/x", "text=a"], "run=~nouser/x: is no path"),
        (["report", "~nouser/x"], "run=~nouser/x: is no path"),
        (["predict", "run=.", f"input={'x' * 300}"], "at most 255 bytes"),
        (["show", f"n={'9' * 5000}"], "expected a whole number, at least 0"),
    ],
)
def test_an_option_that_cannot_be_is_refused(cli: Callable[..., Outcome], words: list[str], said: str) -> None:
    done = cli(*words)
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert said in done.err


def test_help_lists_every_group_and_key_once(cli: Callable[..., Outcome]) -> None:
    lines = cli("train", "--help").out.splitlines()
    names = [line.split("=")[0].strip() for line in lines if re.match("  [a-z]", line)]
    keys = [name for key, value in asdict(compose.load([])).items() for name in _names(key, value)]
    groups = [folder.name for folder in (Path(__file__).parents[2] / "conf").iterdir() if folder.is_dir()]
    assert sorted(names) == sorted([*keys, *groups])


def _names(key: str, value: Any) -> list[str]:
    return [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key]


@pytest.mark.dear
def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"set -o pipefail; {sys.executable} -m fpt plan --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_shows_the_values_of_the_overrides(cli: Callable[..., Outcome]) -> None:
    assert "train.updates=15000" in cli("train", "experiment=xl-cr", "--help").out


def test_plan_for_programs_is_json_on_standard_output(cli: Callable[..., Outcome]) -> None:
    plan = json.loads(cli("plan", "task=mnli", "--json").out)
    assert plan["schedule"] == "cr"
    assert [row["encoder_layers"] for row in plan["stages"]] == [2, 4, 6, 8]
    assert sum(row["updates"] for row in plan["stages"]) == plan["updates"]


def test_plan_for_people_is_a_table(cli: Callable[..., Outcome]) -> None:
    out = cli("plan", "model=t5-large", "schedule=ld", "task=xsum").out
    assert "layers enc+dec" in out
    assert "24+24" in out
    assert "of vanilla prompt tuning" in out


def test_what_a_late_prompt_is_held_against_is_said(cli: Callable[..., Outcome]) -> None:
    """Vanilla prompt tuning with as many vectors, which are fewer than a soft prompt's."""
    assert re.search(r" of vanilla prompt tuning's [\d.]+ \w?FLOPs \(5 vectors\)", cli("plan", "prompt=late").out)
    assert re.search(r" of vanilla prompt tuning's [\d.]+ \w?FLOPs \(20 vectors\)", cli("plan").out)
