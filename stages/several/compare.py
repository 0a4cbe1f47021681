"""Compares runs on one model and task: schedules with vanilla prompt tuning, or kinds of prompts with the first one.

The first variant is called vanilla here, whichever it is. The target is vanilla's last validation score, averaged over
seeds. A run's FLOPs to vanilla are those spent when a validation on the full model first reaches the target and the
next validation holds it. A run's gain is its score minus the best that vanilla with the same seed had reached with as
many FLOPs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import mean, stdev
from typing import Any, NamedTuple

from fpt.config import compose
from fpt.config.keys import group_options
from fpt.config.run_config import RunConfig
from fpt.config.schema import FolderConfig, PromptConfig
from fpt.errors import UserError, check_among
from fpt.runs.run import Run
from stages import resolve, schedule
from stages.several.in_turn import Planned

VANILLA = "pt"
GENERATORS = PromptConfig.__dataclass_fields__["generator"].metadata["choices"]
SIZES = ("encoder_layers", "decoder_layers", "ffn", "decoder_ffn")
SHARES = (0.25, 0.5, 0.75)  # the shares of vanilla's FLOPs after which scores are compared
VALIDATIONS = 10  # the least number of validations in a run, unless train.eval_every is typed
OWN_KEYS = {"schedule": ("schedule", "schedule.stages", "schedule.name"), "prompt": ("prompt", "prompt.generator")}
EXAMPLES = {"schedule": "schedules=pt,cr (or a FILE.yaml)", "prompt": "prompts=soft,late"}


def plan(overrides: Sequence[str], kind: str, names: Sequence[str], seeds: Sequence[int]) -> list[Planned]:
    """Plan the runs of a comparison, variant by variant; `kind` is what varies: schedule or prompt."""
    keys = {word.partition("=")[0].lstrip("+~"): word for word in overrides}
    for key, word in keys.items():
        if key in ("seed", *OWN_KEYS[kind]):
            raise UserError(f"{word}: is what is compared; give {EXAMPLES[kind]} and seeds=0,1")
    runs: list[Planned] = []
    for name in dict.fromkeys((VANILLA, *names) if kind == "schedule" else names):
        config = resolve.for_training(compose.load([*_words(kind, name, keys), *overrides]))
        if kind == "schedule" and "train.eval_every" not in keys:
            config = _validated_often(config)
        label = config.schedule.name if kind == "schedule" else name
        if kind == "schedule" and any(run.config.schedule == config.schedule for run in runs):
            raise UserError(f"schedules={name}: is {label} on this model, which is compared already")
        for seed in seeds:
            own = replace(config, seed=seed)
            folder = f"{config.run.dir}/{label}-s{seed}" if config.run.dir else None
            if folder is None and name in GENERATORS:
                folder = f"{own.folder}-{name}"
            runs.append(Planned(replace(own, run=FolderConfig(dir=folder)), {kind: label, "seed": str(seed)}))
    return runs


def _words(kind: str, name: str, keys: Mapping[str, str]) -> list[str]:
    """Write a variant as overrides; prompts are compared on the full model, unless a schedule is typed."""
    if kind == "schedule":
        return [f"schedule={name}"]
    allowed = [*group_options("prompt"), *GENERATORS]
    check_among(name, allowed, f"prompts={name}: allowed are")
    full = [] if {"schedule", "schedule.stages"} & set(keys) else [f"schedule={VANILLA}"]
    return [*(["prompt=late", f"prompt.generator={name}"] if name in GENERATORS else [f"prompt={name}"]), *full]


def _validated_often(config: RunConfig) -> RunConfig:
    """Make even a short run validate often enough for a curve."""
    every = min(config.train.eval_every, max(1, schedule.of(config).updates // VALIDATIONS))
    return replace(config, train=replace(config.train, eval_every=every))


class Point(NamedTuple):
    """A validation's score, and the FLOPs spent until then."""

    flops: int
    score: float


def compare(kind: str, runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Compare finished runs with vanilla's; every variant has one run per seed, in the same order of seeds."""
    memory = {name: max(map(_planned_memory, members)) for name, members in runs.items()}
    vanilla = next(iter(runs.values()))
    target = mean(validations(run)[-1].score for run in vanilla)
    rows = []
    for name, members in runs.items():
        pairs = [_against(run, other, target) for run, other in zip(members, vanilla, strict=True)]
        there = [pair["flops_to_vanilla"] for pair in pairs if pair["flops_to_vanilla"] is not None]
        scores_at = {share: spread([pair["score_at"][share] for pair in pairs]) for share in pairs[0]["score_at"]}
        rows.append(
            {
                kind: name,
                **{key: spread([pair[key] for pair in pairs]) for key in ("score", "test", "last", "gain")},
                **{key: mean(pair[key] for pair in pairs) for key in ("flops_ratio", "seconds_ratio")},
                "flops_to_vanilla": spread(there),
                "reached_vanilla": len(there),
                "score_at": {share: at and at["mean"] for share, at in scores_at.items()},
                "trainable_parameters": members[0].result["trainable_parameters"],
                "memory": memory[name],
                "examples_per_second": mean(map(examples_per_second, members)),
                "runs": pairs,
            }
        )
    first = vanilla[0].result
    facts = {key: first[key] for key in ("task", "model", "baseline", "majority")}
    seeds = [run.result["seed"] for run in vanilla]
    return {**facts, "metric": first["metric"]["name"], "vanilla": target, "seeds": seeds, f"{kind}s": rows}


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


def after(points: Sequence[Point], flops: float) -> float | None:
    """Return the score of the last validation up to that many FLOPs; None before the first."""
    scores = [point.score for point in points if point.flops <= flops]
    return scores[-1] if scores else None


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
        "score_at": {f"{share:g}": after(points, share * other["flops"]) for share in SHARES},
        "folder": str(run.path),
    }


def _planned_memory(run: Run) -> int:
    """Return the bytes of the largest stage on one device, as planned."""
    totals: list[int] = [stage["total"] for stage in run.plan["stages"] if "total" in stage]
    if not totals:
        raise UserError(f"{run.path}: has the plan of another version of fpt; start it over with resume=never")
    return max(totals)


def examples_per_second(run: Run) -> float:
    """Return the examples per second in updates, leaving out validations and the time to set up a stage."""
    pairs = [
        (before, line)
        for before, line in pairwise(run.metrics)
        if "loss" in before and "loss" in line and before["stage"] == line["stage"]
    ]
    seconds = sum(line["seconds"] - before["seconds"] for before, line in pairs)
    size: int = run.plan.get("batch_size", run.config.train.batch_size)  # there may be fewer examples than asked for
    return size * len(pairs) / seconds if seconds else 0.0


def spread(values: Sequence[float | None]) -> dict[str, float | None] | None:
    """Return mean and standard deviation (None for a single value), or None altogether if a value is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return {"mean": mean(known), "deviation": stdev(known) if len(known) > 1 else None}
