"""How long data of MNLI's size take to be ready for training: the first time, and when their tokens are kept.

`python -m bench.tasks [--pairs 392702] [--folder DIR] [model=t5-large …]`; without a folder, in a temporary one.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fpt.config import compose
from fpt.runs.progress import Progress, Stopwatch, quiet_libraries
from fpt.tasks.opening import open_task

PAIRS = 392_702  # MNLI's training set
VALID = 9_815  # its matched validation set


def write(folder: Path, pairs: int) -> None:
    """MNLI's files with `pairs` generated training rows, by another process: its memory is not counted."""
    sizes = ["--train", str(pairs), "--val", str(VALID)]
    command = [sys.executable, "-m", "pretraining.world_files", "mnli", str(folder), *sizes]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def ready(words: Sequence[str]) -> tuple[float, float, int]:
    """Seconds to read and to tokenise a task's examples, and their tokens."""
    from fpt.backbones.backbone import open_backbone
    from fpt.data.encoding import tokenised

    config, progress = compose.load(words), Progress()
    backbone = open_backbone(config.model, with_weights=False)
    _ = backbone.tokenizer
    reading = Stopwatch()
    task = open_task(config)
    read, tokenising = reading.seconds, Stopwatch()
    with progress.running():
        train, _ = tokenised(task, backbone, config.task, progress.with_bar)
    return read, tokenising.seconds, len(train.sources.ids)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.tasks", description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--folder", type=Path, help="where the files are kept")
    options, words = parser.parse_known_args(arguments)
    quiet_libraries()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, options.pairs)
        table = Table(box=None, pad_edge=False)
        for column in ("reading", "tokenising", "ready after", "tokens", "peak memory"):
            table.add_column(column, justify="right")
        read, tokenised, tokens = ready(["task=mnli", f"task.data={folder}", *words])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        seconds = (f"{value:.1f} s" for value in (read, tokenised, read + tokenised))
        table.add_row(*seconds, f"{tokens / 1e6:.1f} M", f"{peak / 1e9:.2f} GB")
    console = Console(width=110)
    console.print(f"{options.pairs:,} generated pairs in MNLI's files")
    console.print(table)


if __name__ == "__main__":
    main()
