"""A program that imports fpt.api keeps its own warnings and settings."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, warnings
settings = dict(os.environ)
from fpt import api
assert not {"TOKENIZERS_PARALLELISM", "TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"} & {*os.environ} - {*settings}
warnings.warn("its own")
folder, cache = sys.argv[1:]
few = "train.updates=2", "train.eval_every=2", "task.train_examples=64", "task.valid_examples=8", "schedule=pt"
config = api.configure("task=boolq", *few, "engine=deepspeed", f"run.dir={folder}", f"cache_dir={cache}")
api.train(config)
api.score(folder)
with api.predictor(folder):
    warnings.warn("its own, while a predictor is open")
"""


@pytest.mark.trains
def test_a_program_sees_its_own_warnings_and_not_the_libraries(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.partition(": ")[2] for line in done.stderr.splitlines() if "Warning" in line] == [
        "UserWarning: its own",
        "UserWarning: its own, while a predictor is open",
    ]
