"""Several runs with one command: all combinations of values, or schedules compared with vanilla prompt tuning."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import mean, stdev
from typing import Any, NamedTuple

from fpt.config import compose
from fpt.config.keys import each
from fpt.config.run_config import RunConfig
from fpt.config.schema import FolderConfig
from fpt.config.stored import differences
from fpt.devices.processes import is_worker
from fpt.errors import UserError
from fpt.runs.run import CONFIG, RESULT, Run, open_run
from stages import resolve, schedule

IN_THE_NAME = ("task", "task.name", "model", "model.name", "schedule", "schedule.name", "seed")
LONGEST = 60  # the most characters of a value in a folder's name
VANILLA = "pt"
SIZES = ("encoder_layers", "decoder_layers", "ffn", "decoder_ffn")
VALIDATIONS = 10  # the least number of validations in a run, unless train.eval_every is typed
COMPARED = ("seed", "schedule", "schedule.stages", "schedule.name")  # the keys that the comparison itself sets


@dataclass(frozen=True)
class Planned:
    """One run of several."""

    words: tuple[str, ...]  # the overrides that say all of it
    config: RunConfig  # what they make
    values: Mapping[str, str]  # the values by key in which it differs from the others

    @property
    def label(self) -> str:
        """The values in words for the user."""
        return " ".join(f"{key}={value}" for key, value in self.values.items()) or "the run"


def combinations(words: Sequence[str]) -> list[Planned]:
    """Compose and check a run for every combination of the values typed, as `fpt train -m key=a,b` does."""
    swept = {word: many for word in words if (many := each(word))}
    keys = [word.removeprefix("+").partition("=")[0] for word in swept]
    if "run.dir" in keys:
        raise UserError("run.dir: cannot be swept; with run.dir=DIR every run has a folder of its own in DIR")
    runs = []
    for chosen in product(*swept.values()):
        values = dict(zip(keys, chosen, strict=True))
        given = [word for word in words if word not in swept] + [f"{key}={value}" for key, value in values.items()]
        config = resolve.for_training(compose.load(given))
        folder = _folder(config, values)
        runs.append(Planned((*given, f"run.dir={folder}"), replace(config, run=FolderConfig(dir=folder)), values))
    return runs


def _folder(config: RunConfig, values: Mapping[str, str]) -> str:
    """Name a run's folder: the default name plus the swept values that it lacks; in run.dir=DIR, all swept values."""
    named = {key: value for key, value in values.items() if config.run.dir or key not in IN_THE_NAME}
    parts = [f"{key}={_short(value)}" for key, value in named.items()]
    if config.run.dir:
        return f"{config.run.dir}/{'-'.join(parts)}"
    return "-".join((str(config.folder), *parts))


def _short(value: str) -> str:
    """Write a value as part of a folder's name, with a hash if characters had to be replaced or cut."""
    clean = re.sub(r"[^\w.+]+", "_", value)
    if clean == value and len(clean) <= LONGEST:
        return value
    return f"{clean[:LONGEST].strip('_')}~{hashlib.sha256(value.encode()).hexdigest()[:6]}"


def run_all(
    plans: Sequence[Planned],
    check: Callable[[RunConfig], object],
    train: Callable[[Planned], object],
    say: Callable[[str], None],
) -> Iterator[tuple[Planned, Run | UserError]]:
    """Train the runs that are not finished yet; yields each run, or the error that ended it.

    All are checked before the first begins, so that none fails later for a reason that could be known now.
    """
    _check_all(plans, check)
    for number, planned in enumerate(plans, 1):
        where = f"run {number} of {len(plans)}: {planned.label}"
        try:
            if run := finished(planned.config):
                say(f"{where}: finished, in {planned.config.folder}")
            else:
                say(f"{where}, in {planned.config.folder}")
                train(planned)
                run = open_run(planned.config.folder)
            yield planned, run
        except UserError as error:
            yield planned, error


def _check_all(plans: Sequence[Planned], check: Callable[[RunConfig], object]) -> None:
    if is_worker():
        raise UserError("several runs start their processes themselves; give engine.processes=N in place of a launcher")
    taken: dict[str, Planned] = {}
    for planned in plans:
        folder = str(planned.config.folder)
        first = taken.setdefault(folder, planned)
        if first is not planned:
            raise UserError(f"{first.label} and {planned.label} would share the folder {folder}; give run.dir=DIR")
        if not finished(planned.config):
            check(planned.config)


def finished(config: RunConfig) -> Run | None:
    """Open the run if it is finished, else None; whether its data have changed since is not checked."""
    folder = config.folder
    if config.resume == "never" or not (folder / CONFIG).is_file():
        return None
    run = open_run(folder)
    if not run.is_finished:
        return None
    if wrong := differences(run.settings, config):
        raise UserError(
            f"{folder}: holds a run with another configuration ({'; '.join(wrong)})."
            " Give run.dir=DIR, in which every run gets a folder of its own, or start all over with resume=never"
        )
    run.read(RESULT)
    return run


def comparison(overrides: Sequence[str], names: Sequence[str], seeds: Sequence[int]) -> list[Planned]:
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
    """Compare finished runs with vanilla's; every schedule has one run per seed, in the same order of seeds.

    The target is vanilla's last validation score, averaged over seeds. A run's FLOPs to vanilla are those spent when a
    validation on the full model first reaches the target and the next validation holds it. A run's gain is its score
    minus the best that vanilla with the same seed had reached with as many FLOPs.
    """
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
