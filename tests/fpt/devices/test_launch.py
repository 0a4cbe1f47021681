"""Runs of several processes from the command line: started by one command, stopped with one message, gone on with."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from fpt.devices.distributed import cause
from fpt.devices.ending import GOES_ON
from fpt.training.checkpoint import load_state
from tests.conftest import Outcome, quick_words, save_checkpoint
from tests.processes import Command

Cli = Callable[..., Outcome]
MORE = ["optim.lr=0.01", "prompt.init=vocab", "schedule=pt", "train.eval_every=100", "train.save_every=10"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("launch") / "model", "Flan-T5")


def started(model: Path, boolq: Path, folder: Path, *more: str, **options: Any) -> Command:
    """`fpt train` in a process of its own, of a hundred thousand updates unless told otherwise."""
    place = folder.parent / f"said-{time.monotonic_ns()}"
    return Command(
        ["train", *quick_words(model, boolq, folder), *MORE, "train.updates=100000", *more], place, **options
    )


def wait_for_updates(run: Command, folder: Path, number: int) -> None:
    deadline = time.monotonic() + 240
    while run.status is None and time.monotonic() < deadline:
        if (folder / "metrics.jsonl").is_file() and len((folder / "metrics.jsonl").read_text().splitlines()) >= number:
            return
        time.sleep(0.1)
    raise AssertionError(f"no update, with status {run.status}: {run.said()}")


def workers(run: Command) -> dict[int, psutil.Process]:
    """The run's processes by rank."""
    children = psutil.Process(run.pid).children(recursive=True)
    return {int(child.environ()["RANK"]): child for child in children if "RANK" in child.environ()}


@pytest.mark.trains
def test_a_killed_rank_ends_all_with_one_line(model: Path, boolq: Path, tmp_path: Path, cli: Cli) -> None:
    folder = tmp_path / "run"
    run = started(model, boolq, folder, "engine.processes=2")
    wait_for_updates(run, folder, 12)
    ranks = workers(run)
    ranks[1].kill()
    _, said = run.ended(60)
    assert run.status == 1
    lines = [line for line in said.splitlines() if line.startswith("fpt: ")]
    assert lines == [f"fpt: rank 1 was killed by SIGKILL, as a machine does that is out of memory; {GOES_ON}"]
    assert "Traceback" not in said
    assert not any(process.is_running() for process in ranks.values())
    assert not list(folder.rglob("*.part"))
    outcome = cli("train", *quick_words(model, boolq, folder), *MORE, "train.updates=100000", "resume=must", "seed=1")
    assert outcome.status == 2  # the folder is whole, and nobody has it any more
    assert "seed: 0 then, 1 now" in outcome.err


@pytest.mark.trains
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the system tells of a parent's death on Linux alone")
def test_a_killed_launcher_takes_the_others_along_and_they_save(model: Path, boolq: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = started(model, boolq, folder, "engine.processes=2")
    wait_for_updates(run, folder, 12)
    ranks = workers(run)
    run.process.kill()
    run.process.join(60)
    gone, alive = psutil.wait_procs(ranks.values(), timeout=60)
    assert len(gone) == 2
    assert not alive
    (state,) = (folder / "stages").glob("*/state.safetensors")
    done = load_state(state.read_bytes())[0].update
    assert done == len((folder / "metrics.jsonl").read_text().splitlines())


@pytest.mark.trains
@pytest.mark.slow
@pytest.mark.parametrize("wakes", [False, True])
def test_a_rank_that_does_not_answer_ends_all(model: Path, boolq: Path, tmp_path: Path, wakes: bool) -> None:
    """Also where it would go on when the other has given up, and is told to stop."""
    run = started(model, boolq, tmp_path / "run", "engine.processes=2", "engine.timeout=5")
    wait_for_updates(run, tmp_path / "run", 12)
    ranks = workers(run)
    ranks[1].suspend()
    if wakes:
        psutil.wait_procs([ranks[0]], timeout=30)
        ranks[1].resume()
    _, said = run.ended(90)
    assert run.status == 1
    (line,) = re.findall(r"^fpt: .*", said, re.M)
    assert line.startswith("fpt: rank 0: gave up waiting for another process (engine.timeout): ")
    assert line.endswith(GOES_ON)


@pytest.mark.trains
def test_told_to_stop_a_run_saves_and_goes_on_with_another_number_of_processes(
    model: Path, boolq: Path, tmp_path: Path, cli: Cli
) -> None:
    """The same prompt as that of a run in one process that was never stopped."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    number = 80
    run = started(model, boolq, folder, "engine.processes=2", f"train.updates={number}")
    wait_for_updates(run, folder, 3)
    os.kill(run.pid, signal.SIGTERM)
    _, said = run.ended(60)
    assert run.status == 128 + signal.SIGTERM, said
    assert said.splitlines()[2:] == [f"fpt: stopped by SIGTERM; {GOES_ON}"], said  # behind engine and learning
    states = list((folder / "stages").glob("*/state.safetensors"))
    assert len(states) == 1
    done = len((folder / "metrics.jsonl").read_text().splitlines())
    assert 3 <= done < number
    words = [*MORE, f"train.updates={number}"]
    assert cli("train", *quick_words(model, boolq, folder), *words, "resume=must").status == 0
    updates = [json.loads(line)["update"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert updates[: done + 1] == list(range(1, done + 2))  # nothing was lost, nothing done twice
    assert cli("train", *quick_words(model, boolq, whole), *words).status == 0
    found, wanted = (load_file(path / "prompt.safetensors")["prompt"] for path in (folder, whole))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)


@pytest.mark.trains
@pytest.mark.slow
def test_a_full_disk_ends_all_with_one_line_and_the_run_goes_on(
    model: Path, boolq: Path, tmp_path: Path, cli: Cli
) -> None:
    """No file may grow beyond 12 kB, as if there were no more room."""
    folder = tmp_path / "run"
    words = ["train.updates=150", "engine.processes=2"]
    run = started(model, boolq, folder, *words, longest_file=12_000)
    _, said = run.ended(120)
    assert run.status == 1, said
    lines = [line for line in said.splitlines() if line.startswith("fpt: ")]
    (line,) = lines
    assert line.startswith(f"fpt: rank 0: {folder}/")
    assert line.endswith(f": File too large; {GOES_ON}")
    assert "Traceback" not in said
    done = len((folder / "metrics.jsonl").read_text().splitlines())
    assert 20 < done < 150
    assert cli("train", *quick_words(model, boolq, folder), *MORE, "train.updates=150", "resume=must").status == 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows if "loss" in row] == list(range(1, 151))


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc-per-node=2", "-m", "fpt"],
    "deepspeed": [
        "deepspeed.launcher.runner",
        "--quiet",
        "--hostfile={hosts}",
        "--master_addr=127.0.0.1",
        "--no_ssh_check",
        "--module",
        "fpt",
    ],
}


@pytest.mark.trains
@pytest.mark.slow  # tests/stages/test_engines.py joins processes that find what torchrun tells its own
@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_another_launchers_processes_train_one_run(
    model: Path, boolq: Path, tmp_path: Path, launcher: str, cli: Cli
) -> None:
    """DeepSpeed's adds an argument --local_rank; its hostfile names this machine alone, which takes no ssh."""
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    folder, alone = tmp_path / "run", tmp_path / "alone"
    start = [word.format(hosts=tmp_path / "hosts") for word in LAUNCHERS[launcher]]
    words = [*MORE, "train.updates=4"]
    command = [sys.executable, "-m", *start, "train", *quick_words(model, boolq, folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("prompt and records in") == 1
    assert json.loads((folder / "plan.json").read_text())["processes"] == 2
    assert cli("train", *quick_words(model, boolq, alone), *words).status == 0
    found, wanted = (load_file(path / "prompt.safetensors")["prompt"] for path in (folder, alone))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.trains
@pytest.mark.parametrize("starts", ["engine.processes=2", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_a_users_error_that_the_processes_find_is_said_once_by_rank(
    model: Path, boolq: Path, tmp_path: Path, starts: str
) -> None:
    """By our own launcher in the only line; torchrun has it as the root cause."""
    empty = tmp_path / "empty"
    empty.mkdir()
    words = ["train", *quick_words(model, empty, tmp_path / "run")]
    own = ["fpt", *words, starts]
    command = [sys.executable, "-m", *([*LAUNCHERS["torchrun"], *words] if starts == "torchrun" else own)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = f"rank 0: task.data={empty}: has no train.jsonl; it has nothing"
    assert done.stdout == ""
    assert done.stderr.count(line) == 1
    if starts != "torchrun":
        assert done.returncode == 2
        assert done.stderr == f"fpt: {line}\n"


@pytest.mark.parametrize(
    ("status", "recorded", "said"),
    [
        (2, "rank 1: seed=x: is no number", "rank 1: seed=x: is no number"),
        (3, None, "rank 1 ended with status 3"),
        (-9, None, "rank 1 was killed by SIGKILL, as a machine does that is out of memory"),
        (-6, None, "rank 1 was killed by SIGABRT, as NCCL does when another process does not answer"),
        (-11, None, "rank 1 was killed by SIGSEGV"),
    ],
)
def test_the_cause_is_what_a_process_recorded_or_how_it_ended(
    tmp_path: Path, status: int, recorded: str | None, said: str
) -> None:
    file = tmp_path / "error.json"
    if recorded:
        file.write_text(json.dumps({"message": recorded, "timestamp": 1}))
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=status, error_file=str(file))
    error = cause(1, failure)
    assert str(error).startswith(said)
    assert error.status == max(1, status)


def test_a_launchers_own_argument_is_left_out(cli: Cli) -> None:
    for word in ("--local_rank=1", "--local-rank=1"):
        assert cli(word, "--version").out == cli("--version").out
        assert "unknown key 'train.updats'" in cli("train", word, "train.updats=3").err


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("engine.processes=0", "engine.processes=0: must be at least 1"),
        ("engine.processes=5", "engine.processes=5: must be at most train.batch_size=4, so that each has an example"),
        ("engine.offload=nvme", "engine.offload=nvme: allowed are none, cpu."),
        ("engine.nvme_dir=/mnt", "engine.nvme_dir=/mnt: unknown key"),
        ("engine.hostfile=hosts", "unknown key 'engine.hostfile'"),
        ("engine.zero_stage=2", "unknown key 'engine.zero_stage'. Did you mean 'engine'?"),
        ("engine=torch engine.offload=cpu", "engine.offload=cpu: is for engine=deepspeed"),
        ("engine.device=cuda:0 engine.processes=2", "engine.device=cuda:0: is one device"),
        ("engine.device_memory=much", "as in 24GiB"),
        ("engine.name=fsdp", "allowed are auto, torch, deepspeed"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(quick: list[str], cli: Cli, word: str, said: str) -> None:
    outcome = cli("train", *quick, *word.split())
    assert outcome.status == 2
    assert said in outcome.err
    assert len(outcome.err.splitlines()) == 1
