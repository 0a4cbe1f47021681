"""Starts the processes of a run, which all run the same program, and lets them communicate; one may also be alone.

Work that only one process may do, such as writing to the run folder, the main one does; the others get its answer.
"""

import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import HashStore as _HashStore  # type: ignore[attr-defined]
from torch.distributed import Store as _Store  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.rendezvous import rendezvous

from fpt.config.schema import EngineConfig
from fpt.devices.ending import Failed
from fpt.devices.engine import open_device
from fpt.devices.processes import counted, is_worker
from fpt.errors import UserError

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # how long to wait for work of the main process alone, such as a download
JOINING = 600  # the least number of seconds that processes have to start and to import torch
USUAL_REASON = {
    "SIGKILL": ", as a machine does that is out of memory",
    "SIGABRT": ", as NCCL does when another process does not answer for engine.timeout seconds",
}
_patient: dist.ProcessGroup | None = None


def launch(engine: EngineConfig, words: list[str]) -> None:
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


def rank() -> int:
    """Return this process's number among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Return whether this is the process that writes and prints."""
    return rank() == 0


@contextmanager
def joined(config: EngineConfig, device: torch.device) -> Iterator[None]:
    """A context in which the launcher's processes are connected; DeepSpeed needs this even for a single process."""
    global _patient
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # On a GPU another process may compute for long on its own before it answers.
    timeout = timedelta(seconds=config.timeout or (600 if device.type == "cuda" else 30))
    if is_worker():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if "OMP_NUM_THREADS" not in os.environ:  # otherwise each process has a thread for every core of the machine
            # macOS does not say which cores a process may use.
            cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
            torch.set_num_threads(max(1, cores // counted(config).here))
        store, own, number = _met(timedelta(seconds=max(JOINING, config.timeout or 0)))
        dist.init_process_group(backend, store=store, rank=own, world_size=number, timeout=timeout)
        _patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    elif config.name in ("auto", "deepspeed"):  # auto may become deepspeed
        dist.init_process_group(backend, store=_HashStore(), rank=0, world_size=1)
    failed = True
    try:
        yield
        failed = False
    finally:
        _patient = None
        # After an error a worker exits at once: leaving the group would wait for processes that may be gone.
        if not (failed and is_worker()):
            _leave()


def _met(patience: timedelta) -> tuple[_Store, int, int]:
    """Wait for all processes to start; returns their shared store, this process's rank, and how many there are."""
    try:
        store, own, number = next(rendezvous("env://", timeout=patience))
        store.set(f"fpt-has-come-{own}", "")
        store.wait([f"fpt-has-come-{one}" for one in range(number)], patience)
    except dist.DistError as error:
        port = os.environ["MASTER_PORT"]
        if "EADDRINUSE" in str(error):
            raise UserError(f"MASTER_PORT={port}: is taken; export another MASTER_PORT") from None
        seconds = f"{patience.total_seconds():.0f} seconds, at {os.environ['MASTER_ADDR']}:{port}"
        raise Failed(f"gave up waiting for the other processes to start, after {seconds}", 1) from None
    return store, own, number


def _leave() -> None:
    """Destroy the process groups; DeepSpeed's own too, which it would reuse for the next run in this process."""
    deepspeed = sys.modules.get("deepspeed")
    if deepspeed is not None and deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()
    if dist.is_initialized():
        dist.destroy_process_group()


def broadcast_from_main(call: Callable[[], T]) -> T:
    """Call a function in the main process only; every process returns its result, or raises its UserError."""
    if size() == 1:
        return call()
    answer: list[T | UserError | None] = [None]
    if is_main():
        try:
            answer = [call()]
        except UserError as error:
            answer = [error]
    dist.broadcast_object_list(answer, src=0, group=_patient)
    (result,) = answer
    if isinstance(result, UserError):
        raise result
    return result  # type: ignore[return-value]


def main_first(call: Callable[[], T]) -> T:
    """Call a function in the main process first and then in the others, which find what it has cached."""
    if not is_main():
        barrier()
    result = call()
    if is_main():
        barrier()
    return result


def barrier() -> None:
    """Wait until every process has reached this call."""
    if size() > 1:
        dist.barrier(group=_patient)


def all_gather(value: T) -> list[T]:
    """Return every process's value, in every process."""
    if size() == 1:
        return [value]
    values: list[T | None] = [None] * size()
    dist.all_gather_object(values, value, group=_patient)
    return values  # type: ignore[return-value]


def all_reduce_sum_(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one dtype and device by their sums over the processes, with a single all-reduce."""
    if size() == 1:
        return
    together = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(together)
    totals = torch.split(together, [tensor.numel() for tensor in tensors])
    for tensor, total in zip(tensors, totals, strict=True):
        tensor.copy_(total.view_as(tensor))


def any_process(flag: bool) -> bool:
    """Return whether the flag is set in any process; waits for all of them, however long each takes."""
    return any(all_gather(flag))
