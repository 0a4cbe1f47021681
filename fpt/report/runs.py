"""Reads what the report shows of each run, finished or not: its curves, stages and examples."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpt.config import literal
from fpt.errors import UserError
from fpt.runs.folder import METRICS
from fpt.runs.metrics import lost_at
from fpt.runs.run import MEASURED, PLAN, PREDICTIONS, UPDATES, Run

UNMEASURED = {"peak_memory": None, "tokens_per_second": None}
COUNTED = {"update", "stage", "flops", "seconds"}  # the keys that every line of metrics.jsonl has
Line = dict[str, Any]
Floats = NDArray[np.float64]


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
        return {name: _spread(group, number) for name, group in groups.items() if group}


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


def _spread(rows: Sequence[Line], number: int) -> list[Line]:
    number = min(number, len(rows))
    return [rows[position * len(rows) // number] for position in range(number)]
