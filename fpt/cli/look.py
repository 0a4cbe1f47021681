"""The verbs that look without training: at prices, data, finished runs, this machine."""

from pathlib import Path
from typing import Any

from fpt.cli import tables
from fpt.cli.arguments import Words
from fpt.cli.verb import present, refuse_overrides
from fpt.config import compose
from fpt.devices.launch import Failed


def plan(words: Words) -> None:
    """`fpt plan`."""
    config = compose.load(words.overrides)
    from stages import schedule

    stages = schedule.of(config)
    from stages.planning import kept_states as caching
    from stages.planning import memory as fit
    from stages.planning.flops import nominal

    priced = nominal(config, stages)
    states = caching.Caching.from_json(priced["states"]) if priced["states"] else None
    memory = fit.plan_memory(caching.beside(config, states), stages)
    present(words, {**priced, "memory": memory.to_json()}, tables.print_plan)


def show(words: Words) -> None:
    """`fpt show`."""
    number = words.number("n", 3, least=0)
    config = compose.load(words.overrides)
    from fpt.data.example_cache import open_task
    from fpt.runs.progress import Progress

    progress = Progress()
    with progress.console.status("reading the data"):
        task = open_task(config)
    with progress.console.status("importing torch and transformers"):
        from fpt.cli.dataset_view import look
    with progress.running():
        shown = look(config, task, number, progress.with_bar)
    present(words, shown, tables.print_look)


def report(words: Words) -> None:
    """`fpt report`."""
    places = [*words.places, *words.overrides]  # a folder's name may hold =
    from fpt import report
    from fpt.runs.progress import Progress

    runs, page = report.open_runs(places), report.output_of(places, words.options.get("output"))
    with Progress().console.status("drawing the report"):
        written = [str(path) for path in report.write(runs, page)]
    present(words, {"page": written[0], "plots": written[1:]}, _print_paths)


def _print_paths(written: dict[str, Any]) -> None:
    print(written["page"], *written["plots"], sep="\n")


def doctor(words: Words) -> None:
    """`fpt doctor`."""
    refuse_overrides(words)
    from fpt.runs.progress import Progress

    with Progress().console.status("looking around"):
        from fpt.cli import doctor

        found = doctor.examine(Path(compose.load([]).cache_dir))
    present(words, found, tables.print_report)
    if found["problems"]:
        raise Failed("; ".join(found["problems"]), 1)
