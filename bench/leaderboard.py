"""FLOPs to vanilla prompt tuning's score, row by row: `python -m bench.leaderboard` prints docs/leaderboard.md.

Runs that are missing are made first, with the land and the seed of docs/backbone.md, and kept with its own; the same
command goes on where it was interrupted, and `--done` prints what there is. All of it takes five hours on two cores,
`--tasks boolq --seeds 2` half an hour.
"""

import argparse
import os
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import fmean

from bench import rows as board
from bench.rows import AVERAGE, CHOSEN_ON, CLIMBING, COMPARED, FURTHER, LANDS, RECORDS, SCHEDULES, VANILLA, name
from bench.runs import spread, table
from fpt.runs.progress import quiet_libraries

ROWS = [*SCHEDULES, *FURTHER]
INTRODUCTION = """\
# FLOPs to vanilla prompt tuning's score

Printed on {date} at commit {commit} by `python -m bench.leaderboard --seeds {number}`.

The embedded model under customs, its own recipe; every seed has a land of its own ({lands}), in which no rate
was chosen. "To vanilla's score" is the share of vanilla prompt tuning's FLOPs after which a run's validations on
the full model have vanilla's last score in the same land, and still have it at the next (mean and deviation over
the lands in which they ever do, and in how many of how many that is); "of the mean" is the same of the mean over
the lands, in which a run that never gets there counts too. Beside them are the score after half of vanilla's
FLOPs, and the last prompt's. Scoring neurons counts, validation does not.

Learning rates, the better of two, were chosen in land {chosen}, vanilla prompt tuning's over the three tasks
together, the others' on {compared} (`python -m bench.backbone --choose`); fast and what is averaged
(`optim.average={average}`) have those of the rows that they come from. The runs that chose four others are not kept:
they scored, at 0.1 and 0.3, 89.2 and 82.6 (half, then whole), 90.6 and 89.6 (short end), 82.0 and 78.4 (CR from
half, linear), 79.2 and 90.8 (pt, linear). fast was thought of when CR from half's runs in these lands had been seen
on BoolQ, averaging when all of them had; it was chosen in land {chosen}. What a run was made with stands in
`bench/results`: some with torch 2.13, some with 2.11 on another machine.
"""


def printed(tasks: Sequence[str], rows: Sequence[str], seeds: Sequence[int]) -> str:
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
    )
    parts = [introduction]
    if len(tasks) > 1:
        parts += ["## All tasks\n", _summary(tasks, rows, seeds)]
    for task in tasks:
        cells = [_cells(task, row, seeds) for row in rows if board.made(task, row, seeds)]
        columns = ("row", "rate", "to vanilla's score", "of the mean", "at half", "last score")
        parts += [f"## {task}\n", table(columns, cells)]
    return "\n".join(parts)


def _summary(tasks: Sequence[str], rows: Sequence[str], seeds: Sequence[int]) -> str:
    """A line for each row that was run on all tasks in all lands."""
    lines = []
    for row in rows:
        if any(len(board.made(task, row, seeds)) < len(seeds) for task in tasks):
            continue
        shares = [board.to_vanilla(task, row, seed) for task in tasks for seed in seeds]
        there = [100 * share for share in shares if share is not None]
        of_means = [board.mean_to_vanilla(task, row, seeds) for task in tasks]
        flops = [board.flops_share(task, row, seeds) for task in tasks]
        spans = [f"{min(values):.0f} to {max(values):.0f} %" for values in (there, [100 * share for share in flops])]
        means = ", ".join("never" if share is None else f"{share:.0%}" for share in of_means)
        lines.append([row, f"{len(there)} of {len(shares)}", f"{fmean(there):.0f} % ({spans[0]})", means, spans[1]])
    columns = ("row", "runs that have vanilla's score", "after, mean (least to most)", "of the mean, by task")
    return table((*columns, "all of its FLOPs"), lines)


def _cells(task: str, row: str, seeds: Sequence[int]) -> list[str]:
    there = board.made(task, row, seeds)
    halfway = [score for seed in there if (score := board.after_half(task, row, seed)) is not None]
    share = board.mean_to_vanilla(task, row, there)
    return [
        row,
        f"{board.rate_of(row):g}",
        board.reached(task, row, there),
        "never" if share is None else f"{share:.1%}",
        spread(halfway) if halfway else "–",
        spread([board.last(task, row, seed) for seed in there]),
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
        runs = {name(*kind, seed): board.overrides(*kind, seed) for seed in seeds for kind in kinds}
        RECORDS.make(runs, options.jobs)
    print(printed(options.tasks, options.rows, seeds), end="")


if __name__ == "__main__":
    main()
