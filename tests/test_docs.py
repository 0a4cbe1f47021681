"""What README, CONTRIBUTING and docs/ tell people to type does what they say.

Commands that need no more than this machine has are run, with fewer updates and examples. Of the others, `fpt plan`
takes the same words; and where even that needs the Hub, the configuration is composed.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import pytest

from fpt.__main__ import main
from fpt.config import compose
from tests.conftest import Outcome, boolq_lines

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FEW = [
    "train.updates=8",
    "train.batch_size=4",
    "train.eval_every=8",
    "train.eval_batch=8",
    "schedule.importance_examples=8",
]
TWO_STAGES = ["schedule.stages=[{depth: 0.5, share: 0.5}, {share: 0.5}]", "schedule.name=cr"]  # where none are said
FEW_EXAMPLES = ["schedule.importance_examples=8", "task.train_examples=16", "task.valid_examples=8"]
OF_OTHERS = ("model=", "engine", "experiment=", "updates:", "GPUS=")  # a command with one of these is planned
NO_KEYS = ("n=", "run=", "schedules=", "prompts=", "seeds=")  # options, which are no part of the configuration
OF_HUB = ("model=google/", "prompt.file=prompt")  # and with one of these composed


@dataclass(frozen=True)
class Command:
    """A line of a page, and the file that a here-document before it writes."""

    words: tuple[str, ...]
    writes: tuple[str, str] | None = None

    def __str__(self) -> str:
        return " ".join(self.words)


def commands(page: Path) -> list[Command]:
    found = []
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        written = re.search(r"cat > (\S+) <<'END'\n(.*?)END\n", block, re.DOTALL)
        lines = re.sub(r"cat > .*?\nEND\n", "", block, flags=re.DOTALL).replace("\\\n", " ").splitlines()
        for line in lines:
            words = tuple(shlex.split(line, comments=True))
            if words:
                found.append(Command(words, (written[1], written[2]) if written else None))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_a_page_names_are_there(page: Path) -> None:
    """But for names in capitals, which stand for the reader's own."""
    text = page.read_text()
    files = re.findall(r"`((?:bench|conf|docs|fpt|pretraining|stages|tests)/[a-z0-9_./]*)`", text)
    modules = re.findall(r"python\s-m\s((?:bench|fpt|pretraining)[a-z_.]*)", text)
    files += [f"{name.replace('.', '/')}.py" for name in modules if not (ROOT / name.replace(".", "/")).is_dir()]
    assert [name for name in files if not (ROOT / name).exists()] == []


def typed(program: str) -> list[Command]:
    return list(dict.fromkeys(command for page in PAGES for command in commands(page) if command.words[0] == program))


@pytest.fixture(scope="module")
def place(trains: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages' commands name."""
    folder = tmp_path_factory.mktemp("pages")
    words = [*FEW, *FEW_EXAMPLES, f"cache_dir={folder}/cache"]
    assert main(["train", "task=boolq", f"run.dir={folder}/runs/boolq-tiny-cr-s0", *words]) == 0
    few = ["task=mnli", f"run.dir={folder}/runs/mnli-tiny-cr-s0", "schedule=pt"]  # ends on the whole model too
    assert main(["train", *few, *words]) == 0
    (folder / "stages.yaml").write_text("[{depth: 4, share: 0.5}, {share: 0.5}]\n")
    (folder / "hosts").write_text("localhost slots=8\n")
    (folder / "DIR").mkdir()
    (folder / "prompt.safetensors").touch()
    (folder / "asked.jsonl").write_text(boolq_lines(3))
    (folder / "texts.txt").write_text("question: is the lamp red passage: The lamp is red.\n")
    return folder


@pytest.mark.parametrize("command", typed("fpt"), ids=str)
def test_a_command_does_what_it_says(
    cli: Callable[..., Outcome],
    place: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    if command.writes:
        Path(command.writes[0]).write_text(command.writes[1])
    words = [name for word in command.words[1:] for name in sorted(glob(word)) or [word]]
    stdin = Path(words.pop()) if "<" in words else Path("/dev/null")
    words = [word for word in words if word != "<"]
    if any(word.startswith(OF_HUB) for word in words):
        start = ["prompt.init=file"] if words[0] == "eval" else []
        compose.load([*(word for word in words[1:] if "=" in word), *start])
        return
    if words[0] in ("train", "compare") and any(part in word for word in words for part in OF_OTHERS):
        words = ["plan", *(word for word in words[1:] if "=" in word and not word.startswith(NO_KEYS))]
        # Where all fits, nothing smaller is looked for.
        words += ["engine.device_memory=1TiB"] * all("engine.device_memory" not in word for word in words)
    elif words[0] in ("train", "compare"):
        few = FEW if any("task.train=" in word for word in words) else [*FEW, *FEW_EXAMPLES]
        is_said = words[0] == "compare" or any(word.startswith(("schedule", "prompt=late")) for word in words)
        few = few if is_said else [*few, *TWO_STAGES]
        words += [*few, f"cache_dir={place}/cache", "resume=never"] if "--help" not in words else []
    if words[0] == "serve":  # which ends where it would wait for questions
        words.append("port=0")
        monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    with stdin.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        done = cli(*words)
    assert done.status == 0, done.err
    assert done.out or done.err


@pytest.mark.parametrize("command", typed("make"), ids=str)
def test_make_passes_a_command_on(command: Command) -> None:
    """What `make` would run is composed."""
    quiet = ["make", "--dry-run", "--no-print-directory", *command.words[1:]]
    shown = subprocess.run(quiet, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = shlex.split(shown.splitlines()[-1])
    if words[0].endswith("bin/fpt"):
        compose.load([word for word in words[2:] if "=" in word and not word.startswith(NO_KEYS)])


def test_python_on_a_page_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the blocks is changed but the number of updates and examples."""
    monkeypatch.chdir(place)
    pages = [page for page in PAGES if page.name != "serving.md"]  # tests/stages/using/test_tokens.py runs that one's
    blocks = [code for page in pages for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    assert len(blocks) == 2
    for code in blocks:
        extra = ", ".join(map(json.dumps, [*FEW[1:], *FEW_EXAMPLES, f"cache_dir={place}/cache"]))
        assert "api" not in code or '"train.updates=40", "train.eval_every=20",' in code
        code = code.replace('"train.updates=40", "train.eval_every=20",', f'"train.updates=8", {extra},')
        exec(compile(code, "page", "exec"), {"__name__": "__main__"})


def test_the_notebook_runs_and_is_kept_without_outputs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells one after the other, with fewer updates and examples, and pictures that nobody sees."""
    notebook = json.loads((ROOT / "examples/quickstart.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    code = "\n".join("".join(cell["source"]) for cell in cells)
    extra = ", ".join(map(json.dumps, [*FEW[1:], *FEW_EXAMPLES, f"cache_dir={place}/cache"]))
    typed_there = '"train.updates=300", "train.eval_every=30",'
    assert typed_there in code
    code = code.replace(typed_there, f'"train.updates=8", {extra},')
    monkeypatch.chdir(place)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "quickstart.ipynb", "exec"), names)
    assert names["vectors"].shape == (20, 128)
    assert (place / "runs/quickstart/report.html").exists()
