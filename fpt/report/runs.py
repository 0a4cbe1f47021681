"""What the page needs of a run: its curves, stages and examples, as far as the run came."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpt.config import literal
from fpt.config.same_run import MAY_DIFFER
from fpt.errors import UserError, reason
from fpt.prompts.kinds import KINDS
from fpt.prompts.soft import Soft
from fpt.runs.curves import Point, curve
from fpt.runs.folder import METRICS
from fpt.runs.records import PLAN
from fpt.runs.run import PREDICTIONS, PROMPT, UPDATES, Run, layers_and_neurons

MEASURED = ("peak_memory", "tokens_per_second", "share_of_peak")
NO_METRICS = {"update", "stage", "flops", "seconds", "split"}  # what a line of metrics.jsonl has besides scores
Line = dict[str, Any]
Floats = NDArray[np.float64]


class StagePrompt(NamedTuple):
    """A prompt [P, D] with which a stage of a run ended, with the stage's number and sizes; 0: the run's best one."""

    run: "ReportedRun"
    stage: int
    sizes: str
    vectors: Floats


@dataclass(frozen=True)
class ReportedRun:
    """One run of a report.

    Attributes:
        files: its folder.
        number: its place in the report, from 1.
        label: what people know it by.
        settings: its configuration, by dotted key.
        updates: lines of metrics.jsonl with a loss.
        validations: lines of metrics.jsonl with scores.
        plan: plan.json; empty where the run has not come so far.
        result: result.json; empty where the run is not finished.
    """

    files: Run
    number: int
    label: str
    settings: dict[str, Any]
    updates: list[Line]
    validations: list[Line]
    plan: dict[str, Any]
    result: dict[str, Any]

    @property
    def metric(self) -> str:
        """The main metric; empty where nothing was scored so far."""
        if self.result:
            return str(self.result["metric"]["name"])
        scored = self.validations[0] if self.validations else {}
        return next((key for key in scored if key not in NO_METRICS), "")  # tasks give the main one first

    @property
    def done(self) -> int:
        """Updates so far."""
        return int(self.updates[-1]["update"]) if self.updates else 0

    def knows(self, key: str) -> bool:
        """Whether its curves can be drawn against this; older versions of fpt logged updates alone."""
        return all(key in line for line in (*self.updates, *self.validations))

    def is_full(self, stage: int) -> bool:
        """Whether a stage, from 1, trains on the full model: stages grow, so that only the last one can."""
        stages, ends_whole = self.plan["stages"], self.plan.get("ends_whole")
        if ends_whole is None:  # an older fpt did not say it
            ends_whole = not self.settings.get("schedule.partial_end", False) or stages[-1]["flops_ratio"] == 1
        return stage == len(stages) and ends_whole

    @property
    def full_model(self) -> list[Point]:
        """Its validations on the full model."""
        stage = len(self.plan["stages"])
        return curve(self.validations, self.metric, stage) if self.is_full(stage) and self.knows("flops") else []

    @property
    def is_vanilla(self) -> bool:
        """Whether it is finished vanilla prompt tuning: a soft prompt on the full model from the first update."""
        return bool(self.result and self.is_input and len(self.result["stages"]) == 1 and self.full_model)

    @property
    def is_input(self) -> bool:
        """Whether its prompt is vectors before the input, which can be compared; a late one's make such vectors."""
        return bool(KINDS[self.settings.get("prompt.kind", Soft.name)].is_input)

    def spans(self, key: str) -> Iterator[tuple[int, float, float]]:
        """Each stage begun, from where to where: where the last one ended, the first after the scoring of neurons."""
        if not self.updates:
            return
        start = {"update": 0, "flops": self.plan["flops_importance"], "seconds": self.files.measured["seconds"]}[key]
        for stage, lines in groupby(self.updates, lambda line: line["stage"]):
            end = list(lines)[-1][key]
            yield stage, start, end
            start = end

    @cached_property
    def stages(self) -> list[Line]:
        """Every planned stage: its price, and what was done and scored of it so far."""
        rows = []
        took = {stage: end - start for stage, start, end in self.spans("seconds")} if self.knows("seconds") else {}
        memory = {row["name"]: row for row in self.plan.get("memory", {}).get("stages", [])}
        for index, row in enumerate(self.plan.get("stages", []), 1):
            done = [line for line in self.updates if line["stage"] == index]
            scored = [line[self.metric] for line in self.validations if line["stage"] == index]
            finished = self.result["stages"][index - 1] if self.result else {}
            spent = finished.get("flops", row["flops_per_update"] * len(done))
            seconds = finished.get("seconds", took.get(index))
            reached = {"index": index, "done": len(done), "spent": spent, "seconds": seconds}
            score = scored[-1] if scored else None
            measured = self._measured(row["name"])
            rows.append({**row, **reached, "score": score, "memory": memory.get(row["name"]), **measured})
        return rows

    @property
    def peak(self) -> int | None:
        """The most bytes that any stage's updates took, as measured; None: that was not."""
        return max((row["peak_memory"] for row in self.stages if row["peak_memory"]), default=None)

    def _measured(self, stage: str) -> Line:
        name = f"stages/{stage}/{UPDATES}"
        found = self.files.read_json(name) if name in self.files.ledger else {}
        return {**dict.fromkeys(MEASURED), **found}

    def prompts(self) -> Iterator[StagePrompt]:
        """Of every stage that has ended, and the best one; of a late prompt none, as what is learned makes vectors."""
        from safetensors.numpy import load

        if not self.is_input:
            return
        for stage in self.files.stages:
            if stage.is_done:
                sizes = ", ".join(layers_and_neurons(stage.values))
                vectors = load(self.files.read(f"stages/{stage.name}/{PROMPT}"))["prompt"]
                yield StagePrompt(self, int(stage.values["index"]), sizes, vectors)
        if self.result:
            yield StagePrompt(self, 0, "", load(self.files.read(PROMPT))["prompt"])

    def examples(self, number: int) -> dict[str, list[Line]]:
        """So many examples, from all over the file, by whether they are right, wrong or neither."""
        rows = self.files.predictions if PREDICTIONS in self.files.ledger else []
        names = {True: "right", False: "wrong", None: "neither right nor wrong"}
        groups = {name: [row for row in rows if row["correct"] is value] for value, name in names.items()}
        return {name: _spread(group, number) for name, group in groups.items() if group}


def read(files: Run, number: int, label: str) -> ReportedRun:
    """A run as the report takes it.

    Raises:
        UserError: a file is damaged.
    """
    plan = files.plan if PLAN in files.ledger else {}
    for place, line in enumerate(files.metrics, 1):
        if not _is_sound(line, len(plan.get("stages", []))):
            raise UserError(f"{files.path / METRICS}: is damaged: line {place} is not what fpt writes")
    updates = [line for line in files.metrics if "split" not in line]
    validations = [line for line in files.metrics if line.get("split") == "validation"]
    try:
        settings = literal.flat(files.settings)
    except Exception as error:  # YAML has many types
        raise UserError(f"{files.path}: its configuration cannot be read ({reason(error)})") from None
    result = files.result if files.is_finished else {}
    run = ReportedRun(files, number, label, settings, updates, validations, plan, result)
    if not all(run.metric in line for line in validations):
        raise UserError(f"{files.path / METRICS}: is damaged: a validation has no {run.metric or 'score'}")
    return run


class Group(NamedTuple):
    """Runs that differ by their seed alone, and what sets them apart from the other groups."""

    label: str
    runs: list[ReportedRun]


def by_seed(runs: Sequence[ReportedRun]) -> list[Group]:
    """The runs, grouped, in the order of each group's first."""
    groups: dict[str, list[ReportedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(_decisive(run), sort_keys=True, default=str), []).append(run)
    settings = [_decisive(members[0]) for members in groups.values()]
    keys = dict.fromkeys(key for each in settings for key in each)
    apart = [key for key in keys if len({str(each.get(key)) for each in settings}) > 1 and not _is_named(key)]
    return [Group(_label(members, apart), members) for members in groups.values()]


def _decisive(run: ReportedRun) -> dict[str, Any]:
    """The settings that runs of one group have in common."""
    may_differ = ("seed", *MAY_DIFFER)
    return {key: value for key, value in run.settings.items() if key not in may_differ and "engine." not in key}


def _is_named(key: str) -> bool:
    """Whether a setting goes with a name that is shown: a schedule's stages, a model's weights."""
    return key.partition(".")[0] in ("schedule", "model")


def _label(members: Sequence[ReportedRun], apart: Sequence[str]) -> str:
    """Schedule and model, up to three settings that differ between groups, and how many seeds."""
    first, own = members[0].settings, [f"{key}={members[0].settings.get(key, '–')}" for key in apart[:3]]
    seeds = [f"{len(members)} seeds"] if len(members) > 1 else []
    return ", ".join([f"{first['schedule.name']} on {first['model.name']}", *own, *seeds])


def similarity(one: Floats, other: Floats) -> float:
    """The mean, over the P vectors of two prompts [P, D], of the cosine of those in the same place."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.mean(np.sum(one * other, axis=1) / np.maximum(norms, 1e-12)))


def _is_sound(line: object, num_stages: int) -> bool:
    """Whether a line of metrics.jsonl, whose hash only a resuming run can know, holds numbers and a planned stage."""
    if not isinstance(line, dict) or not ("loss" in line or "split" in line) or "update" not in line:
        return False
    numbers = [value for key, value in line.items() if key != "split"]
    sound = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
    return sound and line.get("stage") in range(1, num_stages + 1)


def _spread(rows: Sequence[Line], number: int) -> list[Line]:
    number = min(number, len(rows))
    return [rows[position * len(rows) // number] for position in range(number)]
