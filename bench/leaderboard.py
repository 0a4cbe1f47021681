"""FLOPs to vanilla prompt tuning's score, row by row: `python -m bench.leaderboard` prints docs/leaderboard.md.

Runs that are missing are made first, with the land and the seed of docs/backbone.md, and kept with its own; the same
command goes on where it was interrupted, and `--done` prints what there is. All of it takes nine hours on two cores,
`--tasks boolq --seeds 1` a quarter of an hour.
"""

import argparse
import os
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from statistics import fmean, median_high

from bench import rows
from bench.rows import (
    AVERAGE,
    CHOSEN_ON,
    CLIMBING,
    COMPARED,
    FURTHER,
    LANDS,
    MOMENTUM,
    RECORDS,
    SCHEDULES,
    SMALL,
    VANILLA,
    name,
)
from bench.runs import spread, table
from fpt.runs.progress import quiet_libraries

ROWS = [*SCHEDULES, *FURTHER]
INTRODUCTION = """\
# FLOPs to vanilla prompt tuning's score

Printed on {date} at commit {commit} by `python -m bench.leaderboard --seeds {number}`.

The embedded model under customs, its own recipe; every seed has a land of its own ({lands}), in which no rate
was chosen. "To vanilla's score" is the share of vanilla prompt tuning's FLOPs after which a run's validations on
the full model have vanilla's last score in the same land, and still have it at the next (mean and deviation over
the lands in which they ever do, and in how many of how many that is); "of the mean" is the same of the mean over the
lands and vanilla's, where a run that never gets there counts too. Beside them are the score after half of
vanilla's FLOPs, and the last prompt's. Scoring neurons counts, validation does not; there is one after every
twentieth of the updates, so that no share is finer than that.

Learning rates, the better of two, were chosen in land {chosen}, vanilla prompt tuning's over the three tasks
together, the others' on {compared} (`python -m bench.backbone --choose`); fast, what is averaged and small batches
have those of the rows that they come from. The runs that chose four others are not kept: they scored, at 0.1 and 0.3,
89.2 and 82.6 (half, then whole), 90.6 and 89.6 (short end), 82.0 and 78.4 (CR from half, linear), 79.2 and 90.8 (pt,
linear).
fast was thought of when CR from half's runs in these lands had been seen on BoolQ; averaging when all of its runs
had, and its weight (`optim.average={average}`, the least of four) was chosen in land {chosen} on XSum and MNLI. Small
batches ({small} examples, twice the updates, the same FLOPs) came later; a first run on MNLI in land 7 had ended at
84.0, where the row that it comes from has 77.2 and vanilla prompt tuning 80.2. Momentum (`optim.momentum={momentum}`)
came last of all, its rate by runs of 600 updates on half of the blocks alone (BoolQ, land 1: 77.0 at 0.1, 87.6 at 0.3,
which is 84.6 without momentum). What a run was made with stands in `bench/results`: some with torch 2.13, some with
2.11 on another machine.
"""
OF_ALL = """\
## Over {tasks}

Rows that were run on all of them in all lands, {runs} runs each. The mean of those that have vanilla's score flatters a
row that has it in easy lands alone; in the median over all runs one that never has it is above every share.
"""


def printed(tasks: Sequence[str], names: Sequence[str], seeds: Sequence[int]) -> str:
    """The page, of the runs that are there."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    introduction = INTRODUCTION.format(
        number=len(seeds),
        date=datetime.now(UTC).date(),
        commit=commit.strip(),
        lands=", ".join(str(LANDS[seed]) for seed in seeds),
        chosen=CHOSEN_ON,
        compared=COMPARED,
        average=AVERAGE,
        small=SMALL,
        momentum=MOMENTUM,
    )
    parts = [introduction]
    if len(tasks) > 1:
        parts += [OF_ALL.format(tasks=", ".join(tasks), runs=len(tasks) * len(seeds)), _summary(tasks, names, seeds)]
    for task in tasks:
        cells = [_cells(task, row, seeds) for row in names if rows.made(task, row, seeds)]
        columns = ("row", "lands", "rate", "to vanilla's score", "of the mean", "at half", "last score")
        parts += [f"## {task}\n", table(columns, cells)]
    return "\n".join(parts)


def _summary(tasks: Sequence[str], names: Sequence[str], seeds: Sequence[int]) -> str:
    """A line for each row that was run on all tasks in all lands."""
    lines = []
    for row in names:
        if any(len(rows.made(task, row, seeds)) < len(seeds) for task in tasks):
            continue
        shares = [rows.to_vanilla(task, row, seed) for task in tasks for seed in seeds]
        there = [share for share in shares if share is not None]
        middle = median_high(inf if share is None else share for share in shares)
        spent = [rows.flops_share(task, row, seeds) for task in tasks]
        cells = [_share(rows.mean_to_vanilla(task, row, seeds)) for task in tasks]
        many = f"{len(there)} of {len(shares)}", f"{fmean(there):.0%}" if there else "–", _share(middle)
        lines.append([row, *many, *cells, f"{min(spent):.0%} to {max(spent):.0%}"])
    ever = ("row", "have vanilla's score", "these after, mean", "all after, median")
    return table((*ever, *(f"{task}: of the mean" for task in tasks), "all of its FLOPs"), lines)


def _share(share: float | None) -> str:
    return "never" if share in (None, inf) else f"{share:.0%}"


def _cells(task: str, row: str, seeds: Sequence[int]) -> list[str]:
    there = rows.made(task, row, seeds)
    halfway = [score for seed in there if (score := rows.after_half(task, row, seed)) is not None]
    return [
        row,
        str(len(there)),
        f"{rows.rate_of(row):g}",
        rows.reached(task, row, there),
        _share(rows.mean_to_vanilla(task, row, there)),
        spread(halfway) if halfway else "–",
        spread([rows.last(task, row, seed) for seed in there]),
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.leaderboard", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(CLIMBING), choices=CLIMBING)
    parser.add_argument("--rows", nargs="+", default=ROWS, choices=ROWS)
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, len(LANDS) + 1))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (default %(default)s)")
    parser.add_argument("--done", action="store_true", help="run nothing")
    options = parser.parse_args()
    quiet_libraries()
    seeds = range(options.seeds)
    kinds = [(task, row) for row in dict.fromkeys((VANILLA, *options.rows)) for task in options.tasks]
    if not options.done:
        runs = {name(*kind, seed): rows.overrides(*kind, seed) for seed in seeds for kind in kinds}
        RECORDS.make(runs, options.jobs)
    print(printed(options.tasks, options.rows, seeds), end="")


if __name__ == "__main__":
    main()
