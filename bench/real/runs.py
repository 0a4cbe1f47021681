"""Does one run as a command of its own, notes when each score is there, and keeps a line of JSON about it."""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from bench.real.arms import Kind
from bench.records import RESULTS, read_rows
from bench.runs import claimed, read

FILE, FOLDER = RESULTS / "real.jsonl", Path("runs") / "real"
PAUSE = 0.2  # seconds between two looks at a run's metrics
Row = dict[str, Any]


def kept(shots: int | None = None) -> dict[str, Row]:
    """The rows of runs on so many examples of each label, by the run's name; of several with one name, the last."""
    return {row["name"]: row for row in read_rows(FILE) if row.get("shots") == shots}


def is_done(kind: Kind) -> bool:
    """Whether there is a row of that name that was made with the same words."""
    row = kept(kind.shots).get(kind.name)
    return row is not None and row["words"] == kind.words


def make(kind: Kind, models: Path, data: Path, dtype: str, threads: int, *, busy: bool) -> None:
    """Do a run from its beginning, unless another process is at it; `busy` is noted with it."""
    folder = FOLDER / kind.name
    with claimed(folder) as is_ours:
        if is_ours and not is_done(kind):
            shutil.rmtree(folder, ignore_errors=True)
            timed = _watched(kind.command(models, data, dtype, folder), folder, threads)
            FILE.parent.mkdir(exist_ok=True)
            with FILE.open("a") as stream:
                stream.write(json.dumps(_row(kind, folder / "run", timed, threads) | {"busy": busy}) + "\n")


def _watched(command: list[str], folder: Path, threads: int) -> list[tuple[float, float]]:
    """CPU and wall seconds from the command to each of its validations, and to its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(Path.cwd())}
    folder.mkdir(parents=True)
    began, found, spent = time.perf_counter(), list[tuple[float, float]](), 0.0
    with (folder / "output.txt").open("wb") as output:
        process = psutil.Popen([sys.executable, "-m", *command], env=environment, stdout=output, stderr=output)
        try:
            while process.poll() is None:
                with suppress(psutil.Error):  # it has just ended
                    spent = sum(process.cpu_times()[:2])
                found += [(spent, time.perf_counter() - began)] * (len(_validations(folder / "run")) - len(found))
                time.sleep(PAUSE)
        finally:
            if process.is_running():  # this one is told to stop
                process.terminate()
    if process.wait():
        raise SystemExit(f"{' '.join(command)}: failed\n{(folder / 'output.txt').read_text()[-2000:]}")
    end = spent, time.perf_counter() - began
    return [*found, *[end] * (len(_validations(folder / "run")) - len(found)), end]


def _validations(folder: Path) -> list[Row]:
    """The lines of metrics.jsonl that have a score; one that is still being written is left out."""
    file = folder / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n") and '"split"' in line]


def _row(kind: Kind, folder: Path, timed: list[tuple[float, float]], threads: int) -> Row:
    """The line that is kept of a finished run: how it was made, its validations, and what they took."""
    result, plan = read(folder), folder / "plan.json"
    metric = result["metric"]
    looks = [
        [line["update"], line["stage"], line["flops"], line[metric["name"]], round(cpu, 1), round(wall, 1)]
        for line, (cpu, wall) in zip(_validations(folder), timed[:-1], strict=True)
    ]
    learning = json.loads(plan.read_text())["learning"] if plan.exists() else " ".join(kind.words)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "name": kind.name,
        **kind._asdict(),
        "words": kind.words,
        "metric": metric,
        "majority": result["majority"],
        "dtype": result["dtype"],
        "flops": result["flops"],
        "stages": len(result["stages"]),
        "looks": looks,
        "seconds": [round(each, 1) for each in timed[-1]],
        "threads": threads,
        "learning": learning,
        "processor": processor(),
        "versions": result["versions"],
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def processor() -> str:
    """The name of this machine's processor."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
