"""The door: a verb and its words become one call; an error becomes one clear line."""

import json
import os
import sys
from collections.abc import Sequence
from operator import attrgetter

from fpt import __version__
from fpt.cli.arguments import HELP, JSON, parse
from fpt.cli.verbs import OF_LAUNCHERS, VERBS, Verb
from fpt.config import compose, keys
from fpt.devices import ending
from fpt.errors import UserError, did_you_mean
from fpt.runs.progress import quiet_libraries

USAGE = """\
fpt trains prompts for frozen language models: on a small part of the model first, then on larger ones.

usage: fpt VERB [key=value …] [--json]

{verbs}
  fpt VERB --help                         what it takes: options, and every key with its default

Overrides are Hydra's: group=option picks a file of conf/, key.sub=value sets one value.
--json prints the result for programs.  --version prints the version.
"""


OF_LAUNCHERS_OWN = ("--local_rank=", "--local-rank=")  # DeepSpeed's adds it; LOCAL_RANK says the same


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 disk failed, 2 input cannot be used, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(list(map(_typed, words)))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has what it wanted; nothing is left to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:
        return ending.tell(error)


def _typed(word: str) -> str:
    """A word as UTF-8 has it, which Python does not read it as under every locale."""
    try:
        typed = word if word.isascii() else word.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        raise UserError(f"{word!r}: not UTF-8; set the terminal to UTF-8, or give the file another name") from None
    return typed


def _run(words: list[str]) -> int:
    words = [word for word in words if not word.startswith(OF_LAUNCHERS_OWN)]
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
    verb = (VERBS | OF_LAUNCHERS).get(name)
    if verb is None:
        raise UserError(f"{name}: unknown verb; allowed are {', '.join(VERBS)}.{did_you_mean(name, VERBS)}")
    words.remove(name)
    parsed = parse(words, verb.options, takes_places=verb.takes_places)
    if "help" in parsed.options:
        print(_help(name, verb, [] if "multirun" in parsed.options else parsed.overrides), end="")
        return 0
    if parsed.overrides and not (verb.takes_overrides or verb.takes_places):
        raise UserError(f"{parsed.overrides[0]}: unknown option; --help lists what there is")
    quiet_libraries()
    verb.call(parsed)
    return 0


def _help(name: str, verb: Verb, overrides: list[str]) -> str:
    lines = [f"usage: {' '.join(filter(None, ('fpt', name, verb.usage, '[--json]')))}", "", verb.summary, ""]
    for option in filter(lambda option: option.help, (*verb.options, JSON, HELP)):
        default = f" ({option.default})" if option.default else ""
        lines += [f"  {option.spelling}", f"      {option.help}{default}"]
    if not verb.takes_overrides:
        return "\n".join(lines) + "\n"
    lines += ["", "groups:"]
    for group in keys.GROUPS:
        more = ", or a local folder, or a Hub id" if group == "model" else ""
        lines.append(f"  {group}={' | '.join(keys.group_options(group))}{more}")
    lines += ["", f"keys and what they are in {' '.join(['fpt', name, *overrides])}:"]
    config = compose.load(overrides)
    for key, setting in keys.settings().items():
        value = attrgetter(key)(config)
        shown = "…" if isinstance(value, list | dict) else json.dumps(value)
        lines += [f"  {key}={shown}", f"      {setting.metadata['help']}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
