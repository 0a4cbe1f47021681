"""Makes the report's page: page.html filled with tables, plots and examples of the runs."""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from fpt import __version__
from fpt.errors import UserError
from fpt.report import plots
from fpt.report.plots import Plot, colour_of
from fpt.report.runs import ReportedRun, read
from fpt.runs.files import replace_file, try_writing
from fpt.runs.metrics import expansion_lost
from fpt.runs.run import open_run
from fpt.units import amount


def open_runs(places: Sequence[str]) -> list[ReportedRun]:
    """Open the runs in these folders; each is labelled by its name, or by its path if two have the same name."""
    if not places:
        raise UserError("fpt report: give the folders of one or more runs, as in fpt report runs/boolq-tiny-cr-s0")
    runs = [open_run(place) for place in places]
    ((path, times),) = Counter(run.path.resolve() for run in runs).most_common(1)
    if times > 1:
        raise UserError(f"{path}: is given twice")
    names = Counter(run.name for run in runs)
    labels = [run.name if names[run.name] == 1 else str(run.path) for run in runs]
    return [read(run, number, label) for number, (run, label) in enumerate(zip(runs, labels, strict=True), 1)]


def output_of(places: Sequence[str], output: str | None) -> Path:
    """Choose where the page goes: to `output`, else into the folder of a single run or next to the first of several.

    Its name must end in .html, so that no file of a run can be overwritten.
    """
    if output is None:
        first = Path(places[0]).expanduser()
        return (first if len(places) == 1 else first.resolve().parent) / "report.html"
    page = Path(output).expanduser()
    if page.suffix != ".html" or page.is_dir():
        raise UserError(f"output={output}: expected a file whose name ends in .html")
    return page


def write(runs: Sequence[ReportedRun], page: Path) -> None:
    """Write the page about these runs."""
    try:
        try_writing(page.parent)
    except OSError as error:
        raise UserError(f"{page}: cannot be written ({error.strerror}); give another output=FILE.html") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"amount": amount, "shown": _shown, "base64": lambda data: base64.b64encode(data).decode()}
    html = environment.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8")).render(
        version=__version__,
        colours={run.number: colour_of(run) for run in runs},
        runs=runs,
        sections=list(_sections(runs)),
        differences=_differences(runs),
        lost=expansion_lost,
    )
    replace_file(page, html.encode())


def _sections(runs: Sequence[ReportedRun]) -> Iterator[tuple[str, list[Plot]]]:
    """Draw the runs of each task and metric on shared axes; yields titles and plots."""
    sections: dict[tuple[str, str], list[ReportedRun]] = {}
    for run in runs:
        if run.updates:
            sections.setdefault((run.settings["task.name"], run.metric), []).append(run)
    for (task, metric), members in sections.items():
        scored = [run for run in members if metric and run.validations]
        score = [plots.score(scored)] if scored else []
        yield f"{task}: {metric}" if metric else task, [*score, plots.loss(members)]


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
