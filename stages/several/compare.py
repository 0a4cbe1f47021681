"""The paper's Table 2 for one model and task: score, FLOPs, wall clock, and gain at equal FLOPs.

The gain is a run's score minus what vanilla prompt tuning with the same seed had reached with as many FLOPs: the best
of its own validations up to there. Both are chosen alike, by the best validation on the full model so far; what neuron
scores cost counts among a schedule's FLOPs. The fewer validations there are, the earlier is vanilla's last that counts,
so a large train.eval_every favours the schedule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

from fpt.config import compose
from fpt.config.schema import FolderConfig
from fpt.errors import UserError
from fpt.runs.run import Run
from stages.several.in_turn import Planned

VANILLA = "pt"


def plan(overrides: Sequence[str], schedules: Sequence[str], seeds: Sequence[int]) -> list[Planned]:
    """The runs, vanilla prompt tuning first, which everything is held against.

    Raises:
        UserError: an override names what is compared, or there is no such schedule.
    """
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        if key in ("seed", "schedule", "schedule.stages", "schedule.name"):
            raise UserError(
                f"{word}: is what is compared; give schedules=pt,cr and seeds=0,1, or a FILE.yaml in schedules"
            )
    runs = []
    for name in dict.fromkeys((VANILLA, *schedules)):
        config = compose.load([*overrides, f"schedule={name}"])
        for seed in seeds:
            folder = config.run.dir and f"{config.run.dir}/{config.schedule.name}-s{seed}"
            own = replace(config, seed=seed, run=FolderConfig(dir=folder))
            runs.append(Planned(own, {"schedule": name, "seed": str(seed)}))
    return runs


def compare(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """All numbers, from the finished runs of each schedule, seed by seed in one order; ratios are to vanilla's run.

    Raises:
        UserError: a run's metrics do not say its FLOPs.
    """
    vanilla = runs[VANILLA]
    first = vanilla[0].result
    rows = []
    for name, members in runs.items():
        pairs = [_against(run, other) for run, other in zip(members, vanilla, strict=True)]
        gains, last = ([pair[key] for pair in pairs] for key in ("gain", "last"))
        rows.append(
            {
                "schedule": name,
                "score": _spread([pair["score"] for pair in pairs]),
                "last": None if None in last else _spread(last),
                "flops_ratio": mean(pair["flops_ratio"] for pair in pairs),
                "seconds_ratio": mean(pair["seconds_ratio"] for pair in pairs),
                "gain": None if None in gains else _spread(gains),
                "runs": pairs,
            }
        )
    names = ("task", "model", "baseline", "majority")
    seeds = [run.result["seed"] for run in vanilla]
    return {**{key: first[key] for key in names}, "metric": first["metric"]["name"], "seeds": seeds, "schedules": rows}


def reached(run: Run, flops: int) -> float | None:
    """The best score of the run's validations up to so many FLOPs; None before the first.

    Raises:
        UserError: its metrics do not say them.
    """
    scores = []
    for line in run.metrics:
        if "flops" not in line:
            raise UserError(
                f"{run.path}: was made by an fpt whose metrics have no FLOPs; start it over with resume=never"
            )
        if "split" in line and line["flops"] <= flops:
            scores.append(line[run.result["metric"]["name"]])
    return max(scores, default=None)


def _against(run: Run, vanilla: Run) -> dict[str, Any]:
    """A run beside vanilla prompt tuning's of the same seed."""
    result, other = run.result, vanilla.result
    score, there = result["metric"]["value"], reached(vanilla, result["flops"])
    return {
        "seed": result["seed"],
        "score": score,
        "last": result["metric"].get("last"),  # not said by every fpt that was
        "flops": result["flops"],
        "flops_ratio": result["flops"] / other["flops"],
        "seconds": result["seconds"],
        "seconds_ratio": result["seconds"] / other["seconds"],
        "vanilla_at_equal_flops": there,
        "gain": None if there is None else score - there,
        "folder": str(run.path),
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None}
