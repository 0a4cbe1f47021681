"""The verbs that train: one run, every combination of values, schedules against each other."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fpt import compose, console, interrupts, launch
from fpt.config import RunConfig
from fpt.errors import UserError
from fpt.verbs.verb import present
from fpt.words import Words


def train(words: Words) -> None:
    """`fpt train`, also as one process of another launcher's."""
    if "multirun" in words.options:
        sweep(words)
        return
    config = compose.load(words.overrides)
    if launch.is_worker():
        _share(config, words)
        return
    result = _one(config, ["--json"] if words.as_json else [])
    if result is not None:
        present(words, result, _printer(config))


def _one(config: RunConfig, flags: list[str]) -> dict[str, Any] | None:
    """Train one run to its end; None where several processes do it, whose main one prints the result."""
    from fpt.backbones.source import config_values
    from fpt.prompts import files
    from fpt.tasks import form_of
    from fpt.tasks.kept import open_task
    from fpt.trackers import chosen
    from fpt.tracking import Tracker
    from stages import schedule

    chosen(config.tracking)
    tracker, stages = Tracker(), schedule.of(config)
    files.check(config.prompt, config_values(config.model)[0]["d_model"])
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


def _quietly(config: RunConfig) -> dict[str, Any] | None:
    """One of several runs, whose results are printed together."""
    return _one(config, ["--quiet"])


def _printer(config: RunConfig) -> Callable[[dict[str, Any]], None]:
    return lambda result: console.print_result(result, str(config.folder))


def worker(words: Words) -> None:
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
            present(words, result, _printer(config))


def sweep(words: Words) -> None:
    """`fpt train -m`: all combinations; one that fails does not stop the others."""
    from fpt.tracking import Tracker
    from stages import series, sweep

    say, runs = Tracker().say, sweep.plan(words.overrides)
    series.check(runs)
    done = []
    for run, records in series.run_all(runs, _quietly, say):
        if isinstance(records, UserError):
            say(f"{run.label}: {records}")
        done.append((run, records))
    rows = sweep.table(done)
    present(words, rows, console.print_sweep)
    if failed := sum(row["error"] is not None for row in rows):
        raise UserError(f"{failed} of {len(rows)} runs failed; what they said is above")


def compare(words: Words) -> None:
    """`fpt compare`."""
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
    for run, records in series.run_all(runs, _quietly, say):
        if isinstance(records, UserError):
            raise records
        found.setdefault(run.config.schedule.name, []).append(records)
    present(words, compare.compare(found), console.print_comparison)
