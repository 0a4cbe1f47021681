"""The process group lasts as long as the run that wants it, however the run ends, and waits as long as it should."""

import os
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from fpt.config.schema import EngineConfig
from fpt.devices import distributed
from fpt.devices.distributed import joined
from fpt.devices.ending import Failed
from tests.processes import in_processes

CPU = torch.device("cpu")


def _fail_within(engine: EngineConfig) -> None:
    with joined(engine, CPU):
        assert dist.get_world_size() == 1
        raise RuntimeError("of this run alone")


@pytest.mark.parametrize("name", ["auto", "deepspeed"])
def test_a_run_that_fails_leaves_no_group_to_the_next(name: str) -> None:
    engine = EngineConfig(name=name)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="of this run alone"):
            _fail_within(engine)
        assert not dist.is_initialized()


def test_torch_alone_needs_no_group() -> None:
    with joined(EngineConfig(name="torch"), CPU):
        assert not dist.is_initialized()


IMPATIENT = EngineConfig(name="torch", timeout=1)


def _start_late() -> None:
    if os.environ["RANK"] == "1":
        time.sleep(4)
    with joined(IMPATIENT, CPU):
        tensor = torch.ones(2)
        distributed.all_reduce_sum_([tensor])
        assert tensor.tolist() == [2, 2]


@pytest.mark.trains
def test_starting_may_take_longer_than_an_answer(tmp_path: Path) -> None:
    in_processes(2, _start_late, tmp_path / "processes", seconds=60)


def _join_with_all_threads() -> None:
    del os.environ["OMP_NUM_THREADS"]
    torch.set_num_threads(64)
    with joined(EngineConfig(name="torch"), CPU):
        assert torch.get_num_threads() == max(1, len(os.sched_getaffinity(0)) // 2)


@pytest.mark.trains
def test_the_processes_of_a_machine_share_its_cores_out(tmp_path: Path) -> None:
    in_processes(2, _join_with_all_threads, tmp_path / "processes", seconds=60)


def _answer_late() -> None:
    is_late = os.environ["RANK"] == "1"
    with pytest.raises(RuntimeError, match="(?i)by peer" if is_late else "(?i)timed out"), joined(IMPATIENT, CPU):  # noqa: PT012
        time.sleep(5 * is_late)
        distributed.all_reduce_sum_([torch.ones(2)])
    os._exit(0)  # as a worker does that has lost another


@pytest.mark.trains
def test_an_answer_may_not(tmp_path: Path) -> None:
    in_processes(2, _answer_late, tmp_path / "processes", seconds=60)


def _never_start(said: Path) -> None:
    if os.environ["RANK"] == "1":
        time.sleep(4)
        os._exit(0)
    distributed.JOINING = 1
    with pytest.raises(Failed) as caught, joined(IMPATIENT, CPU):
        pass
    said.write_text(str(caught.value))


@pytest.mark.trains
def test_who_does_not_start_is_given_up(tmp_path: Path) -> None:
    in_processes(2, partial(_never_start, tmp_path / "said"), tmp_path / "processes", seconds=60)
    said = (tmp_path / "said").read_text()
    assert said.startswith("gave up waiting for the other processes to start, after 1 seconds, at ")
