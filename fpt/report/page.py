"""Makes the report's page: page.html filled with tables, plots and examples of runs, finished or not."""

import base64
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from fpt import __version__
from fpt.config import literal
from fpt.errors import UserError
from fpt.report import plots
from fpt.report.plots import Plot, colour_of
from fpt.runs.files import check_writable, replace_file
from fpt.runs.folder import METRICS
from fpt.runs.metrics import expansion_lost, lost_at
from fpt.runs.run import MEASURED, PLAN, PREDICTIONS, UPDATES, Run, open_run
from fpt.units import amount

UNMEASURED = {"peak_memory": None, "tokens_per_second": None}
COUNTED = {"update", "stage", "flops", "seconds"}  # the keys that every line of metrics.jsonl has
Line = dict[str, Any]


@dataclass(frozen=True)
class ReportedRun:
    """One run of a report; records that an unfinished run does not have yet are empty."""

    files: Run
    number: int  # its place in the report, from 1
    label: str
    settings: dict[str, Any]  # the configuration's values by dotted key
    updates: list[Line]  # the lines of metrics.jsonl with a loss
    validations: list[Line]  # the lines of metrics.jsonl with scores
    plan: dict[str, Any]
    result: dict[str, Any]

    @property
    def metric(self) -> str:
        """The main metric's name; empty before the first validation."""
        if self.result:
            return str(self.result["metric"]["name"])
        scored = self.validations[0] if self.validations else {}
        return next((key for key in scored if key not in {*COUNTED, "split"}), "")  # tasks give the main one first

    def is_full(self, stage: int) -> bool:
        """Return whether a stage, counted from 1, trains on the full model; only the last one can."""
        return stage == len(self.plan["stages"]) and self.plan.get("ends_whole", True)

    def spans(self, key: str) -> Iterator[tuple[int, float, float]]:
        """Yield each stage that was begun with its start and end in updates, FLOPs or seconds, as `key` says.

        The first stage starts after the scoring of neurons.
        """
        if not self.updates:
            return
        before = self.files.read_json(MEASURED)["seconds"]
        start = {"update": 0, "flops": self.plan["flops_importance"], "seconds": before}[key]
        for stage, lines in groupby(self.updates, lambda line: line["stage"]):
            end = list(lines)[-1][key]
            yield stage, start, end
            start = end

    @cached_property
    def stages(self) -> list[Line]:
        """Every planned stage: its costs, and what has been done, measured and scored so far."""
        rows = []
        took = {stage: end - start for stage, start, end in self.spans("seconds")}
        for index, row in enumerate(self.plan.get("stages", []), 1):
            done = sum(line["stage"] == index for line in self.updates)
            scores = [line[self.metric] for line in self.validations if line["stage"] == index]
            reached = {
                "index": index,
                "done": done,
                "flops": row["flops_per_update"] * done,
                "seconds": took.get(index),
                "score": scores[-1] if scores else None,
                "lost": lost_at(index, self.updates),
            }
            name = f"stages/{row['name']}/{UPDATES}"
            measured = self.files.read_json(name) if name in self.files.ledger else UNMEASURED
            finished = self.result["stages"][index - 1] if self.result else {}
            rows.append({**row, **reached, **measured, **finished})
        return rows

    def examples(self, number: int) -> dict[str, list[Line]]:
        """Pick `number` right, wrong and other examples each, evenly spread over the predictions."""
        rows = self.files.predictions if PREDICTIONS in self.files.ledger else []
        names = {True: "right", False: "wrong", None: "neither right nor wrong"}
        groups = {name: [row for row in rows if row["correct"] is value] for value, name in names.items()}
        return {name: group[:: max(1, len(group) // number)][:number] for name, group in groups.items() if group}


def read(files: Run, number: int, label: str) -> ReportedRun:
    """Read a run for the report, and refuse damaged metrics."""
    plan = files.plan if PLAN in files.ledger else {}
    for place, line in enumerate(files.metrics, 1):
        if not _is_sound(line, len(plan.get("stages", []))):
            raise UserError(f"{files.path / METRICS}: is damaged: line {place} is not what fpt writes")
    updates = [line for line in files.metrics if "split" not in line]
    validations = [line for line in files.metrics if line.get("split") == "validation"]
    settings = literal.leaves(files.settings)
    result = files.result if files.is_finished else {}
    run = ReportedRun(files, number, label, settings, updates, validations, plan, result)
    if not all(run.metric in line for line in validations):
        raise UserError(f"{files.path / METRICS}: is damaged: a validation has no {run.metric or 'score'}")
    return run


def _is_sound(line: object, num_stages: int) -> bool:
    """Return whether a line of metrics.jsonl has finite numbers and a planned stage."""
    if not isinstance(line, dict) or not ({"loss", "split"} & line.keys() and line.keys() >= COUNTED):
        return False
    numbers = [value for key, value in line.items() if key != "split"]
    sound = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
    return sound and line["stage"] in range(1, num_stages + 1)


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
    check_writable(page.parent, str(page), "; give another output=FILE.html")
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
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
