"""Start the processes of a run: torchrun's agent on each machine, or DeepSpeed's launcher over a hostfile.

The configuration is composed once, here; the processes read the resolved file. The main one speaks, the others write to
files. Whichever fails first is named, by the reports that they leave.
"""

import ctypes
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fpt.config import compose
from fpt.config.schema import RunConfig
from fpt.errors import UserError, reason
from fpt.runs.folder import LOGS, set_aside

GRACE = 20  # seconds for the others to save and end, when one has failed or all were told to stop
GOES_ON = "the same command goes on with the run from its last saved state"


class Failed(Exception):  # noqa: N818 - like KeyboardInterrupt, it names what happened
    """A run of several processes has ended early; the message names rank and cause.

    Attributes:
        status: for the shell.
    """

    def __init__(self, message: str, status: int) -> None:
        """With what to say and the status to end with."""
        super().__init__(message)
        self.status = status


def is_worker() -> bool:
    """Whether a launcher (ours, torchrun or DeepSpeed's) started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_for(config: RunConfig) -> bool:
    """Whether the run needs processes that are still to be started."""
    engine = config.engine
    return not is_worker() and (engine.processes > 1 or engine.nodes > 1 or engine.hostfile is not None)


def alone(config: RunConfig) -> RunConfig:
    """The configuration of what runs in this process alone.

    Raises:
        UserError: more processes are asked for.
    """
    engine = config.engine
    if engine.processes > 1 or engine.nodes > 1 or engine.hostfile is not None:
        raise UserError(f"engine.processes={engine.processes}: only fpt train takes several processes; leave it out")
    return replace(config, engine=replace(engine, name="torch" if engine.name == "auto" else engine.name))


def start(config: RunConfig, flags: list[str]) -> None:
    """Run `fpt worker` in every process to its end; this one waits.

    Raises:
        UserError: the device cannot be used, or the run's folder.
        Failed: a process failed, or the run was told to stop.
    """
    if config.resume == "never" and not config.engine.node_rank:
        set_aside(config.folder)
        config = replace(config, resume="auto")
    folder = config.folder.resolve() / ".launch" / uuid.uuid4().hex
    try:
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(compose.to_yaml(config))
    except OSError as error:
        raise UserError(f"run.dir={config.folder}: cannot be written ({error.strerror})") from None
    command = ["-m", "fpt", "worker", str(folder / "config.yaml"), *flags]
    try:
        if config.engine.hostfile is not None:
            _deepspeed(config, folder, command)
        else:
            _torchrun(config, folder, command)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another launcher may be at work in the same place
            folder.parent.rmdir()


def read_config(file: Path) -> RunConfig:
    """The configuration that the launcher resolved."""
    return compose.read(file.read_text())


def _torchrun(config: RunConfig, folder: Path, command: list[str]) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from fpt.devices.engine import open_device

    engine = config.engine
    open_device(engine)  # what is wrong with it is said here, before any process starts
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # what matters is said below, in one line
    several: dict[str, Any] = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
    if engine.rendezvous is not None:
        meeting = {"rank": engine.node_rank, "timeout": 900}
        several = {"rdzv_backend": "static", "rdzv_endpoint": engine.rendezvous, "rdzv_configs": meeting}
    agent = LaunchConfig(
        min_nodes=engine.nodes,
        max_nodes=engine.nodes,
        nproc_per_node=engine.processes,
        run_id=uuid.uuid4().hex if engine.rendezvous is None else "fpt",
        max_restarts=0,
        shutdown_timeout=GRACE,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        **several,
    )
    try:
        elastic_launch(agent, sys.executable)(*command)
    except ChildFailedError as error:
        killed = {rank: -failure.exitcode for rank, failure in error.failures.items() if failure.exitcode < 0}
        raise _cause(folder, config, killed) from None
    except SignalException as error:
        raise Failed(f"stopped by {error.sigval.name}; {GOES_ON}", 128 + error.sigval) from None


def _deepspeed(config: RunConfig, folder: Path, command: list[str]) -> None:
    hostfile = Path(str(config.engine.hostfile)).expanduser()
    hosts = [line.split()[0] for line in hostfile.read_text().splitlines() if line.strip() and line.strip()[0] != "#"]
    if not hosts:
        raise UserError(f"engine.hostfile={hostfile}: names no machine; expected lines of 'host slots=N'")
    runner = [sys.executable, "-m", "deepspeed.launcher.runner", "--quiet", "--no_local_rank", "--no_ssh_check"]
    meeting = ["--hostfile", str(hostfile), "--master_addr", hosts[0], "--master_port", str(_port(hosts))]
    done = subprocess.run([*runner, *meeting, "--module", *command[1:]], check=False)
    if done.returncode:
        raise _cause(folder, config, {})


def _port(hosts: list[str]) -> int:
    """Where the processes meet on the first machine: a free port where that is this one, else DeepSpeed's own."""
    if set(hosts) - {"localhost", "127.0.0.1"}:
        return 29500
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _cause(folder: Path, config: RunConfig, killed: dict[int, int]) -> Failed:
    """Which process failed, and of what; that others lost it, and were then ended, is only what came of it."""
    reports = sorted((json.loads(file.read_text()) for file in folder.glob("rank-*.json")), key=lambda one: one["time"])
    theirs = [report["rank"] for report in reports]
    silent = {rank: signal.Signals(number).name for rank, number in killed.items() if rank not in theirs}
    why = next((report for report in reports if not report["lost_others"]), None)
    if why is not None:
        return Failed(why["message"], why["status"])
    for rank, name in silent.items():
        if any(report["waited"] for report in reports):
            waited = f"rank {rank} did not answer for {config.engine.timeout} seconds (engine.timeout)"
            return Failed(f"{waited}; {GOES_ON}", 1)
        memory = ", as a machine does that is out of memory" if name == "SIGKILL" else ""
        return Failed(f"rank {rank} was killed by {name}{memory}; {GOES_ON}", 1)
    if reports:
        return Failed(reports[0]["message"], 1)
    return Failed(f"a process ended without a word; see {config.folder / LOGS}; {GOES_ON}", 1)


@contextmanager
def reporting(folder: Path, reports: Path | None) -> Iterator[None]:
    """Within, a process but the main one writes to the run's logs; what ends it early is left in `reports`.

    Started by another launcher than ours there are none, and the process says it itself.
    """
    rank = int(os.environ["RANK"])
    if reports is not None:
        _end_with_parent()
    log = folder / LOGS / f"rank-{rank}.txt"
    if rank:
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("a")
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        yield
    except BaseException as error:
        if reports is None:
            raise
        message, status, lost_others = _last_words(error, rank, log)
        waited = lost_others and "timed out" in str(error).lower()
        about = {"rank": rank, "time": time.time(), "message": message, "status": status}
        about |= {"lost_others": lost_others, "waited": waited}
        file = reports / f"rank-{rank}.json"
        file.with_suffix(".part").write_text(json.dumps(about))
        file.with_suffix(".part").rename(file)
        if status == 1 and not lost_others and not isinstance(error, OSError):
            raise
        sys.stdout.flush()
        os._exit(status)  # at once: tidying up would wait for processes that may be gone


def _end_with_parent() -> None:
    """Have the system tell this process to stop, as by SIGTERM, when its launcher is killed; Linux alone can."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG, in linux/prctl.h
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def _last_words(error: BaseException, rank: int, log: Path) -> tuple[str, int, bool]:
    """Message, exit status, and whether it is but the loss of another process."""
    from torch.distributed import DistError

    from fpt.devices.interrupts import Interrupted

    if isinstance(error, UserError):
        return str(error), 2, False
    if isinstance(error, Interrupted):
        return f"{error}; {GOES_ON}", 128 + error.signal, False
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"rank {rank}: {where}{error.strerror}; {GOES_ON}", 1, False
    text = str(error).lower()
    lost = isinstance(error, DistError) or any(word in text for word in ("by peer", "timed out"))
    what = "lost the others" if lost else "failed"
    place = f" (see {log})" if rank else ""
    return f"rank {rank} {what}: {reason(error)}{place}; {GOES_ON}", 1, lost
