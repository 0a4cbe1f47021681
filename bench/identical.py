"""Do two versions of fpt train the same prompts, to the last bit? `python -m bench.identical BEFORE [AFTER]`

BEFORE and AFTER (by default this checkout) are checkouts, run with this Python. Each trains the same runs: every
schedule, a late prompt through stages, a task with free answers, two processes, and a run that is killed at random
moments until it has come to its end. What they left is compared: `prompt.safetensors` and `predictions.jsonl` byte by
byte, `result.json` without versions and what was measured.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FEW = (
    "train.updates=20",
    "train.eval_every=10",
    "train.save_every=2",
    "task.train_examples=400",
    "task.valid_examples=100",
    "schedule.importance_examples=100",
)
RUNS = {
    "pt": ("schedule=pt",),
    "ld": ("schedule=ld",),
    "fr": ("schedule=fr",),
    "cr": ("schedule=cr", "train.score_untrained=true"),
    "late through cr": ("prompt=late", "schedule=cr"),
    "late with kept states": ("prompt=late", "schedule=cr", "prompt.cache=memory"),
    "squad_v2 through cr": ("task=squad_v2", "schedule=cr"),
    "two processes": ("schedule=cr", "engine.processes=2"),
    "two processes with ZeRO-3": ("schedule=cr", "engine.processes=2", "engine=deepspeed"),
    "killed": ("schedule=cr",),
}
FILES = ("prompt.safetensors", "predictions.jsonl", "result.json")
MEASURED = ("seconds", "versions", "peak_memory", "tokens_per_second", "share_of_peak")  # keys of result.json


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both versions and print a line for every file; 0: all are the same."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="?", default=Path(__file__).parent.parent)
    parser.add_argument("--only", help="names of runs, with commas between them")
    given = parser.parse_args(arguments)
    names = given.only.split(",") if given.only else list(RUNS)
    with tempfile.TemporaryDirectory() as folder:
        before, after = (
            {name: digests(checkout.resolve(), name, Path(folder) / which) for name in names}
            for which, checkout in (("before", given.before), ("after", given.after))
        )
    differ = 0
    for name in names:
        for file in FILES:
            same = before[name][file] == after[name][file]
            differ += not same
            print(f"{'same' if same else 'DIFFERENT':10}{name:24}{file:22}{after[name][file][:16]}")
    return min(differ, 1)


def digests(checkout: Path, name: str, folder: Path) -> dict[str, str]:
    """Train one run with a checkout; the SHA-256 of each file it left."""
    run = folder / name.replace(" ", "-")
    command = [sys.executable, "-m", "fpt", "train", *FEW, *RUNS[name], f"run.dir={run}"]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    print(f"{checkout}: {name}", file=sys.stderr)
    chance = random.Random(0)
    while name == "killed":
        try:
            subprocess.run(command, env=environment, cwd=checkout, capture_output=True, timeout=chance.uniform(6, 14))
            break
        except subprocess.TimeoutExpired:  # which kills it
            pass
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{checkout}: {name} failed\n{done.stderr}")
    return {file: hashlib.sha256(_compared(run / file)).hexdigest() for file in FILES}


def _compared(file: Path) -> bytes:
    if file.name != "result.json":
        return file.read_bytes()
    return json.dumps(_without_measured(json.loads(file.read_text())), sort_keys=True).encode()


def _without_measured(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if not key.startswith(MEASURED)}
        return {key: _without_measured(inner) for key, inner in kept.items()}
    return [_without_measured(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
