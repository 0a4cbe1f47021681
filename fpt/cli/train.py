"""The verbs that train: one run, a sweep over values, a comparison of schedules."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fpt.backbones.location import config_values
from fpt.backbones.shapes import read_sizes
from fpt.cli.arguments import Arguments
from fpt.cli.result_tables import print_comparison, print_result, print_sweep
from fpt.cli.subjects import read_task
from fpt.cli.tables import present
from fpt.config import compose
from fpt.config.clashes import check_quantize
from fpt.config.run_config import RunConfig
from fpt.devices import interrupts, processes
from fpt.devices.ending import one_of_several
from fpt.errors import UserError
from fpt.prompts import files
from fpt.runs import folder
from fpt.runs.metrics import is_tracked
from fpt.runs.progress import Progress
from fpt.runs.run import Run
from fpt.tasks.opening import open_task
from stages import resolve, schedule
from stages.schedule import Schedule
from stages.several import compare as comparison
from stages.several import in_turn
from stages.several import sweep as combinations


def train(arguments: Arguments) -> None:
    """Run `fpt train`, also as one process that another launcher started."""
    if "multirun" in arguments.options:
        sweep(arguments)
        return
    config = resolve.for_training(compose.load(arguments.overrides))
    if processes.is_worker():
        _share(config, arguments)
    elif result := _one(config, ["--json"] if "json" in arguments.options else []):
        _present(result, config, arguments)


def _one(config: RunConfig, flags: list[str]) -> dict[str, Any] | None:
    """Train one run; returns its result, or None if several processes were started, of which the main one prints it."""
    progress, stages = Progress(), _checked(config)
    if processes.must_be_launched(config):
        _launch(config, flags, progress)
        return None
    task = read_task(config, progress)
    with progress.console.status("importing torch and transformers"):
        from stages.run import run
    with interrupts.heard():
        return run(config, stages, lambda: task, progress)


def _checked(config: RunConfig) -> Schedule:
    """Check all that can be checked before data and weights are read; returns the run's schedule."""
    is_tracked(config.tracking)
    check_quantize(config.engine.quantize)
    stages = schedule.of(config)
    if start := files.prompt_to_start_from(config.prompt, read_sizes(*config_values(config.model)).width):
        start.read()  # finds numbers that are not finite now, not once the run has its folder
    folder.check_usable(config.folder, starts_over=config.resume == "never")
    return stages


def _launch(config: RunConfig, flags: list[str], progress: Progress) -> None:
    """Start the processes that train the run."""
    with progress.console.status("importing torch and transformers"):
        from fpt.devices.distributed import launch
    with TemporaryDirectory(prefix="fpt-") as place:
        file = Path(place) / "config.yaml"
        file.write_text(compose.to_yaml(config), encoding="utf-8")
        launch(config.engine, ["worker", str(file), *flags])


def worker(arguments: Arguments) -> None:
    """Run `fpt worker FILE`: one of the processes that `fpt train` starts, with the resolved configuration in FILE."""
    _share(compose.from_yaml(Path(*arguments.places).read_text(encoding="utf-8")), arguments)


def _share(config: RunConfig, arguments: Arguments) -> None:
    """Train as one of several processes."""
    with one_of_several():
        processes.check_started(config)
        from stages.run import run

        result = run(config, schedule.of(config), lambda: open_task(config), Progress())
        if processes.speaks() and "quiet" not in arguments.options:
            _present(result, config, arguments)


def _present(result: dict[str, Any], config: RunConfig, arguments: Arguments) -> None:
    present(arguments, result, lambda result: print_result(result, str(config.folder)))


def sweep(arguments: Arguments) -> None:
    """Run `fpt train -m`: all combinations of values, one after the other; one that fails does not stop the others."""
    say, planned = Progress().say, combinations.plan(arguments.overrides)
    ended = []
    for plan, run in in_turn.run_all(planned, _checked, partial(_one, flags=["--quiet"]), say):
        if isinstance(run, UserError):
            say(f"{plan.label}: {run}")
        ended.append((plan, run))
    rows = combinations.table(ended)
    present(arguments, rows, print_sweep)
    if failed := sum(row["error"] is not None for row in rows):
        raise UserError(f"{failed} of {len(rows)} runs failed; what they said is above")


def compare(arguments: Arguments) -> None:
    """Run `fpt compare`."""
    seeds, names = arguments.listed("seeds", "0,1,2"), arguments.listed("schedules", "pt,ld,fr,cr")
    if wrong := [seed for seed in seeds if not seed.isdecimal()]:
        raise UserError(f"seeds={','.join(seeds)}: {wrong[0]} is no whole number, at least 0")
    planned = comparison.plan(arguments.overrides, names, [int(seed) for seed in seeds])
    say, runs = Progress().say, dict[str, list[Run]]()
    if comparison.VANILLA not in names:
        say("pt is added: the others are held against it")
    for plan, run in in_turn.run_all(planned, _checked, partial(_one, flags=["--quiet"]), say):
        if isinstance(run, UserError):
            raise run
        runs.setdefault(plan.values["schedule"], []).append(run)
    present(arguments, comparison.compare(runs), print_comparison)
