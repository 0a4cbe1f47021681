"""Renders the report's page: fills page.html with tables, plots and examples of the runs."""

import base64
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from fpt import __version__
from fpt.report import plots
from fpt.report.plots import Plot, colour_of
from fpt.report.runs import Group, ReportedRun, by_seed
from fpt.runs import losses
from fpt.units import amount

EXAMPLES = 3  # how many right, wrong and other examples are shown


def render(runs: Sequence[ReportedRun]) -> tuple[str, list[Plot]]:
    """Render the page; returns its HTML and its plots."""
    examples = {run.number: run.examples(EXAMPLES) for run in runs}  # first, so that a damaged file is refused early
    groups = by_seed(runs)
    sections = list(_sections(groups))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"amount": amount, "shown": _shown, "base64": lambda data: base64.b64encode(data).decode()}
    page = environment.from_string((files(__package__) / "page.html").read_text(encoding="utf-8")).render(
        version=__version__,
        colours={run.number: colour_of(group) for group in groups for run in group.runs},
        runs=runs,
        sections=sections,
        examples=examples,
        differences=_differences(runs),
        lost=losses.expansion_lost,
    )
    return page, [plot for _, figures in sections for plot in figures]


def _sections(groups: Sequence[Group]) -> Iterator[tuple[str, list[Plot]]]:
    """Draw the runs of each task and metric on shared axes; yields titles and plots."""
    sections: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        run = group.runs[0]
        if run.updates:
            sections.setdefault((run.settings["task.name"], run.metric), []).append(group)
    for number, ((task, metric), members) in enumerate(sections.items(), 1):
        prefix = f"{number}-" if len(sections) > 1 else ""
        scored = [group for group in members if metric and any(run.validations for run in group.runs)]
        score = [plots.score(scored, f"{prefix}score")] if scored else []
        yield f"{task}: {metric}" if metric else task, [*score, plots.loss(members, f"{prefix}loss")]


def _differences(runs: Sequence[ReportedRun]) -> list[tuple[str, list[str]]]:
    """List the settings in which runs differ, except for the folders that they name."""
    differences = []
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        texts = [_shown(run.settings.get(key, "–")) for run in runs]
        if len(set(texts)) > 1 and key not in ("run.dir", "resume"):
            differences.append((key, texts))
    return differences


def _shown(value: Any) -> str:
    """Format a setting's value as one would type it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
