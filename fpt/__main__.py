"""The door: a verb and overrides become a typed configuration and one call; an error becomes one clear line."""

import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fpt import __version__, compose, interrupts, launch
from fpt.config import RunConfig
from fpt.errors import UserError, did_you_mean
from fpt.interrupts import Interrupted
from fpt.launch import GOES_ON, Failed
from fpt.tracking import quiet_libraries

USAGE = """\
fpt trains a soft prompt for a T5 by fast prompt tuning: on a small partial model first, then on larger ones.

usage: fpt VERB [key=value …] [--json]

  fpt train task=boolq                    train, or go on with a run that was stopped
  fpt plan model=t5-large schedule=cr     what every stage will cost, without weights or data
  fpt show task=boolq n=3                 the task's data as the model will see them
  fpt VERB --help                         every key with its default

Overrides are Hydra's: group=option picks a file of conf/, key.sub=value sets one value.
--json prints the result for programs.  --version prints the version.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 disk failed, 2 input cannot be used, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"fpt: {error}", file=sys.stderr)
        return 2
    except Failed as error:
        print(f"fpt: {error}", file=sys.stderr)
        return error.status
    except Interrupted as error:
        print(f"fpt: {error}; {GOES_ON}", file=sys.stderr)
        return 128 + error.signal
    except KeyboardInterrupt:
        print("fpt: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has what it wanted; nothing is left to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(
            f"fpt: {where}{error.strerror}; {GOES_ON}",
            file=sys.stderr,
        )
        return 1


def _run(words: list[str]) -> int:
    flags = {word for word in words if word.startswith("-")}
    rest = [word for word in words if word not in flags]
    for flag in flags - {"--help", "-h", "--json", "--version"}:
        known = ("--help", "--json", "--version")
        raise UserError(f"{flag}: unknown option; allowed are {', '.join(known)}.{did_you_mean(flag, known)}")
    if "--version" in flags:
        print(__version__)
        return 0
    wants_help = bool(flags & {"--help", "-h"})
    if not rest:
        print(USAGE, end="", file=sys.stdout if wants_help else sys.stderr)
        return 0 if wants_help else 2
    verb, *overrides = rest
    if verb not in VERBS | OF_LAUNCHERS:
        raise UserError(f"{verb}: unknown verb; allowed are {', '.join(VERBS)}.{did_you_mean(verb, VERBS)}")
    if wants_help:
        print(_help(verb, overrides), end="")
        return 0
    quiet_libraries()
    (VERBS | OF_LAUNCHERS)[verb](overrides, "--json" in flags)
    return 0


def _number(words: list[str]) -> tuple[int, list[str]]:
    """How many examples `n=` asks for, 3 if it does not, and the words without it: it is no part of a run."""
    given = [word.removeprefix("n=") for word in words if word.startswith("n=")]
    if any(not number.isdecimal() for number in given):
        raise UserError(f"n={given[-1]}: expected a whole number, of examples to show")
    return int(given[-1]) if given else 3, [word for word in words if not word.startswith("n=")]


def _train(overrides: list[str], as_json: bool) -> None:
    config = compose.load(overrides)
    from fpt.tasks import form_of
    from fpt.tasks.kept import open_task
    from fpt.tracking import Tracker
    from stages import schedule

    tracker, stages = Tracker(), schedule.of(config)
    if launch.is_worker():
        _share(config, as_json)
        return
    is_alone = not launch.is_for(config)
    form_of(config.task)
    with tracker.console.status("reading the data"):
        task = open_task(config) if is_alone else None
    with tracker.console.status("importing torch and transformers"):
        from stages import fit
        from stages.run import run
    if task is None:
        if config.engine.name == "auto":
            config, reason = fit.with_engine(config, stages)
            tracker.say(reason)
        launch.start(config, ["--json"] if as_json else [])
        return
    with interrupts.heard():
        _print_result(run(config, stages, lambda: task, tracker), config, as_json)


def _worker(words: list[str], as_json: bool) -> None:
    """One process of several: `fpt worker FILE`, which launchers call."""
    file = Path(*words)
    _share(launch.read_config(file), as_json, reports=file.parent)


def _share(config: RunConfig, as_json: bool, *, reports: Path | None = None) -> None:
    """Train as one of several processes."""
    with launch.reporting(config.folder, reports), interrupts.heard():
        from fpt.tasks.kept import open_task
        from fpt.tracking import Tracker
        from stages import schedule
        from stages.run import run

        result = run(config, schedule.of(config), lambda: open_task(config), Tracker())
        if os.environ["RANK"] == "0":
            _print_result(result, config, as_json)


def _print_result(result: dict[str, Any], config: RunConfig, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        from fpt.report import print_result

        print_result(result, str(config.folder))


def _plan(overrides: list[str], as_json: bool) -> None:
    config = compose.load(overrides)
    from stages import schedule

    stages = schedule.of(config)
    from stages import fit
    from stages.plan import nominal

    plan = {**nominal(config, stages), "memory": fit.plan_memory(config, stages).to_json()}
    if as_json:
        print(json.dumps(plan, indent=2))
    else:
        from fpt.report import print_plan

        print_plan(plan)


def _show(overrides: list[str], as_json: bool) -> None:
    number, overrides = _number(overrides)
    config = compose.load(overrides)
    from fpt.tasks.kept import open_task
    from fpt.tracking import Tracker

    tracker = Tracker()
    with tracker.console.status("reading the data"):
        task = open_task(config)
    with tracker.console.status("importing torch and transformers"):
        from fpt.show import look
    with tracker.running():
        shown = look(config, task, number, tracker.watch)
    if as_json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        from fpt.report import print_look

        print_look(shown)


VERBS: dict[str, Callable[[list[str], bool], None]] = {"train": _train, "plan": _plan, "show": _show}
OF_LAUNCHERS = {"worker": _worker}  # called by processes, not by people


def _help(verb: str, overrides: list[str]) -> str:
    lines = [f"usage: fpt {verb} [key=value …] [--json]", ""]
    if verb == "show":
        number, overrides = _number(overrides)
        lines = [
            f"usage: fpt {verb} [key=value …] [n=3] [--json]",
            "",
            f"n={number}",
            "  how many examples to show",
            "",
        ]
    lines += ["groups:"]
    for group in compose.GROUPS:
        options = [name for name in compose.group_options(group) if name != "custom"]
        more = ", or a local folder, or a Hub id" if group == "model" else ""
        lines.append(f"  {group}={' | '.join(options)}{more}")
    lines += ["", f"keys and what they are in {' '.join(['fpt', verb, *overrides])}:"]
    defaults = compose.load(overrides)
    for key, (_, metadata) in compose.settings().items():
        value: Any = defaults
        for part in key.split("."):
            value = getattr(value, part)
        shown = "…" if isinstance(value, list | dict) else json.dumps(value)
        lines.append(f"  {key}={shown}")
        lines.append(f"      {metadata['help']}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
