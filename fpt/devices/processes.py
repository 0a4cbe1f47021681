"""How many processes a run takes, whether this is one of them, and how several say that they ended early."""

import os
from dataclasses import replace

from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig
from fpt.errors import UserError

GOES_ON = "the same command goes on with the run from its last saved state"
LOGS = "logs"  # in the run folder: of processes other than the main one


class Failed(Exception):  # noqa: N818 - like KeyboardInterrupt, it names what happened
    """A run of several processes has ended early; the message names rank and cause, `status` is the shell's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def is_worker() -> bool:
    """Whether a launcher (ours, torchrun or DeepSpeed's) started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


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
        raise UserError(f"engine.processes={engine.processes}: only fpt train takes several processes; leave it out")
    return replace(config, engine=replace(engine, name="torch" if engine.name == "auto" else engine.name))


def _takes_several(engine: EngineConfig) -> bool:
    return engine.processes > 1 or engine.nodes > 1 or engine.hostfile is not None
