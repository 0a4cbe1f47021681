"""What benches made of runs share: doing what is missing, reading what is there, tables in Markdown."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fpt.config import compose
from pretraining.lands import write_missing


def run_missing(runs: Mapping[Path, Sequence[str]], jobs: int, then: Callable[[Path], None] = lambda _: None) -> None:
    """Do what has no result yet, `jobs` runs at a time and in order; `runs` has `fpt train`'s words by run folder.

    Another process may work on the same runs: each is done once. `then` is called with each that is done by the time
    this one comes to it.
    """
    from rich.console import Console
    from rich.progress import track

    for folder in runs:
        if is_done(folder):
            then(folder)
    missing = {folder: words for folder, words in runs.items() if not is_done(folder)}
    write_missing({compose.load(words).task.land or 0 for words in missing.values()})
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train, folder, words) for folder, words in missing.items()]
        for folder, future in track(
            zip(missing, futures, strict=True), "runs", total=len(missing), console=Console(stderr=True)
        ):
            if future.result():
                raise SystemExit(f"fpt train run.dir={folder} {' '.join(missing[folder])}: failed")
            if is_done(folder):  # else another process is still at it
                then(folder)


def train(folder: Path, words: Sequence[str]) -> int:
    """One run in this process, which computes on one core, unless it is done or another process is at it."""
    import torch

    from fpt.__main__ import main as fpt

    torch.set_num_threads(1)
    with claimed(folder) as is_ours:
        if not is_ours or is_done(folder):
            return 0
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            return fpt(["train", f"run.dir={folder}", *words])


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether the run is this process's to do; a claim goes with its process, so none is left behind."""
    claims = folder.parent / ".claims"
    claims.mkdir(parents=True, exist_ok=True)
    with (claims / folder.name).open("w") as claim:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def is_done(folder: Path) -> bool:
    """Whether the run has come to its end."""
    return (folder / "result.json").exists()


def read(folder: Path) -> dict[str, Any]:
    """A finished run's result."""
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def score(folder: Path) -> float:
    """The main metric of a finished run."""
    value: float = read(folder)["metric"]["value"]
    return value


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and standard deviation, as over seeds."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{mean(values):{form}} ± {stdev(values):.1f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
