"""Tasks of a Slurm step share a run; one task, a batch script and an interactive shell start as anywhere."""

import json
import os
import random
import socket
from functools import partial
from pathlib import Path

import pytest

from fpt.__main__ import main
from fpt.config.schema import EngineConfig
from fpt.devices import slurm
from fpt.devices.processes import is_worker
from fpt.errors import UserError
from tests.conftest import quick_words
from tests.processes import in_processes

JOB = {
    "SLURM_JOB_ID": "123456",
    "SLURM_JOB_NODELIST": "node[01-04,07]",
    "SLURM_NTASKS": "18",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
STEP = JOB | {
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NODELIST": "node[03-04,07]",
    "SLURM_STEP_NUM_TASKS": "10",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2),2",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
}


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node[01-04,07]", "node01"),
        ("node[07,01-04],other", "node07"),
        ("gpu-a", "gpu-a"),
        ("gpu-a,gpu-b[1-2]", "gpu-a"),
        ("rack[2-3]node[10,12]", "rack2node10"),
        ("node[3]-ib,x", "node3-ib"),
        ("n1.cluster.example", "n1.cluster.example"),
    ],
)
def test_the_first_host_of_a_list(hosts: str, first: str) -> None:
    assert slurm.first_host(hosts) == first


def test_a_task_is_told_what_torchrun_would_tell() -> None:
    """The step's own numbers, not what the job asked for."""
    told = slurm.told(STEP)
    port = told.pop("MASTER_PORT")
    assert told == {
        "RANK": "9",
        "WORLD_SIZE": "10",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "node03",
    }
    assert int(port) in slurm.PORTS
    assert port == slurm.told(STEP | {"SLURM_PROCID": "0", "SLURM_NODEID": "0"})["MASTER_PORT"]
    assert port != slurm.told(STEP | {"SLURM_STEP_ID": "3"})["MASTER_PORT"]
    assert port != slurm.told(STEP | {"SLURM_JOB_ID": "123457"})["MASTER_PORT"]


def test_where_the_step_says_less_the_job_does() -> None:
    told = slurm.told(JOB | {"SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"})
    assert [told[name] for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")] == ["18", "4", "node01"]


def test_an_address_and_a_port_that_are_exported_stay() -> None:
    told = slurm.told(STEP | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29501"})
    assert (told["MASTER_ADDR"], told["MASTER_PORT"]) == ("10.0.0.1", "29501")


def become(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())  # what is adopted goes with the test
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "node01"},
        JOB,  # a batch script has the numbers of its job's tasks, and is none of them
        STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        STEP | {"RANK": "3", "WORLD_SIZE": "16"},  # of torchrun, in a task
    ],
)
def test_who_is_no_task_of_several_is_left_alone(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    become(monkeypatch, environment)
    before = dict(os.environ)
    slurm.adopt(EngineConfig())
    assert dict(os.environ) == before


def test_a_task_becomes_a_process_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, STEP)
    slurm.adopt(EngineConfig())
    assert is_worker()
    assert slurm.started(os.environ)
    assert os.environ["RANK"] == "9"


def test_a_task_that_starts_a_machines_processes_itself_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, STEP)
    slurm.adopt(EngineConfig(processes=8, nodes=2, node_rank=1, rendezvous="10.0.0.1:29500"))
    assert not is_worker()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"SLURM_LOCALID": None}, "SLURM_LOCALID is not set"),
        ({"SLURM_PROCID": "first"}, "SLURM_PROCID=first: expected a whole number"),
        ({"SLURM_STEP_TASKS_PER_NODE": "4x2"}, "SLURM_STEP_TASKS_PER_NODE=4x2: expected numbers as in 2(x3),1"),
        ({"SLURM_NODEID": "3"}, "SLURM_NODEID=3: SLURM_STEP_TASKS_PER_NODE=4(x2),2 has fewer machines"),
    ],
)
def test_what_cannot_be_read_is_named(changed: dict[str, str | None], said: str) -> None:
    environment = {name: value for name, value in (STEP | changed).items() if value is not None}
    with pytest.raises(UserError) as caught:
        slurm.told(environment)
    assert str(caught.value).startswith(said)


def test_tasks_neither_start_a_hostfile_each_nor_run_a_sweep_each(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    become(monkeypatch, STEP)
    (tmp_path / "hosts").write_text("node1 slots=2\n")
    for words, said in (
        (["train", f"engine.hostfile={tmp_path / 'hosts'}"], "srun started 10 tasks, each of which would start all"),
        (["train", "-m", "seed=0,1"], "several runs start their processes themselves"),
    ):
        assert main([*words, f"run.dir={tmp_path / 'run'}" if "-m" not in words else "task=boolq"]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.splitlines()) == 1


def free_job() -> int:
    """The number of a job whose first step has a free port."""
    for port in random.sample(slurm.PORTS, 100):
        with socket.socket() as taken:
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port - slurm.PORTS.start
    raise AssertionError("no port is free")


@pytest.mark.trains
@pytest.mark.parametrize("engine", ["torch", pytest.param("deepspeed", marks=pytest.mark.slow)])
def test_two_tasks_train_one_run(checkpoint: Path, boolq: Path, tmp_path: Path, engine: str) -> None:
    job = str(free_job())

    def task(rank: int) -> dict[str, str]:
        return {
            "SLURM_JOB_ID": job,
            "SLURM_STEP_ID": "0",
            "SLURM_STEP_NODELIST": "127.0.0.1",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_TASKS_PER_NODE": "2",
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
            "SLURM_NODEID": "0",
        }

    folder = tmp_path / "run"
    words = [*quick_words(checkpoint, boolq, folder), f"engine={engine}", "train.updates=4", "schedule=pt"]
    in_processes(2, partial(main, ["train", *words]), tmp_path / "tasks" / "said", told=task)
    assert json.loads((folder / "plan.json").read_text())["memory"]["processes"] == 2
    assert [file.name for file in (folder / "logs").iterdir()] == ["rank-1.txt"]
    assert "accuracy" in (tmp_path / "tasks" / "said.rank-0.out").read_text()
