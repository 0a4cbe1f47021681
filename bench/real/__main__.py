"""Makes the runs that are missing, the most telling first, one after the other, and prints tables of all.

`python -m bench.real --models DIR --data DIR`: a folder with converted models (`python -m bench.real.convert`), and one
with the tasks' files. Rows are kept in bench/results/real.jsonl, so that the same command goes on where it was stopped.
"""

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.real import runs, tables
from bench.real.arms import ARMS, MODELS, PARTS, TASKS, TUNED_ON, UPDATES, Kind, in_turn, rates_of
from fpt.runs.progress import quiet_libraries


def chosen(options: argparse.Namespace, updates: Mapping[str, int]) -> list[Kind]:
    """The runs that the options ask for, of so many updates for each task."""
    if options.tune:
        return [
            Kind(model, task, arm, TUNED_ON, updates[task], rate)
            for model in options.model
            for task in options.tasks
            for arm in options.only
            for rate in rates_of(model, arm)
        ]
    arms, seeds = list(PARTS) if options.parts else options.only, range(options.seeds)
    more = arms, seeds, updates, options.shots
    return [kind for model in options.model for kind in in_turn(model, options.tasks, *more)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the runs that are missing, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.real", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of the models")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with a folder of files for each task")
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--only", nargs="+", default=list(ARMS), choices=list(ARMS), help="arms (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default %(default)s)")
    parser.add_argument("--updates", type=int, help="of a run (default: 300 on TREC, else 150)")
    parser.add_argument("--shots", type=int, help="train on so many examples of each label (default: all)")
    parser.add_argument("--dtype", default="auto", help="the models' precision; auto: fpt's choice, PEFT in float32")
    parser.add_argument("--threads", type=int, default=1, help="of a run (default %(default)s)")
    parser.add_argument("--tune", action="store_true", help="try each arm's rates, on a seed of their own")
    parser.add_argument("--parts", action="store_true", help="prompts trained on parts of a model: the paper's Table 1")
    parser.add_argument(
        "--busy", action="store_true", help="the machine does other work too: leave seconds out of tables"
    )
    parser.add_argument("--json", action="store_true", help="print what the tables are made of")
    parser.add_argument("--done", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    updates = dict.fromkeys(TASKS, options.updates) if options.updates else UPDATES
    quiet_libraries()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the run at hand is stopped too
    for kind in chosen(options, updates):
        if not options.done and not runs.is_done(kind):
            print(kind.name, file=sys.stderr, flush=True)
            runs.make(kind, options.models, options.data, options.dtype, options.threads, busy=options.busy)
    rows = {name: row for name, row in runs.kept(options.shots).items() if row["task"] in options.tasks}
    if options.json:
        by_model = {model: tables.of_model(rows, model, updates) for model in options.model}
        found = {model: {arm: tables.summary(arm, of) for arm in of} for model, of in by_model.items()}
        print(json.dumps(found, indent=2))
    else:
        shown = tables.of_parts if options.parts else tables.printed
        print("\n".join(shown(rows, model, updates) for model in options.model), end="")


if __name__ == "__main__":
    main()
