"""The paper's Table 2 for one model and task: score, FLOPs, wall clock; FLOPs to vanilla's score, gain at equal FLOPs.

FLOPs to vanilla's score are those after which a run's validations on the full model reach what vanilla prompt tuning's
last ones have, in the mean over the seeds, and still have it at the next validation; as a share of all that vanilla's
run with the same seed spent. A run need not get there.

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
from fpt.runs.curves import Point, after, curve, reaches
from fpt.runs.run import Run
from stages import schedule
from stages.epochs import in_updates
from stages.several.in_turn import Planned

VANILLA = "pt"
SIZES = ("encoder_layers", "decoder_layers", "ffn", "decoder_ffn")
SHARES = (0.25, 0.5, 0.75)  # of vanilla's FLOPs, after which scores are read off
VALIDATIONS = 10  # of a run, at least, where nothing is typed


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
    says_when = any(word.partition("=")[0].lstrip("+") == "train.eval_every" for word in overrides)
    runs = []
    for name in dict.fromkeys((VANILLA, *schedules)):
        config = in_updates(compose.load([*overrides, f"schedule={name}"]))
        if not says_when:  # what is read off validations needs some, however short the run
            every = min(config.train.eval_every, max(1, schedule.of(config).updates // VALIDATIONS))
            config = replace(config, train=replace(config.train, eval_every=every))
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
    target = mean(validations(run)[-1].score for run in vanilla)
    rows = []
    for name, members in runs.items():
        pairs = [_against(run, other, target) for run, other in zip(members, vanilla, strict=True)]
        gains, last = ([pair[key] for pair in pairs] for key in ("gain", "last"))
        shares = [pair["flops_to_vanilla"] for pair in pairs]
        there = [share for share in shares if share is not None]
        rows.append(
            {
                "schedule": name,
                "score": spread([pair["score"] for pair in pairs]),
                "last": None if None in last else spread(last),
                "flops_ratio": mean(pair["flops_ratio"] for pair in pairs),
                "seconds_ratio": mean(pair["seconds_ratio"] for pair in pairs),
                "gain": None if None in gains else spread(gains),
                "flops_to_vanilla": spread(there) if there else None,
                "reached_vanilla": len(there),
                "score_at": {
                    f"{share:g}": _mean([pair["score_at"][f"{share:g}"] for pair in pairs]) for share in SHARES
                },
                "runs": pairs,
            }
        )
    names = ("task", "model", "baseline", "majority")
    seeds = [run.result["seed"] for run in vanilla]
    facts = {key: first[key] for key in names}
    return {**facts, "metric": first["metric"]["name"], "vanilla": target, "seeds": seeds, "schedules": rows}


def validations(run: Run) -> list[Point]:
    """Those on the last stage's model.

    Raises:
        UserError: its metrics do not say FLOPs.
    """
    if not all("flops" in line for line in run.metrics):
        raise UserError(f"{run.path}: was made by an fpt whose metrics have no FLOPs; start it over with resume=never")
    return curve(run.metrics, run.result["metric"]["name"], len(run.result["stages"]))


def _against(run: Run, vanilla: Run, target: float) -> dict[str, Any]:
    """A run beside vanilla prompt tuning's of the same seed; `target` is what all of those came to."""
    result, other = run.result, vanilla.result
    is_whole = all(result["stages"][-1][size] == other["stages"][-1][size] for size in SIZES)
    points, score = validations(run) if is_whole else [], result["metric"]["value"]
    there = max((point.score for point in validations(vanilla) if point.flops <= result["flops"]), default=None)
    spent = reaches(points, target)
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
        "flops_to_vanilla": None if spent is None else spent / other["flops"],
        "score_at": {f"{share:g}": after(points, share * other["flops"]) for share in SHARES},
        "folder": str(run.path),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """None where a value is missing."""
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation, which one value has not."""
    return {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None}
