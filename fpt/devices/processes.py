"""How many processes a run takes, whether this is one of them, and how several say that they ended early."""

import os
from dataclasses import dataclass, replace

from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig
from fpt.devices import hostfile
from fpt.errors import UserError

GOES_ON = "the same command goes on from the last saved state, or from the start where there is none yet"
LOGS = "logs"  # in the run folder: of processes other than the main one
TOLD = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # with WORLD_SIZE, by every launcher


class Failed(Exception):  # noqa: N818 - like KeyboardInterrupt, it names what happened
    """A run of several processes has ended early; the message names rank and cause, `status` is the shell's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Counts:
    """How many processes a run has on all machines together, and on this one."""

    all: int
    here: int


class GaveUp(Failed):
    """The process has waited too long for another."""


def is_worker() -> bool:
    """Whether a launcher (ours, torchrun, DeepSpeed's or srun) started this process as one of several."""
    return _number("WORLD_SIZE", "1") > 1


def counted(engine: EngineConfig) -> Counts:
    """As typed; where nothing is, as a launcher has started them, or as a hostfile will."""
    return _typed(engine) if engine.processes * engine.nodes > 1 else _started(engine)


def are_typed(engine: EngineConfig) -> bool:
    """Whether engine.processes decides how many there are, and nothing else does."""
    return _started(engine).all == 1 or _started(engine) == _typed(engine)


def check_told() -> None:
    """Refuse to be one of several without a word which, or where they meet.

    Raises:
        UserError: something is missing.
    """
    if missing := [name for name in TOLD if is_worker() and not os.environ.get(name)]:
        raise UserError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}: {', '.join(missing)} not set, as a launcher sets it; start the"
            " processes with torchrun, srun or engine.processes=N, or unset WORLD_SIZE"
        )


def check(config: RunConfig) -> None:
    """Refuse what does not go with as many processes as a launcher has started, or a hostfile will.

    Raises:
        UserError: something does not.
    """
    engine, size = config.engine, config.train.batch_size
    started = _started(engine)
    if started.all == 1:
        return
    launcher = _check_numbers(engine)
    if started.all > size:
        raise UserError(
            f"train.batch_size={size}: has fewer examples than {launcher} starts processes, {started.all}; start fewer,"
            " or give a larger batch"
        )
    if started.here > 1 and ":" in engine.device:
        raise UserError(
            f"engine.device={engine.device}: is one device, and {launcher} starts {started.here} processes here;"
            " engine.device=cuda is all"
        )


def _check_numbers(engine: EngineConfig) -> str:
    """What starts the processes, for people; it must start as many as are typed, if any are.

    Raises:
        UserError: it does not.
    """
    typed, started = _typed(engine), _started(engine)
    launcher = f"engine.hostfile={engine.hostfile}" if engine.hostfile and not is_worker() else "the launcher"
    if typed.all > 1 and typed != started:
        raise UserError(
            f"engine.processes={engine.processes}: {launcher} starts {started.all} processes, {started.here} on this"
            " machine; leave out engine.processes and engine.nodes"
        )
    return launcher


def _typed(engine: EngineConfig) -> Counts:
    return Counts(engine.processes * engine.nodes, engine.processes)


def _started(engine: EngineConfig) -> Counts:
    """By a launcher, or by what a hostfile names; which machine of it this is nobody knows, so the fullest is."""
    if is_worker():
        return Counts(_number("WORLD_SIZE", "1"), _number("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", "1")))
    if engine.hostfile is not None:
        slots = hostfile.slots(engine.hostfile).values()
        return Counts(sum(slots), max(slots))
    return Counts(1, 1)


def _number(name: str, default: str) -> int:
    value = os.environ.get(name) or default
    if not value.isdecimal():
        raise UserError(f"{name}={value}: expected a whole number, as a launcher sets it; unset it, or use a launcher")
    return int(value)


def speaks() -> bool:
    """Whether this process prints and writes what is of all of them."""
    return not is_worker() or os.environ.get("RANK") == "0"


def must_be_launched(config: RunConfig) -> bool:
    """Whether the run needs processes that are still to be started."""
    return not is_worker() and _takes_several(config.engine)


def alone(config: RunConfig) -> RunConfig:
    """The configuration of what runs in this process alone.

    Raises:
        UserError: more processes are asked for.
    """
    engine = config.engine
    if _takes_several(engine):
        raise UserError(
            f"engine.processes={engine.processes}: only fpt train, fpt eval and fpt predict take several processes;"
            " leave it out"
        )
    return _settled(config)


def together(config: RunConfig) -> RunConfig:
    """The configuration of what uses a prompt in one process, or in several of this machine.

    Raises:
        UserError: processes of several machines are asked for, or a launcher has started another number.
    """
    engine = config.engine
    if engine.nodes > 1 or engine.hostfile is not None:
        key = f"engine.nodes={engine.nodes}" if engine.nodes > 1 else f"engine.hostfile={engine.hostfile}"
        raise UserError(f"{key}: fpt eval and fpt predict take processes of one machine; give engine.processes=N")
    if is_worker():
        check_told()
        _check_numbers(engine)
    return _settled(config)


def _settled(config: RunConfig) -> RunConfig:
    """With no engine but torch where none is named."""
    engine = config.engine
    return replace(config, engine=replace(engine, name="torch" if engine.name == "auto" else engine.name))


def _takes_several(engine: EngineConfig) -> bool:
    return engine.processes > 1 or engine.nodes > 1 or engine.hostfile is not None
