"""Runs of one model and task held against each other: schedules against vanilla prompt tuning, or kinds of prompts.

The first variant is vanilla prompt tuning, or the first kind of prompt, here called vanilla too.

FLOPs to vanilla's score are those after which a run's validations on the full model reach what vanilla's last ones
have, in the mean over the seeds, and still have it at the next validation; as a share of all that vanilla's run with
the same seed spent. A run need not get there.

The gain is a run's score minus what vanilla with the same seed had reached with as many FLOPs: the best of its own
validations up to there. Both are chosen alike, by the best validation on the full model so far; what neuron scores cost
counts among a schedule's FLOPs. The fewer validations there are, the earlier is vanilla's last that counts, so a large
train.eval_every favours the schedule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

from fpt.config import compose
from fpt.config.keys import group_options
from fpt.config.run_config import RunConfig
from fpt.config.schema import FolderConfig, PromptConfig
from fpt.errors import UserError, did_you_mean
from fpt.runs.curves import Point, after, curve, reaches
from fpt.runs.run import Run
from stages import schedule
from stages.epochs import in_updates
from stages.several.in_turn import Planned

VANILLA = "pt"
GENERATORS = PromptConfig.__dataclass_fields__["generator"].metadata["choices"]
SIZES = ("encoder_layers", "decoder_layers", "ffn", "decoder_ffn")
SHARES = (0.25, 0.5, 0.75)  # of vanilla's FLOPs, after which scores are read off
VALIDATIONS = 10  # of a run, at least, where nothing is typed
OWN_KEYS = {"schedule": ("schedule", "schedule.stages", "schedule.name"), "prompt": ("prompt", "prompt.generator")}
EXAMPLES = {"schedule": "schedules=pt,cr (or a FILE.yaml)", "prompt": "prompts=soft,late"}


def plan(overrides: Sequence[str], kind: str, names: Sequence[str], seeds: Sequence[int]) -> list[Planned]:
    """The runs, variant by variant; of schedules, vanilla prompt tuning is the first.

    `kind` is what is compared, schedule or prompt.
    """
    keys = {word.partition("=")[0].lstrip("+~"): word for word in overrides}
    for key, word in keys.items():
        if key in ("seed", *OWN_KEYS[kind]):
            raise UserError(f"{word}: is what is compared; give {EXAMPLES[kind]} and seeds=0,1")
    runs = []
    for name in dict.fromkeys((VANILLA, *names) if kind == "schedule" else names):
        config = in_updates(compose.load([*_words(kind, name, keys), *overrides]))
        if kind == "schedule" and "train.eval_every" not in keys:
            config = _validated_often(config)
        label = config.schedule.name if kind == "schedule" else name
        for seed in seeds:
            own = replace(config, seed=seed)
            folder = f"{config.run.dir}/{label}-s{seed}" if config.run.dir else None
            if folder is None and name in GENERATORS:
                folder = f"{own.folder}-{name}"
            runs.append(Planned(replace(own, run=FolderConfig(dir=folder)), {kind: label, "seed": str(seed)}))
    return runs


def _words(kind: str, name: str, keys: Mapping[str, str]) -> list[str]:
    """The overrides of a variant; kinds of prompts are compared on the full model, unless a schedule is typed."""
    if kind == "schedule":
        return [f"schedule={name}"]
    allowed = [*group_options("prompt"), *GENERATORS]
    if name not in allowed:
        raise UserError(f"prompts={name}: allowed are {', '.join(allowed)}.{did_you_mean(name, allowed)}")
    full = [] if {"schedule", "schedule.stages"} & set(keys) else [f"schedule={VANILLA}"]
    return [*(["prompt=late", f"prompt.generator={name}"] if name in GENERATORS else [f"prompt={name}"]), *full]


def _validated_often(config: RunConfig) -> RunConfig:
    """The same with the validations that curves are read off, however short the run."""
    every = min(config.train.eval_every, max(1, schedule.of(config).updates // VALIDATIONS))
    return replace(config, train=replace(config.train, eval_every=every))


def compare(kind: str, runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """All numbers, from the finished runs of each variant, seed by seed in one order; ratios are to vanilla's run.

    Memory is planned, of the largest stage on one device.
    """
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
                "memory": _planned_memory(members[0]),
                "examples_per_second": mean(map(examples_per_second, members)),
                "runs": pairs,
            }
        )
    first = vanilla[0].result
    facts = {key: first[key] for key in ("task", "model", "baseline", "majority")}
    seeds = [run.result["seed"] for run in vanilla]
    return {**facts, "metric": first["metric"]["name"], "vanilla": target, "seeds": seeds, f"{kind}s": rows}


def validations(run: Run) -> list[Point]:
    """Those on the last stage's model."""
    if not all("flops" in line for line in run.metrics):
        raise UserError(f"{run.path}: was made by an fpt whose metrics have no FLOPs; start it over with resume=never")
    return curve(run.metrics, run.result["metric"]["name"], len(run.result["stages"]))


def _against(run: Run, vanilla: Run, target: float) -> dict[str, Any]:
    """A run beside the first variant's of the same seed; `target` is what all of those came to."""
    result, other = run.result, vanilla.result
    is_whole = all(result["stages"][-1][size] == other["stages"][-1][size] for size in SIZES)
    points, score = validations(run) if is_whole else [], result["metric"]["value"]
    there = max((point.score for point in validations(vanilla) if point.flops <= result["flops"]), default=None)
    spent = reaches(points, target)
    return {
        "seed": result["seed"],
        "score": score,
        "test": _test(run),
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


def _test(run: Run) -> float | None:
    """The score on the test split, where there is one with labels."""
    test = run.result["test"]
    return test["metrics"][run.result["metric"]["name"]] if test and test["metrics"] else None


def _planned_memory(run: Run) -> int:
    """Bytes of the largest stage on one device."""
    totals: list[int] = [stage["total"] for stage in run.plan["stages"] if "total" in stage]
    if not totals:
        raise UserError(f"{run.path}: has the plan of another version of fpt; start it over with resume=never")
    return max(totals)


def examples_per_second(run: Run) -> float:
    """Examples per second of updates alone: validations and a stage's beginning are left out."""
    count, seconds, before = 0, 0.0, None
    for line in run.metrics:
        if "loss" not in line:
            before = None
            continue
        if before is not None and before["stage"] == line["stage"]:
            count, seconds = count + 1, seconds + line["seconds"] - before["seconds"]
        before = line
    size: int = run.plan.get("batch_size", run.config.train.batch_size)  # there may be fewer examples than asked for
    return size * count / seconds if seconds else 0.0


def spread(values: Sequence[float | None]) -> dict[str, float | None] | None:
    """Mean and standard deviation, which one value does not have; None where a value is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return {"mean": mean(known), "deviation": stdev(known) if len(known) > 1 else None}
