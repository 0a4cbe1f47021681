"""Runs a command line: finds its verb and calls it, or prints help.

Verbs import torch only inside their functions (setup.cfg lists where), so that errors in what was typed come at once.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from fpt import __version__
from fpt.cli import look, train, use
from fpt.cli.arguments import Arguments, parse, parser_of
from fpt.config import compose, keys, literal
from fpt.errors import UserError, check_among
from fpt.runs.progress import quiet_libraries

LOCAL_RANK = ("--local_rank=", "--local-rank=")  # DeepSpeed's launcher adds it; the environment says the same


@dataclass(frozen=True)
class Verb:
    """A verb of the command line, with its help."""

    call: Callable[[Arguments], None]
    summary: str = ""
    example: str = ""  # of its use, for the list of all verbs
    usage: str = ""  # the part between the verb and --json in its own help
    options: dict[str, str] = field(default_factory=dict)  # besides overrides, with their help
    takes_places: bool = False  # whether it takes folders
    takes_overrides: bool = True  # whether it takes overrides of a configuration


CALLS = {
    "train": train.train,
    "compare": train.compare,
    "plan": look.plan,
    "show": look.show,
    "eval": use.evaluate,
    "predict": use.predict,
    "serve": use.serve,
    "export": use.export,
    "report": look.report,
    "doctor": look.doctor,
}


TABLE: dict[str, Any] = literal.own_table(Path(__file__).with_name("verbs.yaml"))
USAGE: str = TABLE.pop("fpt")
VERBS = {name: Verb(CALLS[name], **values) for name, values in TABLE.items()}


def run(typed: list[str]) -> int:
    """Run the command that was typed; returns the exit status, 0 or 2."""
    words = [_in_utf8(word) for word in typed if not word.startswith(LOCAL_RANK)]
    if "--version" in words:
        print(__version__)
        return 0
    flags = [word for word in words if word in ("-h", "--help")]
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None:
        if unknown := [word for word in words if word not in flags]:
            raise UserError(f"{unknown[0]}: give a verb first; fpt --help lists them")
        verbs = "\n".join(f"  fpt {verb.example:36}{verb.summary}" for verb in VERBS.values())
        print(USAGE.format(verbs=verbs), end="", file=sys.stdout if flags else sys.stderr)
        return 0 if flags else 2
    check_among(name, VERBS, f"{name}: unknown verb; allowed are")
    words.remove(name)
    _call(name, VERBS[name], words)
    return 0


def _in_utf8(word: str) -> str:
    """Decode a word of the command line as UTF-8, whatever the locale."""
    try:
        return word if word.isascii() else word.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        raise UserError(f"{word!r}: not UTF-8; set the terminal to UTF-8, or give the file another name") from None


def _call(name: str, verb: Verb, words: list[str]) -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(f"the working directory is gone ({error.strerror}); cd to a folder that exists") from None
    arguments = parse(words, verb.options)
    if "help" in arguments.options:
        print(_help(name, verb, [] if "multirun" in arguments.options else arguments.overrides), end="")
        return
    if arguments.overrides and not (verb.takes_overrides or verb.takes_places):
        raise UserError(f"{arguments.overrides[0]}: unknown option; --help lists what there is")
    quiet_libraries()
    verb.call(arguments)


def _help(name: str, verb: Verb, overrides: list[str]) -> str:
    usage = f"fpt {name} {verb.usage} [--json]".replace("  ", " ")
    lines = [parser_of(verb.options, usage=usage, summary=verb.summary).format_help()]
    if not verb.takes_overrides:
        return lines[0]
    lines += ["groups:"]
    for group in keys.GROUPS:
        more = ", or a local folder, or a Hub id" if group == "model" else ""
        lines.append(f"  {group}={' | '.join(keys.group_options(group))}{more}")
    lines += ["", f"keys and what they are in {' '.join(['fpt', name, *overrides])}:"]
    config = compose.load(overrides)
    for key, help in keys.helps().items():
        value = attrgetter(key)(config)
        shown = "…" if isinstance(value, list | dict) else json.dumps(value)
        lines += [f"  {key}={shown}", f"      {help}"]
    return "\n".join(lines) + "\n"
