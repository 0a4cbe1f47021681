"""Prompts of the offline tasks, and each as another's start: `python -m bench.gallery` prints two tables.

A prompt for each task of plain reading is trained on the embedded model and kept with its card in examples/gallery/.
Then each task is trained again, for a third of the updates, from every other task's prompt (`prompt.init=file`, as SPoT
does it, Vu et al. 2022) and from a start of its own. Results are kept in bench/results/gallery.jsonl, so that the same
command goes on where it was stopped; `--done` prints them and runs nothing.
"""

import argparse
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from bench.records import Records
from bench.rows import plain_overrides
from bench.runs import table
from fpt.__main__ import main as fpt
from fpt.runs.progress import quiet_libraries
from fpt.runs.run import PROMPT
from fpt.units import amount
from pretraining.world import records as world

RECORDS, PROMPTS = Records("gallery"), Path("examples/gallery")
UPDATES, SHARE = 120, 3  # of a prompt; a transfer has one part in so many
OWN = "own start"

INTRODUCTION = """\
# Prompts of plain reading

Vanilla prompt tuning with {updates} updates of 32, one seed; "untrained" is the score of the prompt's start.
"""
OF_TRANSFER = """\
## From each to each

The score on a column's task after {updates} updates from a row's prompt, and before the first of them in brackets.
"""


def words(task: str, updates: int) -> list[str]:
    """What `fpt train` is told for a prompt of the gallery."""
    return [word for word in plain_overrides(task, 0) if not _is_count(word)] + _counts(updates)


def transfer_words(source: str | None, target: str, updates: int) -> list[str]:
    """And for a run that starts from another task's prompt, or from a start of its own."""
    start = [f"prompt.file={PROMPTS / source / PROMPT}", "prompt.init=file"] if source else []
    return [*words(target, max(1, updates // SHARE)), *start]


def _is_count(word: str) -> bool:
    return word.startswith(("train.updates=", "train.eval_every="))


def _counts(updates: int) -> list[str]:
    return [f"train.updates={updates}", f"train.eval_every={updates}"]


def transfer(source: str | None, target: str) -> str:
    """What such a run is called."""
    return f"{source or 'own'}-to-{target}"


def keep(folder: Path) -> Mapping[str, Any]:
    """Put a run's prompt and its card into the gallery, in the place of what was there; returns the prompt's size."""
    aside = folder / "export" / "gallery"
    shutil.rmtree(aside, ignore_errors=True)
    with redirect_stdout(StringIO()):
        if fpt(["export", f"run={folder}", "--to", "fpt", f"output={aside}"]):
            raise SystemExit(f"fpt export run={folder} --to fpt: failed")
    place = PROMPTS / folder.name.rpartition("-")[0]
    place.mkdir(parents=True, exist_ok=True)
    for file in aside.iterdir():
        shutil.copy(file, place / file.name)
    return {"bytes": (place / PROMPT).stat().st_size}


def make(tasks: Sequence[str], updates: int, jobs: int) -> None:
    """Do what is missing: the prompts first, then what starts from them."""
    missing = [task for task in tasks if not (PROMPTS / task / PROMPT).exists()]
    for task in missing:  # a record without its prompt is of no use here
        RECORDS.forget(task)
    RECORDS.make({task: words(task, updates) for task in tasks}, jobs, keep)
    pairs = [(source, target) for target in tasks for source in (None, *tasks) if source != target]
    RECORDS.make({transfer(*pair): transfer_words(*pair, updates) for pair in pairs}, jobs)


def prompts_table(tasks: Sequence[str]) -> str:
    """A row for each prompt."""
    rows = []
    for task in tasks:
        if task in RECORDS:
            record = RECORDS[task]
            metric = record["metric"]
            size = f"{record['bytes']:,} bytes"
            scores = (metric["value"], record["majority"], record["untrained"])
            shown = ["–" if value is None else f"{value:.1f}" for value in scores]
            rows.append([task, metric["name"], *shown, amount(record["flops"]), size])
    return table(("prompt", "metric", "score", "baseline", "untrained", "FLOPs", "size"), rows)


def transfer_table(tasks: Sequence[str]) -> str:
    """Scores by where a run started, in rows, and its task, in columns."""
    rows = []
    for source in (None, *tasks):
        names = [transfer(source, target) for target in tasks]
        rows.append([source or OWN, *("–" if name not in RECORDS else _gained(name) for name in names)])
    return table(("start", *tasks), rows)


def _gained(name: str) -> str:
    record = RECORDS[name]
    return f"{record['metric']['last']:.1f} ({record['untrained']:.1f})"


def printed(tasks: Sequence[str], updates: int) -> str:
    """Both tables, of the runs that are kept."""
    parts = [
        INTRODUCTION.format(updates=updates),
        prompts_table(tasks),
        OF_TRANSFER.format(updates=max(1, updates // SHARE)),
        transfer_table(tasks),
    ]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.gallery", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(world.TASKS), choices=list(world.TASKS))
    parser.add_argument("--updates", type=int, default=UPDATES, help="of a prompt (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (default %(default)s)")
    parser.add_argument("--done", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    quiet_libraries()
    if not options.done:
        make(options.tasks, options.updates, options.jobs)
    print(printed(options.tasks, options.updates), end="")


if __name__ == "__main__":
    main()
