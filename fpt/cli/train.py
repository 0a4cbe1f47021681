"""The verbs that train: one run, a sweep over values, a comparison of schedules."""

from collections.abc import Iterator, Sequence
from typing import Any

from fpt.backbones.location import config_values
from fpt.backbones.shapes import read_sizes
from fpt.cli.arguments import Arguments, launched, read_task
from fpt.cli.tables import present, print_comparison, print_result, print_sweep
from fpt.config import compose
from fpt.config.run_config import RunConfig, check_quantize
from fpt.devices import ending, processes
from fpt.errors import UserError
from fpt.prompts import files
from fpt.runs import folder
from fpt.runs.metrics import is_tracked
from fpt.runs.progress import Progress
from fpt.runs.run import Run
from fpt.tasks.opening import open_task
from stages import resolve, schedule, several
from stages.schedule import Schedule
from stages.several import Planned


def train(arguments: Arguments) -> None:
    """Run `fpt train`, also as one of several processes, whoever started them."""
    if "multirun" in arguments.options:
        sweep(arguments)
        return
    config = resolve.for_training(compose.load(arguments.overrides))
    result = _share(config) if processes.is_worker() else _one(arguments.typed, config)
    if result and processes.speaks() and "quiet" not in arguments.options:
        present(arguments, result, lambda result: print_result(result, str(config.folder)))


def _one(words: Sequence[str], config: RunConfig) -> dict[str, Any] | None:
    """Train the run that these words configure; returns its result, or None if several processes did and printed it."""
    progress, stages = Progress(), _checked(config)
    if launched(["train", *words], config, progress):
        return None
    task = read_task(config, progress)
    with progress.console.status("importing torch and transformers"):
        from stages.run import run
    with ending.heard():
        return run(config, stages, lambda: task, progress)


def _checked(config: RunConfig) -> Schedule:
    """Check all that can be checked before data and weights are read; returns the run's schedule."""
    is_tracked(config.tracking)  # or is refused here
    check_quantize(config.engine.quantize)
    stages = schedule.of(config)
    files.prompt_to_start_from(config.prompt, read_sizes(*config_values(config.model)).width)
    folder.check_usable(config.folder, starts_over=config.resume == "never")
    return stages


def _share(config: RunConfig) -> dict[str, Any]:
    """Train as one of several processes."""
    with ending.one_of_several():
        processes.check_started(config)
        from stages.run import run

        return run(config, schedule.of(config), lambda: open_task(config), Progress())


def sweep(arguments: Arguments) -> None:
    """Run `fpt train -m`: all combinations of values, one after the other; one that fails does not stop the others."""
    rows = []
    for planned, run in _trained(several.combinations(arguments.overrides)):
        error, result = (str(run), {}) if isinstance(run, UserError) else (None, run.result)
        if error:
            Progress().say(f"{planned.label}: {error}")
        outcome = {key: result.get(key) for key in ("metric", "flops", "seconds")}
        rows.append({"values": planned.values, "folder": str(planned.config.folder), **outcome, "error": error})
    present(arguments, rows, print_sweep)
    if failed := sum(row["error"] is not None for row in rows):
        raise UserError(f"{failed} of {len(rows)} runs failed; what they said is above")


def compare(arguments: Arguments) -> None:
    """Run `fpt compare`."""
    seeds, names = arguments.listed("seeds", "0,1,2"), arguments.listed("schedules", "pt,ld,fr,cr")
    if wrong := [seed for seed in seeds if not seed.isdecimal()]:
        raise UserError(f"seeds={','.join(seeds)}: {wrong[0]} is no whole number, at least 0")
    plans, ended = several.comparison(arguments.overrides, names, [int(seed) for seed in seeds]), dict[str, list[Run]]()
    if several.VANILLA not in names:
        Progress().say("pt is added: the others are held against it")
    for planned, run in _trained(plans):
        if isinstance(run, UserError):
            raise run
        ended.setdefault(planned.values["schedule"], []).append(run)
    present(arguments, several.compare(ended), print_comparison)


def _trained(plans: Sequence[Planned]) -> Iterator[tuple[Planned, Run | UserError]]:
    """Train several runs one after the other, each without printing its result."""
    return several.run_all(plans, _checked, lambda one: _one((*one.words, "--quiet"), one.config), Progress().say)
