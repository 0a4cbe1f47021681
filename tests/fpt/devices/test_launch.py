"""Runs of several processes from the command line: started by one command, stopped with one message, gone on with."""

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from fpt.config.compose import load
from fpt.devices.launch import Ended, cause
from fpt.devices.processes import GOES_ON
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
    return {int(child.environ()["RANK"]): child for child in children if "worker" in child.cmdline()}


def of_two_machines(processes: int) -> list[list[str]]:
    """The words that each of two machines has, which meet on this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{free.getsockname()[1]}"
    words = [f"engine.processes={processes}", "engine.nodes=2", f"engine.rendezvous={meeting}"]
    return [[*words, f"engine.node_rank={rank}"] for rank in (0, 1)]


@pytest.mark.trains
def test_a_killed_rank_ends_all_with_one_line(model: Path, boolq: Path, tmp_path: Path, cli: Cli) -> None:
    folder = tmp_path / "run"
    run = started(model, boolq, folder, "engine.processes=2")
    wait_for_updates(run, folder, 12)
    ranks = workers(run)
    ranks[1].kill()
    start = time.monotonic()
    _, said = run.ended(60)
    assert time.monotonic() - start < 60
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
def test_a_rank_that_does_not_answer_ends_all_within_a_minute(
    model: Path, boolq: Path, tmp_path: Path, wakes: bool
) -> None:
    """It is the one that is named, also where it would go on when the other has given up, and is told to stop."""
    run = started(model, boolq, tmp_path / "run", "engine.processes=2", "engine.timeout=5")
    wait_for_updates(run, tmp_path / "run", 12)
    ranks = workers(run)
    ranks[1].suspend()
    if wakes:
        psutil.wait_procs([ranks[0]], timeout=30)
        ranks[1].resume()
    _, said = run.ended(60)
    assert run.status == 1
    waited = f"fpt: waited for rank 1, which did not answer for 5 seconds (engine.timeout); {GOES_ON}"
    assert re.findall(r"^fpt: .*", said, re.M) == [waited]


def report(rank: int, end: str, message: str = "", status: int = 1) -> dict[str, Any]:
    """What a process leaves that has ended early."""
    return {"rank": rank, "time": rank, "message": message, "status": status, "end": end, "starting": False}


STOPPED = "stopped by SIGTERM"  # as the launcher tells the others, when one has ended
LONG, SHORT = 700, 60  # seconds for which a run has written nothing; NCCL gives up after 600
WATCHED = [Ended(0, 100, "SIGABRT"), Ended(1, 120, "SIGKILL")]  # rank 1 was killed by the launcher in the end


@pytest.mark.parametrize(
    ("device", "quiet", "ended", "reports", "said"),
    [
        ("cuda", LONG, WATCHED, [], "waited for rank 1, which did not answer for 600 seconds (engine.timeout)"),
        ("cuda", SHORT, WATCHED, [], "rank 0 was killed by SIGABRT"),
        ("cpu", LONG, WATCHED, [], "rank 0 was killed by SIGABRT"),
        (
            "cuda",
            LONG,
            [Ended(0, 100, "SIGABRT"), Ended(1, 100, None)],
            [report(1, "stopped", STOPPED, 143)],
            "waited for rank 1, which did not answer for 600 seconds (engine.timeout)",
        ),
        (
            "cuda",
            LONG,
            [Ended(0, 100, "SIGABRT"), Ended(1, 101, "SIGABRT")],
            [],
            "rank 0 gave up waiting for another process after 600 seconds (engine.timeout)",
        ),
        ("cuda", LONG, WATCHED, [report(1, "failed", "rank 1 failed: out of memory")], "rank 1 failed: out of memory"),
        ("cuda", SHORT, [Ended(0, 100, "SIGABRT"), Ended(1, 100, "SIGKILL")], [], "rank 1 was killed by SIGKILL, as"),
        (
            "cpu",
            SHORT,
            [Ended(0, 100, None), Ended(1, 101, None)],
            [report(0, "waited"), report(1, "stopped", STOPPED, 143)],
            "waited for rank 1, which did not answer for 30 seconds (engine.timeout)",
        ),
        (
            "cpu",
            SHORT,
            [Ended(0, 100, None)],
            [report(0, "waited")],
            "rank 0 gave up waiting for another process after 30 seconds (engine.timeout)",
        ),
        (
            "cpu",
            SHORT,
            [Ended(1, 100, "SIGKILL"), Ended(0, 101, None)],
            [report(0, "stopped", STOPPED, 143)],
            "rank 1 was killed by SIGKILL, as",
        ),
        ("cpu", SHORT, [Ended(0, 100, None)], [report(0, "stopped", STOPPED, 143)], STOPPED),
    ],
)
def test_the_one_at_fault_is_named_and_not_who_waited_for_it(
    tmp_path: Path, device: str, quiet: int, ended: list[Ended], reports: list[dict[str, Any]], said: str
) -> None:
    """By what a launcher finds when it is over. NCCL ends a process that waits by SIGABRT, without a report."""
    folder = tmp_path / "run" / ".launch"
    folder.mkdir(parents=True)
    for one in reports:
        (folder / f"rank-{one['rank']}.json").write_text(json.dumps(one))
    for file in (folder / "config.yaml", tmp_path / "run" / "metrics.jsonl"):
        file.touch()
        os.utime(file, (time.time() - quiet,) * 2)
    config = load([f"run.dir={tmp_path / 'run'}", "engine.processes=2"])
    assert str(cause(folder, config, ended, torch.device(device))).startswith(said)


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
    assert re.findall(r"^fpt: .*", said, re.M) == [f"fpt: stopped by SIGTERM; {GOES_ON}"]
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
    assert lines == [f"fpt: rank 0: File too large; {GOES_ON}"]
    assert "Traceback" not in said
    done = len((folder / "metrics.jsonl").read_text().splitlines())
    assert 20 < done < 150
    assert cli("train", *quick_words(model, boolq, folder), *MORE, "train.updates=150", "resume=must").status == 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows if "loss" in row] == list(range(1, 151))


@pytest.mark.trains
@pytest.mark.slow
def test_two_machines_of_two_processes_train_the_prompt_of_one(
    model: Path, boolq: Path, tmp_path: Path, cli: Cli
) -> None:
    folder, alone = tmp_path / "run", tmp_path / "alone"
    runs = [started(model, boolq, folder, *words, "train.updates=10") for words in of_two_machines(2)]
    said = [run.ended(300) for run in runs]
    assert [run.status for run in runs] == [0, 0], said
    assert "accuracy" in said[0][0]  # the first machine speaks for both
    assert said[1][0] == ""
    assert cli("train", *quick_words(model, boolq, alone), *MORE, "train.updates=10").status == 0
    found, wanted = (load_file(path / "prompt.safetensors")["prompt"] for path in (folder, alone))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert {file.name for file in (folder / "logs").iterdir()} == {f"rank-{rank}.txt" for rank in (1, 2, 3)}


@pytest.mark.trains
@pytest.mark.slow
def test_a_rank_killed_on_one_machine_ends_both(model: Path, boolq: Path, tmp_path: Path) -> None:
    """Where it was, its end is named; the other machine says that it lost it."""
    folder = tmp_path / "run"
    runs = [started(model, boolq, folder, *words) for words in of_two_machines(1)]
    wait_for_updates(runs[0], folder, 12)
    workers(runs[1])[1].kill()
    start = time.monotonic()
    said = [run.ended(60)[1] for run in runs]
    assert time.monotonic() - start < 60
    assert [run.status for run in runs] == [1, 1]
    lines = [re.findall(r"^fpt: .*", text, re.M) for text in said]
    assert [len(line) for line in lines] == [1, 1]
    assert lines[0][0].startswith("fpt: rank 0 lost the others: ")
    assert lines[1][0].startswith("fpt: rank 1 was killed by SIGKILL")
    assert "Traceback" not in "".join(said)
    assert not list(folder.rglob("*.part"))


@pytest.mark.trains
@pytest.mark.slow
def test_deepspeeds_launcher_starts_what_a_hostfile_names(model: Path, boolq: Path, tmp_path: Path) -> None:
    """This machine alone, which takes no ssh."""
    (tmp_path / "hosts").write_text("# here\nlocalhost slots=2\n")
    folder = tmp_path / "run"
    run = started(model, boolq, folder, "train.updates=4", f"engine.hostfile={tmp_path / 'hosts'}")
    out, said = run.ended(240)
    assert run.status == 0, said
    assert "prompt and records in" in out
    assert [file.name for file in (folder / "logs").iterdir()] == ["rank-1.txt"]


@pytest.mark.trains
@pytest.mark.slow
def test_bad_input_in_a_run_of_several_is_one_line(model: Path, boolq: Path, tmp_path: Path) -> None:
    """Found by the processes, said once."""
    empty = tmp_path / "empty"
    empty.mkdir()
    run = started(model, empty, tmp_path / "run", "engine.processes=2")
    out, said = run.ended(240)
    assert run.status == 2
    assert out == ""
    lines = [line for line in said.splitlines() if not line.startswith("engine=torch:")]
    assert lines == [f"fpt: task.data={empty}: has no train.jsonl; it has nothing"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("engine.processes=0", "engine.processes=0: must be at least 1"),
        ("engine.processes=5", "engine.processes=5: with 1 machine these are more processes than train.batch_size=4"),
        ("engine.offload=nvme", "engine.offload=nvme: allowed are none, cpu. Weights on a disk"),
        ("engine=deepspeed engine.offload=nvme", "engine.offload=cpu keeps them in the machine's memory"),
        ("engine.nvme_dir=/mnt", "engine.nvme_dir=/mnt: unknown key"),
        ("engine.hostfile=/no/such", "engine.hostfile=/no/such: no such file"),
        ("engine.nodes=2", "engine.rendezvous"),
        ("engine.zero_stage=4", "must be at most 3"),
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
