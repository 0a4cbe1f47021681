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
    config = compose.load(words.overrides)
    from fpt.tasks import form_of
    from fpt.tasks.kept import open_task
    from fpt.trackers import chosen
    from fpt.tracking import Tracker
    from stages import schedule

    chosen(config.tracking)
    tracker, stages = Tracker(), schedule.of(config)
    if launch.is_worker():
        _share(config, words)
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
        launch.start(config, ["--json"] if words.as_json else [])
        return
    with interrupts.heard():
        _print_result(run(config, stages, lambda: task, tracker), config, words)


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
        if os.environ["RANK"] == "0":
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
        usage="train [key=value …] [--json]",
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
OF_LAUNCHERS = {"worker": Verb(_worker, takes_places=True)}  # called by processes, not by people
