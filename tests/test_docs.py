"""What README, CONTRIBUTING and docs/ tell people to type is understood; one command of each verb does what it says."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fpt.__main__ import main
from fpt.cli.arguments import parse
from fpt.cli.command import VERBS
from fpt.config import compose, keys
from stages import schedule
from tests.conftest import Outcome

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = "runs/boolq-tiny-cr-s0"
FEW = [
    "train.updates=8",
    "train.batch_size=4",
    "train.eval_every=8",
    "train.eval_batch=8",
    "schedule.importance_examples=8",
]
FEW_EXAMPLES = ["task.train_examples=16", "task.valid_examples=8"]
TWO_STAGES = ["schedule.stages=[{depth: 0.5, share: 0.5}, {share: 0.5}]", "schedule.name=cr"]
MADE_BY = "fpt compare task=boolq schedules=cr seeds=0,1"  # which leaves RUN
NO_KEYS = ("n=", "run=", "schedules=", "seeds=")  # options, which are no part of the configuration
DONE = (
    "fpt show task=files",
    "fpt show task=squad_v2",
    "fpt train task=files",
    "fpt predict run=runs/faq-tiny-cr-s0",
    "fpt plan model=t5-large task=boolq engine.device_memory",
    f"fpt eval run={RUN} stage=2",
    f"fpt export run={RUN} --to peft",
    f"fpt report {RUN}",
    f"fpt serve run={RUN}",
)


@dataclass(frozen=True)
class Command:
    """A line of a page, the file that a here-document before it writes, and what the page says that it prints."""

    words: tuple[str, ...]
    writes: tuple[str, str] | None = None
    prints: str = ""

    def __str__(self) -> str:
        return " ".join(self.words)

    def write_file(self) -> None:
        if self.writes:
            Path(self.writes[0]).write_text(self.writes[1])


def commands(page: Path) -> list[Command]:
    found = []
    for block, printed in re.findall(r"```sh\n(.*?)```(?:\n\n```text\n(.*?)```)?", page.read_text(), re.DOTALL):
        written = re.search(r"cat > (\S+) <<'END'\n(.*?)END\n", block, re.DOTALL)
        lines = re.sub(r"cat > .*?\nEND\n", "", block, flags=re.DOTALL).replace("\\\n", " ").splitlines()
        for line in lines:
            words = tuple(shlex.split(line, comments=True))
            if words:
                found.append(Command(words, (written[1], written[2]) if written else None, printed))
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


@pytest.mark.parametrize("command", typed("fpt"), ids=str)
def test_a_command_is_understood(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options are the verb's, its keys compose, and its stages fit the model, where no download is needed."""
    monkeypatch.chdir(tmp_path)
    Path("stages.yaml").write_text("[{depth: 4, share: 0.5}, {share: 0.5}]\n")
    for word in command.words:
        key, _, name = word.partition("=")
        if key in ("prompt.file", "task.data"):
            Path(name).mkdir(parents=True, exist_ok=True)
    command.write_file()
    verb = VERBS[command.words[1]]
    words = command.words[2 : command.words.index("<") if "<" in command.words else None]
    arguments = parse(words, verb.options)
    if verb.takes_places:
        return
    assert all("=" in word for word in arguments.overrides)
    for group in ("schedule", "prompt"):
        names = arguments.options.get(f"{group}s", "").split(",")
        assert set(names) <= {"", *keys.group_options(group)}
    settings = [first_of(word) for word in arguments.overrides]
    if any(word.startswith("prompt.file=") for word in settings):
        settings.append("prompt.init=file")
    if not settings:
        return
    config = compose.load(settings)
    if config.model.config or config.model.weights == "embedded":
        assert schedule.of(config).stages


def printed_by(command: Command) -> str:
    """What all pages say that a command prints."""
    return "\n".join(other.prints for other in typed("fpt") if other.words == command.words and other.prints)


def first_of(word: str) -> str:
    """An override, of several values (`train -m`) with the first."""
    values = keys.each(word)
    return f"{word.partition('=')[0]}={values[0]}" if values else word


@pytest.fixture(scope="module")
def place(trains: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run that the pages' commands name, made by one of them."""
    folder = tmp_path_factory.mktemp("pages")
    (command,) = (command for command in typed("fpt") if str(command) == MADE_BY)
    words = [word.replace("seeds=0,1", "seeds=0") for word in command.words[1:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*words, *FEW, *FEW_EXAMPLES]) == 0
    return folder


def test_one_command_of_each_verb_does_what_it_says(
    cli: Callable[..., Outcome], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)  # ends where it would wait for questions
    more = {"train": [*FEW, *TWO_STAGES], "serve": ["port=0"]}
    done = [next(command for command in typed("fpt") if str(command).startswith(start)) for start in DONE]
    assert {command.words[1] for command in [*done]} | {"compare"} == {command.words[1] for command in typed("fpt")}
    for command in done:
        command.write_file()
        outcome = cli(*command.words[1:], *more.get(command.words[1], []))
        assert outcome.status == 0, f"{command}: {outcome.err}"
        assert outcome.out or outcome.err
        shown = [" ".join(line.split()) for line in outcome.out.splitlines()]
        said = [" ".join(line.split()) for line in printed_by(command).splitlines()]
        assert [line for line in said if line not in (*shown, "…")] == [], command


@pytest.mark.parametrize("command", typed("make"), ids=str)
def test_make_passes_a_command_on(command: Command) -> None:
    """What `make` would run is composed."""
    quiet = ["make", "--dry-run", "--no-print-directory", *command.words[1:]]
    shown = subprocess.run(quiet, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = shlex.split(shown.splitlines()[-1])
    if words[0].endswith("bin/fpt"):
        compose.load([word for word in words[2:] if "=" in word and not word.startswith(NO_KEYS)])


def test_python_on_a_page_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the blocks is changed but that a run which is there is opened in place of a longer one."""
    monkeypatch.chdir(place)
    pages = [page for page in PAGES if page.name != "serving.md"]  # tests/stages/using/test_tokens.py runs that one's
    blocks = [code for page in pages for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    assert len(blocks) == 2
    for code in blocks:
        code = with_run(code, place, "runs/example") if "api" in code else code
        exec(compile(code, "page", "exec"), {"__name__": "__main__"})


def with_run(code: str, place: Path, folder: str) -> str:
    """Code that trains into a folder, with the run that is in `place` instead."""
    extra = ", ".join(map(json.dumps, [*FEW, *FEW_EXAMPLES, f"run.dir={RUN}"]))
    changed = re.sub(rf'"train.updates=\d+", "train.eval_every=\d+", "run.dir={folder}"', extra, code)
    assert changed != code
    return changed


def test_the_notebook_runs_and_is_kept_without_outputs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells one after the other, with that run, and pictures that nobody sees."""
    notebook = json.loads((ROOT / "examples/quickstart.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    code = with_run("\n".join("".join(cell["source"]) for cell in cells), place, "runs/quickstart")
    monkeypatch.chdir(place)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "quickstart.ipynb", "exec"), names)
    assert names["vectors"].shape == (20, 128)
    assert (place / RUN / "report.html").exists()
