"""The late prompt paper's table for one model and task: score, parameters, memory, examples per second, FLOPs.

Every kind of prompt with its own recipe, and the same seeds; ratios are to the first kind's run with the same seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from fpt.config import compose
from fpt.config.keys import group_options
from fpt.config.schema import FolderConfig, PromptConfig
from fpt.errors import UserError, did_you_mean
from fpt.runs.run import Run
from stages.epochs import in_updates
from stages.several.compare import spread
from stages.several.in_turn import Planned

GENERATORS = PromptConfig.__dataclass_fields__["generator"].metadata["choices"]


def plan(overrides: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]) -> list[Planned]:
    """The runs, kind by kind.

    Raises:
        UserError: an override names what is compared, or there is no such kind.
    """
    keys = [word.partition("=")[0].lstrip("+~") for word in overrides]
    for word, key in zip(overrides, keys, strict=True):
        if key in ("seed", "prompt", "prompt.generator"):
            raise UserError(f"{word}: is what is compared; give prompts=soft,late and seeds=0,1")
    schedule = [] if {"schedule", "schedule.stages"} & set(keys) else ["schedule=pt"]
    runs = []
    for name in dict.fromkeys(prompts):
        config = in_updates(compose.load([*_words(name), *schedule, *overrides]))
        for seed in seeds:
            own = replace(config, seed=seed)
            folder = f"{config.run.dir}/{name}-s{seed}" if config.run.dir else None
            if folder is None and name in GENERATORS:
                folder = f"{own.folder}-{name}"
            runs.append(Planned(replace(own, run=FolderConfig(dir=folder)), {"prompt": name, "seed": str(seed)}))
    return runs


def _words(name: str) -> list[str]:
    """What makes a run one of that kind."""
    if name in GENERATORS:
        return ["prompt=late", f"prompt.generator={name}"]
    options = group_options("prompt")
    if name not in options:
        allowed = [*options, *GENERATORS]
        raise UserError(f"prompts={name}: allowed are {', '.join(allowed)}.{did_you_mean(name, allowed)}")
    return [f"prompt={name}"]


def compare(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """All numbers, from the finished runs of each kind, seed by seed in one order.

    Scores are of the test split where the runs have one with labels, else of the validation split on which the best
    prompt was chosen. Memory is planned, of the largest stage on one device.
    """
    first = next(iter(runs.values()))
    result = first[0].result
    is_tested = bool(result["test"] and result["test"]["metrics"])
    rows = []
    for name, members in runs.items():
        pairs = list(zip(members, first, strict=True))
        rows.append(
            {
                "prompt": name,
                "score": spread([_score(run, is_tested) for run in members]),
                "trainable_parameters": members[0].result["trainable_parameters"],
                "memory": max(stage["total"] for stage in members[0].plan["memory"]["stages"]),
                "examples_per_second": mean(map(examples_per_second, members)),
                "flops_ratio": mean(run.result["flops"] / other.result["flops"] for run, other in pairs),
                "runs": [str(run.path) for run in members],
            }
        )
    return {
        **{key: result[key] for key in ("task", "model", "baseline", "majority")},
        "metric": result["metric"]["name"],
        "split": result["test"]["split"] if is_tested else None,
        "seeds": [run.result["seed"] for run in first],
        "prompts": rows,
    }


def _score(run: Run, is_tested: bool) -> float:
    metric = run.result["metric"]
    value: float = run.result["test"]["metrics"][metric["name"]] if is_tested else metric["value"]
    return value


def examples_per_second(run: Run) -> float:
    """Of updates alone: validations and what comes before a stage's first update are left out."""
    count, seconds, before = 0, 0.0, None
    for line in run.metrics:
        if "loss" not in line:
            before = None
            continue
        if before is not None and before["stage"] == line["stage"]:
            count, seconds = count + 1, seconds + line["seconds"] - before["seconds"]
        before = line
    return run.config.train.batch_size * count / seconds if seconds else 0.0
