"""The page: the runs' tables, plots and examples put into page.html."""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined

from fpt import __version__
from fpt.report import plots
from fpt.report.plots import AXES, COLOURS, Plot
from fpt.report.runs import ReportedRun, StagePrompt, by_seed, similarity
from fpt.units import amount

EXAMPLES = 3  # of each kind


class Section(NamedTuple):
    """Runs of one task and metric, which share their axes: curves, and the least and most that a mean loss is over.

    Of several runs there is an overview, which puts those of one kind together.
    """

    title: str
    window: tuple[int, int]
    overview: Plot | None
    score: list[Plot]
    loss: list[Plot]


class Prompts(NamedTuple):
    """Prompts of one shape: the heat map, and of each kind of pair the mean similarity and how many there are."""

    shape: tuple[int, ...]
    plot: Plot | None
    means: list[tuple[str, float, int]]


def render(runs: Sequence[ReportedRun]) -> tuple[str, list[Plot]]:
    """The page and all of its plots."""
    examples = {run.number: run.examples(EXAMPLES) for run in runs}  # read first, as a damaged file ends it all
    prompts, sections = list(_prompts(runs)), list(_sections(runs))
    planned = [run for run in runs if any(stage["memory"] for stage in run.stages)]
    memory = plots.memory(planned, "memory") if planned else None
    script = (files(__package__) / "page.js").read_text()
    sha = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"amount": amount}
    page = environment.from_string((files(__package__) / "page.html").read_text()).render(
        version=__version__,
        script=script,
        script_sha=sha,
        colours=list(COLOURS.items()),
        runs=runs,
        sections=sections,
        memory=memory,
        prompts=prompts,
        examples=examples,
        differences=_differences(runs),
    )
    curves = [plot for section in sections for plot in (section.overview, *section.score, *section.loss)]
    return page, [plot for plot in (*curves, memory, *(group.plot for group in prompts)) if plot]


def _sections(runs: Sequence[ReportedRun]) -> Iterator[Section]:
    groups: dict[tuple[str, str], list[ReportedRun]] = {}
    for run in runs:
        if run.updates:
            groups.setdefault((run.settings["task.name"], run.metric), []).append(run)
    for number, ((task, metric), members) in enumerate(groups.items(), 1):
        prefix = f"{number}-" if len(groups) > 1 else ""
        score, loss = [], []
        for key, name in AXES.items():
            if known := [run for run in members if run.knows(key)]:
                loss.append(plots.loss(known, key, f"{prefix}loss-{name.lower()}"))
                if metric and (scored := [run for run in known if run.validations]):
                    score.append(plots.score(scored, key, f"{prefix}score-{name.lower()}"))
        scored = [run for run in members if metric and run.validations and run.knows("flops")]
        overview = plots.overview(by_seed(scored), f"{prefix}overview") if len(scored) > 1 else None
        windows = [plots.window(run) for run in members]
        yield Section(f"{task}: {metric}" if metric else task, (min(windows), max(windows)), overview, score, loss)


def _prompts(runs: Sequence[ReportedRun]) -> Iterator[Prompts]:
    """Prompts of one shape against each other: heat map, and means over kinds of pairs."""
    shapes: dict[tuple[int, ...], list[StagePrompt]] = {}
    for prompt in (prompt for run in runs for prompt in run.prompts()):
        shapes.setdefault(prompt.vectors.shape, []).append(prompt)
    for number, (shape, prompts) in enumerate(shapes.items(), 1):
        values = np.array([[similarity(one.vectors, other.vectors) for other in prompts] for one in prompts])
        rows, columns = zip(*(_labels(prompt, several=len(runs) > 1) for prompt in prompts), strict=True)
        name = f"prompts-{number}" if len(shapes) > 1 else "prompts"
        plot = plots.similarities(rows, columns, values, name) if len(prompts) > 1 else None
        kinds: dict[str, list[float]] = {}
        for (row, one), (column, other) in combinations(enumerate(prompts), 2):
            if one.run is not other.run or (one.stage and other.stage):  # the best prompt is one of its last stage's
                kinds.setdefault(_kind(one.run, other.run), []).append(float(values[row, column]))
        means = [(kind, fmean(pairs), len(pairs)) for kind, pairs in kinds.items()]
        yield Prompts(shape, plot, means)


def _labels(prompt: StagePrompt, *, several: bool) -> tuple[str, str]:
    """What a prompt is called beside its row of the heat map, and below its column."""
    long = f"stage {prompt.stage}: {prompt.sizes}" if prompt.stage else "best prompt"
    short = str(prompt.stage or "best")
    return (f"run {prompt.run.number}, {long}", f"{prompt.run.number}.{short}") if several else (long, short)


def _kind(one: ReportedRun, other: ReportedRun) -> str:
    """What two prompts have in common."""
    if one is other:
        return "stages of one run"
    kinds = {"model.name": "different models", "task.name": "different tasks", "seed": "one task, different seeds"}
    for key, kind in kinds.items():
        if one.settings[key] != other.settings[key]:
            return kind
    return "one task and seed, different runs"


def _differences(runs: Sequence[ReportedRun]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs, but for the folders they name."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    differences = []
    for key in keys:
        values = [run.settings.get(key, "–") for run in runs]
        texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
        if len(set(texts)) > 1 and key not in ("run.dir", "resume"):
            differences.append((key, texts))
    return differences
