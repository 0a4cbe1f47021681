"""Starts a run's processes on this machine with torchrun's agent; each runs `fpt`, as under torchrun."""

import logging
import sys
import uuid
from tempfile import TemporaryDirectory

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fpt.config.schema import EngineConfig
from fpt.devices.device import open_device
from fpt.devices.ending import Failed

USUAL_REASON = {
    "SIGKILL": ", as a machine does that is out of memory",
    "SIGABRT": ", as NCCL does when another process does not answer for engine.timeout seconds",
}


def start(engine: EngineConfig, words: list[str]) -> None:
    """Run `fpt WORDS` in `engine.processes` processes to their end; raises `Failed` if one fails or is stopped."""
    open_device(engine)  # refused before any process starts
    logging.disable(logging.CRITICAL)  # silences the agent's log; `Failed` says what matters
    with TemporaryDirectory(prefix="fpt-") as folder:
        agent = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=engine.processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(agent, sys.executable)("-m", "fpt", *words)
        except ChildFailedError as error:
            raise cause(*error.get_first_failure()) from None
        except SignalException as error:
            raise Failed(f"stopped by {error.sigval.name}", 128 + error.sigval) from None
        finally:
            logging.disable(logging.NOTSET)


def cause(rank: int, failure: ProcessFailure) -> Failed:
    """Say why a process failed: what it recorded (`ending.tell`), its exit status, or the signal that killed it."""
    signal = failure.signal_name()
    if failure.exitcode < 0:
        return Failed(f"rank {rank} was killed by {signal}{USUAL_REASON.get(signal, '')}", 1)
    if failure.error_file_data["message"] != failure.message:
        return Failed(f"rank {rank} ended with status {failure.exitcode}", failure.exitcode)
    return Failed(failure.message, failure.exitcode)
