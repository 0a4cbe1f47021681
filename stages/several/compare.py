"""Compares schedules with vanilla prompt tuning, by runs on one model and task.

The target is vanilla's last validation score, averaged over seeds. A run's FLOPs to vanilla are those spent when a
validation on the full model first reaches the target and the next validation holds it. A run's gain is its score minus
the best that vanilla with the same seed had reached with as many FLOPs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any, NamedTuple

from fpt.config import compose
from fpt.config.schema import FolderConfig
from fpt.errors import UserError
from fpt.runs.run import Run
from stages import resolve, schedule
from stages.several.runs import Planned

VANILLA = "pt"
SIZES = ("encoder_layers", "decoder_layers", "ffn", "decoder_ffn")
VALIDATIONS = 10  # the least number of validations in a run, unless train.eval_every is typed
COMPARED = ("seed", "schedule", "schedule.stages", "schedule.name")  # the keys that the comparison itself sets


def plan(overrides: Sequence[str], names: Sequence[str], seeds: Sequence[int]) -> list[Planned]:
    """Plan the runs of a comparison, schedule by schedule, vanilla prompt tuning's first."""
    keys = {word.removeprefix("+").partition("=")[0]: word for word in overrides}
    for key in COMPARED:
        if key in keys:
            raise UserError(f"{keys[key]}: is what is compared; give schedules=pt,cr (or a FILE.yaml) and seeds=0,1")
    runs: list[Planned] = []
    for name in dict.fromkeys((VANILLA, *names)):
        words = (f"schedule={name}", *overrides)
        config = resolve.for_training(compose.load(words))
        if "train.eval_every" not in keys:
            every = min(config.train.eval_every, max(1, schedule.of(config).updates // VALIDATIONS))
            config = replace(config, train=replace(config.train, eval_every=every))
            words = (*words, f"train.eval_every={config.train.eval_every}")
        label = config.schedule.name
        if any(run.config.schedule == config.schedule for run in runs):
            raise UserError(f"schedules={name}: is {label} on this model, which is compared already")
        for seed in seeds:
            own = replace(config, seed=seed)
            folder = f"{config.run.dir}/{label}-s{seed}" if config.run.dir else str(own.folder)
            own = replace(own, run=FolderConfig(dir=folder))
            values = {"schedule": label, "seed": str(seed)}
            runs.append(Planned((*words, f"seed={seed}", f"run.dir={folder}"), own, values))
    return runs


class Point(NamedTuple):
    """A validation's score, and the FLOPs spent until then."""

    flops: int
    score: float


def compare(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Compare finished runs with vanilla's; every schedule has one run per seed, in the same order of seeds."""
    vanilla = runs[VANILLA]
    target = mean(validations(run)[-1].score for run in vanilla)
    rows = []
    for name, members in runs.items():
        pairs = [_against(run, other, target) for run, other in zip(members, vanilla, strict=True)]
        there = [pair["flops_to_vanilla"] for pair in pairs if pair["flops_to_vanilla"] is not None]
        rows.append(
            {
                "schedule": name,
                **{key: spread([pair[key] for pair in pairs]) for key in ("score", "test", "last", "gain")},
                **{key: mean(pair[key] for pair in pairs) for key in ("flops_ratio", "seconds_ratio")},
                "flops_to_vanilla": spread(there),
                "reached_vanilla": len(there),
                "runs": pairs,
            }
        )
    first = vanilla[0].result
    facts = {key: first[key] for key in ("task", "model", "baseline", "majority")}
    seeds = [run.result["seed"] for run in vanilla]
    return {**facts, "metric": first["metric"]["name"], "vanilla": target, "seeds": seeds, "schedules": rows}


def validations(run: Run) -> list[Point]:
    """Return the validations on the last stage's model, a curve of score against FLOPs."""
    metric, stage = run.result["metric"]["name"], len(run.result["stages"])
    return [Point(line["flops"], line[metric]) for line in run.metrics if "split" in line and line["stage"] == stage]


def reaches(points: Sequence[Point], score: float) -> int | None:
    """Return the FLOPs of the first validation that has the score and, unless it is the last, the next one too."""
    for place, point in enumerate(points):
        if all(each.score >= score for each in points[place : place + 2]):
            return point.flops
    return None


def _against(run: Run, vanilla: Run, target: float) -> dict[str, Any]:
    """Compare a run with vanilla's run of the same seed; `target` is the mean of vanilla's last scores."""
    result, other = run.result, vanilla.result
    is_whole = all(result["stages"][-1][size] == other["stages"][-1][size] for size in SIZES)
    points, score = validations(run) if is_whole else [], result["metric"]["value"]
    there = max((point.score for point in validations(vanilla) if point.flops <= result["flops"]), default=None)
    spent, test = reaches(points, target), result["test"]
    return {
        "seed": result["seed"],
        "score": score,
        "test": test["metrics"][result["metric"]["name"]] if test and test["metrics"] else None,
        "last": result["metric"].get("last"),
        "flops": result["flops"],
        "flops_ratio": result["flops"] / other["flops"],
        "seconds": result["seconds"],
        "seconds_ratio": result["seconds"] / other["seconds"],
        "vanilla_at_equal_flops": there,
        "gain": None if there is None else score - there,
        "flops_to_vanilla": None if spent is None else spent / other["flops"],
        "folder": str(run.path),
    }


def spread(values: Sequence[float | None]) -> dict[str, float | None] | None:
    """Return mean and standard deviation (None for a single value), or None altogether if a value is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return {"mean": mean(known), "deviation": stdev(known) if len(known) > 1 else None}
