"""Counts a run's processes, whichever launcher started them, and says whether this is one of several."""

import os
from dataclasses import replace
from typing import NamedTuple

from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig
from fpt.errors import UserError

REQUIRED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # every launcher sets these and WORLD_SIZE


class Counts(NamedTuple):
    """The numbers of a run's processes on all machines together, and on this one."""

    all: int
    here: int


def is_worker() -> bool:
    """Return whether a launcher (ours, torchrun, DeepSpeed's) started this process as one of several."""
    return _number("WORLD_SIZE", "1") > 1


def counted(engine: EngineConfig) -> Counts:
    """Count the run's processes: engine.processes if above 1, else those that a launcher has started."""
    return Counts(engine.processes, engine.processes) if engine.processes > 1 else _started()


def speaks() -> bool:
    """Return whether this process prints and writes for all processes."""
    return not is_worker() or os.environ.get("RANK") == "0"


def must_be_launched(config: RunConfig) -> bool:
    """Return whether the run needs several processes that have not been started yet."""
    return not is_worker() and config.engine.processes > 1


def check_started(config: RunConfig) -> None:
    """Refuse settings that do not match the processes that a launcher has started."""
    engine, size, started = config.engine, config.train.batch_size, _started()
    if started.all == 1:
        return
    if missing := [name for name in REQUIRED if not os.environ.get(name)]:
        raise UserError(
            f"WORLD_SIZE={started.all}: {', '.join(missing)} not set, as a launcher sets it; start the processes with"
            " torchrun or engine.processes=N, or unset WORLD_SIZE"
        )
    if counted(engine) != started:
        starts = f"the launcher starts {started.all} processes, {started.here} on this machine"
        raise engine.error("processes", f"{starts}; leave out engine.processes")
    if started.all > size:
        few = f"has fewer examples than the launcher starts processes, {started.all}"
        raise config.train.error("batch_size", f"{few}; start fewer, or give a larger batch")
    if started.here > 1 and ":" in engine.device:
        one = f"is one device, and the launcher starts {started.here} processes here"
        raise engine.error("device", f"{one}; engine.device=cuda is all")


def alone(config: RunConfig) -> RunConfig:
    """Return the configuration for a use of a prompt that runs in one process; refuse several."""
    if config.engine.processes > 1:
        raise config.engine.error("processes", "only fpt train, eval and predict take several processes; leave it out")
    return together(config)


def together(config: RunConfig) -> RunConfig:
    """Return the configuration for a use of a prompt: processes are checked, and engine=auto becomes torch."""
    check_started(config)
    engine = config.engine
    return replace(config, engine=replace(engine, name="torch" if engine.name == "auto" else engine.name))


def _started() -> Counts:
    """Count the processes by the launcher's environment variables; DeepSpeed's has LOCAL_SIZE for LOCAL_WORLD_SIZE."""
    here = _number("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", "1"))
    return Counts(_number("WORLD_SIZE", "1"), here) if is_worker() else Counts(1, 1)


def _number(name: str, default: str) -> int:
    value = os.environ.get(name) or default
    if not value.isdecimal():
        raise UserError(f"{name}={value}: expected a whole number, as a launcher sets it; unset it, or use a launcher")
    return int(value)
