"""Makes tables of the kept rows: scores, and the FLOPs and seconds to vanilla prompt tuning's last score, arm by arm.

A run has reached a score where two validations in a row on the full model have it (or its last one). Vanilla's is that
of its last validation in training, of the same task and seed, on the same examples.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from bench.real.arms import ARMS, BATCH_SIZE, COMPRESSED, PARTS, PEFT, SHARES, TASKS, UPDATES, VANILLA
from bench.real.runs import Row
from bench.runs import table
from stages.several import Point, reaches

Pair = tuple[str, int]  # task and seed
INTRODUCTION = """\
## {model}

{runs} runs of batches of {batch} examples ({updates}), {threads}, {processor}.
± is a 95 % interval over seeds or runs. Seconds are the processor's, from the command on, and beside vanilla's or
PEFT's of the same task and seed.
"""
COLUMNS = ("against vanilla", "FLOPs in all", "FLOPs to vanilla's score", "seconds to it", "seconds to PEFT's score")


class Look(NamedTuple):
    """A validation: after which update, in which stage, with what spent, and what it showed."""

    update: int
    stage: int
    flops: int | None
    score: float
    cpu: float
    wall: float


def looks(row: Row) -> list[Look]:
    """A run's validations on the full model."""
    return [look for look in map(Look._make, row["looks"]) if look.stage == row["stages"]]


def of_model(
    rows: Mapping[str, Row], model: str, updates: Mapping[str, int] = UPDATES, arms: Iterable[str] = ARMS
) -> dict[str, dict[Pair, Row]]:
    """A model's rows of so many updates on each task, without those that tune a rate: by arm, task and seed."""
    found: dict[str, dict[Pair, Row]] = {arm: {} for arm in arms}
    for row in rows.values():
        if (row["model"], row["updates"], row["rate"]) == (model, updates[row["task"]], None) and row["arm"] in found:
            found[row["arm"]][row["task"], row["seed"]] = row
    return {arm: of_arm for arm, of_arm in found.items() if of_arm}


def summary(arm: str, rows: Mapping[str, Mapping[Pair, Row]]) -> dict[str, Any]:
    """An arm's scores by task, and what it spends beside vanilla prompt tuning and PEFT."""
    own, vanilla, peft = (rows.get(name, {}) for name in (arm, VANILLA, PEFT))
    scores: dict[str, list[float]] = {}
    for (task, _), row in sorted(own.items()):
        scores.setdefault(task, []).append(row["metric"]["last"])
    beside = [(row, vanilla[pair]) for pair, row in own.items() if pair in vanilla]
    priced = [(row, other) for row, other in beside if row["flops"] is not None]
    return {
        "scores": scores,
        "against": [row["metric"]["last"] - other["metric"]["last"] for row, other in beside],
        "flops": [row["flops"] / other["flops"] for row, other in priced],
        "flops_to_vanilla": [_to_score(row, other, "flops") for row, other in priced],
        "seconds_to_vanilla": [_to_score(*pair, "cpu") for pair in _timed(beside)],
        "seconds_to_peft": [
            _to_score(*pair, "cpu") for pair in _timed([(row, peft[pair]) for pair, row in own.items() if pair in peft])
        ],
    }


def _timed(pairs: Sequence[tuple[Row, Row]]) -> list[tuple[Row, Row]]:
    """The pairs whose runs were alone on the machine: beside other work a run takes up to twice the seconds."""
    return [pair for pair in pairs if not any(row.get("busy") for row in pair)]


def _to_score(row: Row, other: Row, spent: str) -> float | None:
    """What a run spends until it has another's last score, as a share of what that one spends; None: never."""
    last = looks(other)[-1]
    there = reaches([Point(getattr(look, spent), look.score) for look in looks(row)], last.score)
    whole: float = getattr(last, spent)
    return None if there is None else there / whole


def printed(rows: Mapping[str, Row], model: str, updates: Mapping[str, int]) -> str:
    """A model's table in Markdown, of the runs that are done; nothing if none is."""
    by_arm = of_model(rows, model, updates)
    if not by_arm:
        return ""
    some = next(iter(next(iter(by_arm.values())).values()))
    tasks = [task for task in TASKS if any(pair[0] == task for of_arm in by_arm.values() for pair in of_arm)]
    introduction = INTRODUCTION.format(
        model=model,
        runs=sum(map(len, by_arm.values())),
        updates=", ".join(f"{task}: {updates[task]} updates" for task in tasks),
        batch=BATCH_SIZE,
        threads=f"{some['threads']} thread{'s' * (some['threads'] > 1)}",
        processor=some["processor"],
    )
    lines = [_line(arm, summary(arm, by_arm), tasks) for arm in by_arm]
    return f"{introduction}\n{table(('arm', *tasks, *COLUMNS), lines)}"


def of_parts(rows: Mapping[str, Row], model: str, updates: Mapping[str, int]) -> str:
    """The paper's Table 1: a prompt's last score on the part that it was trained on, then on the full model."""
    by_arm = of_model(rows, model, updates, PARTS)

    def cell(arm: str) -> str:
        own = by_arm.get(arm, {}).values()
        ends = [[look for look in map(Look._make, row["looks"]) if look.stage == 1][-1].score for row in own]
        return f"{interval(ends)}, {interval([row['metric']['last'] for row in own])}"

    lines = [[f"{share:.0%}", *(cell(f"{name}-{share}") for name in COMPRESSED)] for share in SHARES]
    return f"## {model}\n\n{table(('part', 'depth', 'width', 'both'), lines)}"


def _line(arm: str, found: Mapping[str, Any], tasks: Sequence[str]) -> list[str]:
    scores = [interval(found["scores"].get(task, [])) for task in tasks]
    shares = [reached(found[key]) for key in ("flops_to_vanilla", "seconds_to_vanilla", "seconds_to_peft")]
    whole = f"{fmean(found['flops']):.0%}" if found["flops"] else "–"
    return [arm, *scores, interval(found["against"], "+.1f"), whole, *shares]


def interval(values: Sequence[float], form: str = ".1f") -> str:
    """The mean and its 95 % interval by Student's t; of one value, that value."""
    from scipy.stats import t

    if len(values) < 2:
        return f"{values[0]:{form}}" if values else "–"
    half = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{fmean(values):{form}} ± {half:.1f}"


def reached(shares: Sequence[float | None]) -> str:
    """The mean of the shares of runs that get there, and how many do."""
    there = [share for share in shares if share is not None]
    if not shares:
        return "–"
    return f"{fmean(there):.0%} ({len(there)} of {len(shares)})" if there else f"never (0 of {len(shares)})"
