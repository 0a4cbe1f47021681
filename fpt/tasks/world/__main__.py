"""`python -m fpt.tasks.world TASK FOLDER` writes a generated task in its original file format."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fpt.tasks.world.records import SIZES, TASKS, write


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fpt.tasks.world", description="Write a generated task's files.")
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--train", type=int, default=SIZES["train"], help="training rows (default %(default)s)")
    parser.add_argument("--val", type=int, default=SIZES["validation"], help="validation rows (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if min(options.train, options.val) < 0:
        parser.error("a number of rows cannot be negative")
    write(options.task, options.folder, train=options.train, validation=options.val, seed=options.seed)
    print(f"{options.task}: {options.train} training and {options.val} validation rows in {options.folder}")


if __name__ == "__main__":
    main()
