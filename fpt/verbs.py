"""What can be done: each verb from its words to one call, and what is printed of it.

Imports that take long stand in the functions: an error in the words must not wait for torch.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpt import compose, interrupts, launch
from fpt.config import RunConfig
from fpt.errors import UserError
from fpt.words import Option, Words


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        call: does it.
        about: one line.
        example: its words in the list of all verbs.
        usage: its words in its own help; empty: the verb alone.
        options: what it takes besides overrides.
        takes_places: whether words without = are folders or files of its.
        takes_overrides: whether it has a configuration.
    """

    call: Callable[[Words], None]
    about: str = ""
    example: str = ""
    usage: str = ""
    options: tuple[Option, ...] = ()
    takes_places: bool = False
    takes_overrides: bool = True


def _train(words: Words) -> None:
    if "multirun" in words.options:
        _sweep(words)
        return
    config = compose.load(words.overrides)
    if launch.is_worker():
        _share(config, words)
        return
    result = _one(config, ["--json"] if words.as_json else [])
    if result is not None:
        _print_result(result, config, words)


def _one(config: RunConfig, flags: list[str]) -> dict[str, Any] | None:
    """Train one run to its end; None where several processes do it, whose main one prints the result."""
    from fpt.tasks import form_of
    from fpt.tasks.kept import open_task
    from fpt.trackers import chosen
    from fpt.tracking import Tracker
    from stages import schedule

    chosen(config.tracking)
    tracker, stages = Tracker(), schedule.of(config)
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
        launch.start(config, flags)
        return None
    with interrupts.heard():
        return run(config, stages, lambda: task, tracker)


def _sweep(words: Words) -> None:
    """`fpt train -m`: all combinations; one that fails does not stop the others."""
    from fpt.tracking import Tracker
    from stages import series, sweep

    say, runs = Tracker().say, sweep.plan(words.overrides)
    series.check(runs)
    done = []
    for run, records in series.run_all(runs, lambda config: _one(config, ["--quiet"]), say):
        if isinstance(records, UserError):
            say(f"{run.label}: {records}")
        done.append((run, records))
    rows = sweep.table(done)
    if words.as_json:
        _print_json(rows)
    else:
        from fpt.console import print_sweep

        print_sweep(rows)
    if failed := sum(row["error"] is not None for row in rows):
        raise UserError(f"{failed} of {len(rows)} runs failed; what they said is above")


def _compare(words: Words) -> None:
    from stages import compare, series

    schedules, seeds = words.listed("schedules", "pt,ld,fr,cr"), words.listed("seeds", "0,1,2")
    if wrong := [seed for seed in seeds if not seed.isdecimal()]:
        raise UserError(f"seeds={','.join(seeds)}: {wrong[0]} is no whole number, at least 0")
    runs = compare.plan(words.overrides, schedules, [int(seed) for seed in seeds])
    series.check(runs)
    from fpt.tracking import Tracker

    say, found = Tracker().say, dict[str, list[Any]]()
    if "pt" not in schedules:
        say("pt is added: the others are held against it")
    for run, records in series.run_all(runs, lambda config: _one(config, ["--quiet"]), say):
        if isinstance(records, UserError):
            raise records
        found.setdefault(run.config.schedule.name, []).append(records)
    compared = compare.compare(found)
    if words.as_json:
        _print_json(compared)
    else:
        from fpt.console import print_comparison

        print_comparison(compared)


def _worker(words: Words) -> None:
    """One process of several: `fpt worker FILE`, which launchers call."""
    file = Path(*words.places)
    _share(launch.read_config(file), words, reports=file.parent)


def _share(config: RunConfig, words: Words, *, reports: Path | None = None) -> None:
    """Train as one of several processes."""
    with launch.reporting(config.folder, reports), interrupts.heard():
        from fpt.tasks.kept import open_task
        from fpt.tracking import Tracker
        from stages import schedule
        from stages.run import run

        result = run(config, schedule.of(config), lambda: open_task(config), Tracker())
        if os.environ["RANK"] == "0" and "quiet" not in words.options:
            _print_result(result, config, words)


def _print_result(result: dict[str, Any], config: RunConfig, words: Words) -> None:
    if words.as_json:
        _print_json(result)
    else:
        from fpt.console import print_result

        print_result(result, str(config.folder))


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _plan(words: Words) -> None:
    config = compose.load(words.overrides)
    from stages import schedule

    stages = schedule.of(config)
    from stages import fit
    from stages.plan import nominal

    plan = {**nominal(config, stages), "memory": fit.plan_memory(config, stages).to_json()}
    if words.as_json:
        _print_json(plan)
    else:
        from fpt.console import print_plan

        print_plan(plan)


def _show(words: Words) -> None:
    number = words.number("n", 3, least=0)
    config = compose.load(words.overrides)
    from fpt.tasks.kept import open_task
    from fpt.tracking import Tracker

    tracker = Tracker()
    with tracker.console.status("reading the data"):
        task = open_task(config)
    with tracker.console.status("importing torch and transformers"):
        from fpt.show import look
    with tracker.running():
        shown = look(config, task, number, tracker.watch)
    if words.as_json:
        _print_json(shown)
    else:
        from fpt.console import print_look

        print_look(shown)


def _doctor(words: Words) -> None:
    if words.overrides:
        raise UserError(f"{words.overrides[0]}: fpt doctor takes nothing but --json")
    from fpt.tracking import Tracker

    with Tracker().console.status("looking around"):
        from fpt import doctor

        report = doctor.examine(Path(compose.load([]).cache_dir))
    if words.as_json:
        _print_json(report)
    else:
        from fpt.console import print_report

        print_report(report)
    if report["problems"]:
        raise launch.Failed("; ".join(report["problems"]), 1)


VERBS = {
    "train": Verb(
        _train,
        about="train, or go on with a run that was stopped",
        example="train task=boolq",
        usage="train [-m] [key=value …] [--json]",
        options=(
            Option("multirun", "a run for every combination of values, as in optim.lr=0.1,0.3 seed=0,1", short="m"),
        ),
    ),
    "compare": Verb(
        _compare,
        about="schedules against vanilla prompt tuning: score, FLOPs, time, gain at equal FLOPs",
        example="compare task=boolq seeds=0,1",
        usage="compare [key=value …] [schedules=pt,cr] [seeds=0,1] [--json]",
        options=(
            Option("schedules", "files of conf/schedule, or FILE.yaml; pt is added to them", "A,B", "pt,ld,fr,cr"),
            Option("seeds", "a run of every schedule for each; run.dir=DIR keeps them in DIR", "N,M", "0,1,2"),
        ),
    ),
    "plan": Verb(
        _plan,
        about="what every stage will cost, without weights or data",
        example="plan model=t5-large schedule=cr",
        usage="plan [key=value …] [--json]",
    ),
    "show": Verb(
        _show,
        about="the task's data as the model will see them",
        example="show task=boolq n=3",
        usage="show [key=value …] [n=3] [--json]",
        options=(Option("n", "how many examples to show", "N", "3"),),
    ),
    "doctor": Verb(
        _doctor,
        about="versions, devices, DeepSpeed, the Hub, the embedded model: for a bug report",
        example="doctor",
        usage="doctor [--json]",
        takes_overrides=False,
    ),
}
QUIET = Option("quiet", "print no result")
OF_LAUNCHERS = {"worker": Verb(_worker, takes_places=True, options=(QUIET,))}  # called by processes, not by people
