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

from bench import rows as board
from bench.rows import CHOSEN_ON, CLIMBING, COMPARED, FURTHER, LANDS, RECORDS, SCHEDULES, VANILLA, name
from bench.runs import spread, table
from fpt.runs.progress import quiet_libraries

ROWS = [*SCHEDULES, *FURTHER]
INTRODUCTION = """\
# FLOPs to vanilla prompt tuning's score

Printed on {date} at commit {commit} by `python -m bench.leaderboard --seeds {number}`.

The embedded model under customs, its own recipe; every seed has a land of its own ({lands}), in which no rate
was chosen. A cell has the share of vanilla prompt tuning's FLOPs after which a run's validations on the full
model have vanilla's last score in the same land, and still have it at the next (mean and deviation over the
lands in which they ever do, and in how many of how many that is), the score after half of its FLOPs, and the
last prompt's. Scoring neurons counts, validation does not. Learning rates, the better of two, were chosen in
land {chosen}, vanilla prompt tuning's over the three tasks together, the others' on {compared} (`python -m
bench.backbone --choose`); fast has that of CR from half. The runs that chose the rates of the four rows below
fast are not kept: they scored, at 0.1 and 0.3, 89.2 and 82.6 (half, then whole), 90.6 and 89.6 (short end),
82.0 and 78.4 (CR from half, linear), 79.2 and 90.8 (pt, linear). fast itself was thought of when CR from half's
runs in these lands had been seen on BoolQ; there it is no independent test. What a run was made with stands in
`bench/results`: some with torch 2.13, some with 2.11 on another machine.
"""


def printed(tasks: Sequence[str], rows: Sequence[str], seeds: Sequence[int]) -> str:
    """The page, of the runs that are there."""
    body = []
    for row in rows:
        cells = [part for task in tasks for part in _cells(task, row, seeds)]
        body.append([row, f"{board.rate_of(row):g}", *cells])
    columns = [column for task in tasks for column in (f"{task}: FLOPs", "at half", "score")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    introduction = INTRODUCTION.format(
        number=len(seeds),
        date=datetime.now(UTC).date(),
        commit=commit.strip(),
        lands=", ".join(str(LANDS[seed]) for seed in seeds),
        chosen=CHOSEN_ON,
        compared=COMPARED,
    )
    return f"{introduction}\n{table(('row', 'rate', *columns), body)}"


def _cells(task: str, row: str, seeds: Sequence[int]) -> tuple[str, str, str]:
    there = board.made(task, row, seeds)
    if not there:
        return "–", "–", "–"
    scores = spread([board.last(task, row, seed) for seed in there])
    halfway = [score for seed in there if (score := board.after_half(task, row, seed)) is not None]
    return board.reached(task, row, there), spread(halfway) if halfway else "–", scores


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
