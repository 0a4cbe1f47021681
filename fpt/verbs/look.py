"""The verbs that look without training: at prices, data, finished runs, this machine."""

from pathlib import Path
from typing import Any

from fpt import compose, console
from fpt.launch import Failed
from fpt.verbs.verb import present, refuse_overrides
from fpt.words import Words


def plan(words: Words) -> None:
    """`fpt plan`."""
    config = compose.load(words.overrides)
    from stages import schedule

    stages = schedule.of(config)
    from stages import caching, fit
    from stages.plan import nominal

    priced = nominal(config, stages)
    states = caching.Caching.from_json(priced["states"]) if priced["states"] else None
    memory = fit.plan_memory(caching.beside(config, states), stages)
    present(words, {**priced, "memory": memory.to_json()}, console.print_plan)


def show(words: Words) -> None:
    """`fpt show`."""
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
    present(words, shown, console.print_look)


def report(words: Words) -> None:
    """`fpt report`."""
    places = [*words.places, *words.overrides]  # a folder's name may hold =
    from fpt import report
    from fpt.tracking import Tracker

    runs, page = report.open_runs(places), report.output_of(places, words.options.get("output"))
    with Tracker().console.status("drawing the report"):
        written = [str(path) for path in report.write(runs, page)]
    present(words, {"page": written[0], "plots": written[1:]}, _print_paths)


def _print_paths(written: dict[str, Any]) -> None:
    print(written["page"], *written["plots"], sep="\n")


def doctor(words: Words) -> None:
    """`fpt doctor`."""
    refuse_overrides(words)
    from fpt.tracking import Tracker

    with Tracker().console.status("looking around"):
        from fpt import doctor

        found = doctor.examine(Path(compose.load([]).cache_dir))
    present(words, found, console.print_report)
    if found["problems"]:
        raise Failed("; ".join(found["problems"]), 1)
