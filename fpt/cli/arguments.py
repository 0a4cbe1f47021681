"""Reads what is typed after a verb: options and overrides, and what it works on, such as the prompts of runs."""

import re
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fpt.backbones.location import locate
from fpt.config import compose
from fpt.config.mixture import tasks_of
from fpt.config.run_config import RunConfig, check_quantize
from fpt.config.schema import MOST, MOST_TOKENS, place
from fpt.devices import processes
from fpt.errors import UserError, did_you_mean
from fpt.runs.files import check_writable
from fpt.runs.folder import LEDGER
from fpt.runs.progress import Progress
from fpt.runs.run import Run, open_run
from fpt.tasks.catalogue import data_of, rules_of
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task

if TYPE_CHECKING:
    from stages.using.learned import LearnedPrompt


SHORT = {"help": ["-h"], "multirun": ["-m"]}
OF_EVERY_VERB = {"json": "print the result for programs", "help": "show this help"}
Subject = tuple[Run | None, RunConfig]
ALONE = ""  # the name of a single prompt, which needs none
NAME = re.compile(r"[a-zA-Z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Arguments:
    """What was typed after a verb, sorted into options and overrides."""

    typed: Sequence[str]
    overrides: list[str]  # of a configuration; for fpt report, folders
    options: dict[str, str]

    def number(self, name: str, default: int, *, least: int = 1, most: int = MOST) -> int:
        """The whole number that an option gives, or the default; refuse one out of bounds."""
        text = self.options.get(name, str(default))
        if not text.isdecimal() or len(text) > len(str(most)) or not least <= int(text) <= most:
            raise UserError(f"{name}={text[:40]}: expected a whole number, at least {least} and at most {most}")
        return int(text)

    def output_limit(self) -> int | None:
        """How many tokens an output may have; None: as many as in training."""
        return self.number("max-new-tokens", 0, least=0, most=MOST_TOKENS) or None

    def listed(self, name: str, default: str) -> list[str]:
        """The values of an option, separated by commas."""
        text = self.options.get(name, default)
        values = [value.strip() for value in text.split(",")]
        if not all(values) or len(set(values)) < len(values):
            raise UserError(f"{name}={text}: expected values parted by commas, each once, as in {name}={default}")
        return values


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def parser_of(options: Mapping[str, str], *, usage: str = "", summary: str = "") -> ArgumentParser:
    """A parser of options with their help: `run=DIR` takes a value, `json` is a flag; one without help is not shown."""
    parser = _Parser(usage=usage, description=summary, add_help=False, allow_abbrev=False)
    for key, help in (dict(options) | OF_EVERY_VERB).items():
        name, _, takes = key.partition("=")
        spellings = [*SHORT.get(name, ()), f"--{name}"]
        if takes:
            parser.add_argument(*spellings, dest=name, metavar=takes, action="append", help=help)
        else:
            parser.add_argument(*spellings, dest=name, action="append_const", const="", help=help or SUPPRESS)
    return parser


def parse(words: Sequence[str], options: Mapping[str, str]) -> Arguments:
    """Sort a verb's words into options, which may be written `name=value` too, and the rest."""
    known = {key.partition("=")[0]: key.partition("=")[2] for key in (*options, *OF_EVERY_VERB)}
    dashed = [f"--{word}" if "=" in word and word.partition("=")[0] in known else word for word in words]
    found, rest = parser_of(options).parse_known_args(dashed)
    given = {name: values for name, values in vars(found).items() if values}
    for name, values in given.items():
        if len(values) > 1:
            raise UserError(f"{name}: is given twice")
        if known[name].startswith(("DIR", "FILE")):
            place(values[0], name)
    for word in rest:
        if word.startswith("-") and word != "-":
            shown = [f"--{name}" for name in known if name != "quiet"]
            raise UserError(f"{word}: unknown option; allowed are {', '.join(shown)}.{did_you_mean(word, shown)}")
    return Arguments(words, rest, {name: values[0] for name, values in given.items()})


def subjects_of(arguments: Arguments) -> dict[str, Subject]:
    """The prompts to use, by name: those of several finished runs, or a single one."""
    paths = runs_of(arguments) if "run" in arguments.options else []
    if len(paths) < 2:
        if "names" in arguments.options:
            raise UserError("names=…: is for run=A,B, several runs; one needs no name")
        return {ALONE: subject_of(arguments)}
    subjects = [subject_of(arguments, path) for path in paths]
    return dict(zip(names_of(arguments, paths, [config for _, config in subjects]), subjects, strict=True))


def subject_of(arguments: Arguments, path: str | None = None) -> Subject:
    """The run to use, from `path` or run= (None with prompt.file=), and the configuration to use it with."""
    typed = {word.partition("=")[0] for word in arguments.overrides}
    if "run" in arguments.options:
        if "prompt.file" in typed:
            raise UserError("run=… and prompt.file=… both name a prompt; give one of them")
        run = open_run(path or arguments.options["run"])
        _ = run.result  # refuses a run that is not finished
        return run, _checked(compose.load(arguments.overrides, base=run.config))
    if "prompt.file" not in typed:
        raise UserError("which prompt? give run=DIR, a run's folder, or prompt.file=FILE with model= and task=")
    if "stage" in arguments.options:
        raise UserError("stage=…: is for run=DIR; a prompt file has no stages")
    return None, _checked(compose.load([*arguments.overrides, "prompt.init=file"]))


def _checked(config: RunConfig) -> RunConfig:
    check_quantize(config.engine.quantize)
    return processes.together(config)


def runs_of(arguments: Arguments) -> list[str]:
    """The folders that run= names: one, or several separated by commas; a folder's own name may have commas too."""
    text = arguments.options["run"]
    return [text] if Path(text).expanduser().is_dir() else arguments.listed("run", "A,B")


def names_of(arguments: Arguments, paths: Sequence[str], configs: Sequence[RunConfig]) -> list[str]:
    """The names of the prompts of several runs: those that names= gives, or each prompt's task."""
    tasks = [config.task.name for config in configs]
    given = arguments.listed("names", "A,B") if "names" in arguments.options else tasks
    typed = f"names={','.join(given)}"
    if len(given) != len(paths):
        raise UserError(f"{typed}: {len(given)} names for {len(paths)} runs; give one for each, in their order")
    if twice := next((name for name in given if given.count(name) > 1), None):
        raise UserError(f"run={','.join(paths)}: two prompts would be called {twice}; give names=A,B, one for each run")
    if wrong := next((name for name in given if not NAME.fullmatch(name)), None):
        raise UserError(f"{typed}: {wrong} is no name of letters, digits, -, _ and .; give names=A,B, one for each run")
    return given


def stage_of(arguments: Arguments) -> int | None:
    """The number that stage= gives; None if it is not given."""
    return arguments.number("stage", 1) if "stage" in arguments.options else None


def learned_from(arguments: Arguments, run: Run | None, config: RunConfig) -> "LearnedPrompt":
    """The prompt of a run, or of prompt.file=."""
    from stages.using import learned

    return learned.from_file(config) if run is None else learned.from_run(run, stage_of(arguments))


def read_task(config: RunConfig, progress: Progress) -> Task:
    """Read the task's examples, after a look for the model.

    The model's few small files are fetched first, because a missing model shows within two seconds, while requests for
    data are repeated for half a minute if the Hub does not answer; the user is told so.
    """
    tasks = [(own, rules_of(own.task)) for own in tasks_of(config).values()]
    with progress.console.status("looking for the model"):
        locate(config.model, with_weights=False)
    for own, rules in tasks:
        if (data := data_of(own, rules)) == "hub":
            origin = rules.records.describe(data)
            progress.say(f"reading {origin}; if the Hub does not answer, this takes half a minute")
    with progress.console.status("reading the data"):
        return open_task(config)


def launched(words: list[str], config: RunConfig, progress: Progress) -> bool:
    """Run `fpt WORDS` in several processes if the configuration asks for them; the main one prints and writes."""
    if not processes.must_be_launched(config):
        return False
    with progress.console.status("importing torch and transformers"):
        from fpt.devices.distributed import launch
    launch(config.engine, words)
    return True


def output_file(name: str | Path) -> Path:
    """The file that `output=` names; refuse one that cannot be written or belongs to a run."""
    file = Path(name).expanduser()
    if file.is_dir():
        raise UserError(f"output={file}: is a folder; give a file")
    if file.exists() and (file.parent / LEDGER).is_file():
        raise UserError(f"output={file}: is a record of the run in that folder; give another file")
    check_writable(file.parent, f"output={file}", "; give another output=FILE")
    return file
