"""The verbs that train: one run, every combination of values, schedules against each other."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fpt.cli import tables
from fpt.cli.arguments import Words
from fpt.cli.verb import present
from fpt.config import compose
from fpt.config.schema import RunConfig
from fpt.devices import interrupts, launch
from fpt.errors import UserError


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
    from fpt.backbones.location import config_values
    from fpt.data.example_cache import open_task
    from fpt.prompts import files
    from fpt.runs.progress import Progress
    from fpt.runs.trackers import chosen
    from fpt.tasks.catalogue import rules_of
    from stages import schedule

    chosen(config.tracking)
    progress, stages = Progress(), schedule.of(config)
    files.check(config.prompt, config_values(config.model)[0]["d_model"])
    is_alone = not launch.is_for(config)
    rules_of(config.task)
    with progress.console.status("reading the data"):
        task = open_task(config) if is_alone else None
    with progress.console.status("importing torch and transformers"):
        from stages.planning import memory as fit
        from stages.run import run
    if task is None:
        if config.engine.name == "auto":
            config, reason = fit.with_engine(config, stages)
            progress.say(reason)
        launch.start(config, flags)
        return None
    with interrupts.heard():
        return run(config, stages, lambda: task, progress)


def _quietly(config: RunConfig) -> dict[str, Any] | None:
    """One of several runs, whose results are printed together."""
    return _one(config, ["--quiet"])


def _printer(config: RunConfig) -> Callable[[dict[str, Any]], None]:
    return lambda result: tables.print_result(result, str(config.folder))


def worker(words: Words) -> None:
    """One process of several: `fpt worker FILE`, which launchers call."""
    file = Path(*words.places)
    _share(launch.read_config(file), words, reports=file.parent)


def _share(config: RunConfig, words: Words, *, reports: Path | None = None) -> None:
    """Train as one of several processes."""
    with launch.reporting(config.folder, reports), interrupts.heard():
        from fpt.data.example_cache import open_task
        from fpt.runs.progress import Progress
        from stages import schedule
        from stages.run import run

        result = run(config, schedule.of(config), lambda: open_task(config), Progress())
        if os.environ["RANK"] == "0" and "quiet" not in words.options:
            present(words, result, _printer(config))


def sweep(words: Words) -> None:
    """`fpt train -m`: all combinations; one that fails does not stop the others."""
    from fpt.runs.progress import Progress
    from stages.several import in_turn, sweep

    say, runs = Progress().say, sweep.plan(words.overrides)
    in_turn.check(runs)
    done = []
    for run, records in in_turn.run_all(runs, _quietly, say):
        if isinstance(records, UserError):
            say(f"{run.label}: {records}")
        done.append((run, records))
    rows = sweep.table(done)
    present(words, rows, tables.print_sweep)
    if failed := sum(row["error"] is not None for row in rows):
        raise UserError(f"{failed} of {len(rows)} runs failed; what they said is above")


def compare(words: Words) -> None:
    """`fpt compare`."""
    from stages.several import compare, in_turn

    schedules, seeds = words.listed("schedules", "pt,ld,fr,cr"), words.listed("seeds", "0,1,2")
    if wrong := [seed for seed in seeds if not seed.isdecimal()]:
        raise UserError(f"seeds={','.join(seeds)}: {wrong[0]} is no whole number, at least 0")
    runs = compare.plan(words.overrides, schedules, [int(seed) for seed in seeds])
    in_turn.check(runs)
    from fpt.runs.progress import Progress

    say, found = Progress().say, dict[str, list[Any]]()
    if "pt" not in schedules:
        say("pt is added: the others are held against it")
    for run, records in in_turn.run_all(runs, _quietly, say):
        if isinstance(records, UserError):
            raise records
        found.setdefault(run.config.schedule.name, []).append(records)
    present(words, compare.compare(found), tables.print_comparison)
