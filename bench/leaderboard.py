"""FLOPs to vanilla prompt tuning's score: `python -m bench.leaderboard` prints a table for each task, and a summary.

Runs that are missing are made first and kept in bench/results, so that the same command goes on where it was
interrupted; `--done` runs nothing. All of it takes nine hours on two cores, `--tasks boolq --seeds 1` a quarter of an
hour. Learning rates, and the weight of the mean, were chosen on land 1 (bench/rows.py).
"""

import argparse
import os
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from statistics import fmean, median_high

from bench import rows
from bench.rows import CLIMBING, FURTHER, LANDS, RECORDS, SCHEDULES, VANILLA, name
from bench.runs import spread, table
from fpt.runs.progress import quiet_libraries

ROWS = [*SCHEDULES, *FURTHER]
INTRODUCTION = """\
# FLOPs to vanilla prompt tuning's score

On {date} at commit {commit}, seeds in lands {lands}.
"To vanilla's score" is the share of vanilla prompt tuning's FLOPs after which two validations in a row on the full
model have its last score in the same land (mean and deviation over the lands that get there). "Of the mean" is that
share for the mean over the lands. "At half" is the score after half of vanilla's FLOPs.
"""
OF_ALL = """\
## Over {tasks}

Rows that were run on all of them in all lands, {runs} runs each. A row that gets there in easy lands alone looks good
in "these after"; the median over all runs counts those that never do as above every share.
"""


def printed(tasks: Sequence[str], names: Sequence[str], seeds: Sequence[int]) -> str:
    """The page, of the runs that are there."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    lands = ", ".join(str(LANDS[seed]) for seed in seeds)
    introduction = INTRODUCTION.format(date=datetime.now(UTC).date(), commit=commit.strip(), lands=lands)
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
