"""What `srun` tells its tasks, in the words of torchrun: one task for each GPU is one process of a run."""

import os
import re
from collections.abc import Mapping

from fpt.config.schema import EngineConfig
from fpt.errors import UserError

WAY_OUT = "start the tasks with srun, or the processes with torchrun or engine.processes=N"
PORTS = range(15_000, 30_000)  # below those that Linux hands out by itself


def adopt(engine: EngineConfig) -> None:
    """Tell this process what torchrun would, where it is one of several tasks that are to share a run.

    Raises:
        UserError: what Slurm tells cannot be read, or every task would start the machines of a hostfile.
    """
    if not is_one_of_several(engine):
        return
    if engine.hostfile is not None:
        raise UserError(
            f"engine.hostfile={engine.hostfile}: srun started {_tasks(os.environ)} tasks, each of which would start all"
            " processes; leave it out, or start one task with srun --ntasks=1"
        )
    os.environ |= told(os.environ)


def is_one_of_several(engine: EngineConfig) -> bool:
    """Whether this is a task of several that no other launcher has taken over, as engine.nodes=N has fpt's own."""
    return "RANK" not in os.environ and engine.nodes == 1 and _tasks(os.environ) > 1


def started(environment: Mapping[str, str]) -> bool:
    """Whether a process of several is a task, and not what a launcher started within a task."""
    of_run, of_step = environment.get("RANK"), environment.get("SLURM_PROCID")
    return of_run == of_step and environment.get("WORLD_SIZE") == str(_tasks(environment))


def told(environment: Mapping[str, str]) -> dict[str, str]:
    """A task's rank, how many there are, and where they meet; an address or a port that is set already stays.

    Raises:
        UserError: something of it is missing or cannot be read.
    """
    hosts = environment.get("SLURM_STEP_NODELIST") or _value(environment, "SLURM_JOB_NODELIST")
    return {
        "RANK": str(_number(environment, "SLURM_PROCID")),
        "WORLD_SIZE": str(_tasks(environment)),
        "LOCAL_RANK": str(_number(environment, "SLURM_LOCALID")),
        "LOCAL_WORLD_SIZE": str(_tasks_here(environment)),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_host(hosts),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(_port(environment)),
    }


def first_host(hosts: str) -> str:
    """Of a list as Slurm writes it: node01 of `node[01-04,07],other`."""
    first = re.match(r"(?:\[[^\]]*\]|[^,\[\]])*", hosts)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0]) if first else hosts


def _tasks(environment: Mapping[str, str]) -> int:
    """Of the step that this process is a task of; 1 outside of any, where SLURM_NTASKS is what the job asked for."""
    if not any(name.startswith("SLURM_STEP") for name in environment):
        return 1
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    return _number(environment, name) if name in environment else 1


def _tasks_here(environment: Mapping[str, str]) -> int:
    """How many of the step's tasks are on this machine; the step's own word goes before what the job asked for."""
    each = environment.get("SLURM_STEP_TASKS_PER_NODE")
    if each is None:
        return _number(environment, "SLURM_NTASKS_PER_NODE")
    counts: list[int] = []  # of `2(x3),1`: 2, 2, 2, 1
    for part in each.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise UserError(f"SLURM_STEP_TASKS_PER_NODE={each}: expected numbers as in 2(x3),1; {WAY_OUT}")
        counts += [int(match[1])] * int(match[2] or 1)
    machine = _number(environment, "SLURM_NODEID") if len(counts) > 1 else 0
    if machine >= len(counts):
        raise UserError(f"SLURM_NODEID={machine}: SLURM_STEP_TASKS_PER_NODE={each} has fewer machines; {WAY_OUT}")
    return counts[machine]


def _port(environment: Mapping[str, str]) -> int:
    """One that all tasks of a step come to, and other jobs and steps on the same machine do not."""
    step = environment.get("SLURM_STEP_ID", "0")
    return PORTS[(_number(environment, "SLURM_JOB_ID") + (int(step) if step.isdecimal() else 0)) % len(PORTS)]


def _number(environment: Mapping[str, str], name: str) -> int:
    value = _value(environment, name)
    if not value.isdecimal():
        raise UserError(f"{name}={value}: expected a whole number; {WAY_OUT}")
    return int(value)


def _value(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise UserError(f"{name} is not set, and a task of several is told it by srun; {WAY_OUT}")
    return environment[name]
