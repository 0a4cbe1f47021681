"""Start the processes of a run: torchrun's agent on each machine, or DeepSpeed's launcher over a hostfile.

The configuration is composed once, here; the processes read the resolved file. The main one speaks, the others write to
files. Whichever fails first is named, by the reports that they leave.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.utils.distributed import get_free_port
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fpt.config import compose
from fpt.config.run_config import RunConfig
from fpt.devices.device import named, open_device, seconds_to_answer
from fpt.devices.hostfile import slots
from fpt.devices.processes import GOES_ON, LOGS, Failed
from fpt.errors import UserError

ABORTED = "SIGABRT"  # by which NCCL's watchdog ends a process whose collective gets no answer, without a Python error
GRACE = 20  # seconds for the others to save and end, when one has failed or all were told to stop


def start(config: RunConfig, flags: list[str]) -> None:
    """Run `fpt worker` in every process to its end; this one waits.

    Raises:
        UserError: the device cannot be used, or the run's folder.
        Failed: a process failed, or the run was told to stop.
    """
    with _meeting(config) as folder:
        command = ["worker", str(folder / "config.yaml"), *flags]
        if config.engine.hostfile is not None:
            _deepspeed(config, folder, command)
        else:
            _torchrun(config, folder, command)


def start_verb(config: RunConfig, words: list[str]) -> None:
    """Run `fpt WORDS reports=FOLDER` in every process of this machine to its end; logs go to the run's folder.

    Raises:
        UserError: the device cannot be used, or the run's folder.
        Failed: a process failed, or was told to stop.
    """
    with _meeting(config) as folder:
        try:
            _torchrun(config, folder, [*words, f"reports={folder}"])
        except Failed as error:  # what uses a prompt saves no state
            raise Failed(str(error).removesuffix(f"; {GOES_ON}"), error.status) from None


@contextmanager
def _meeting(config: RunConfig) -> Iterator[Path]:
    """Within, a folder with the configuration, in which the processes leave word of what ended them."""
    folder = config.folder.resolve() / ".launch" / uuid.uuid4().hex
    try:
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(compose.to_yaml(config))
    except OSError as error:
        raise UserError(f"run.dir={config.folder}: cannot be written ({error.strerror})") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another launcher may be at work in the same place
            folder.parent.rmdir()


def _torchrun(config: RunConfig, folder: Path, command: list[str]) -> None:
    engine = config.engine
    device = open_device(engine)  # what is wrong with it is said here, before any process starts
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
        elastic_launch(agent, sys.executable)("-m", "fpt", *command)
    except ChildFailedError as error:
        ended = [
            Ended(rank, failure.timestamp, signal.Signals(-failure.exitcode).name if failure.exitcode < 0 else None)
            for rank, failure in error.failures.items()
        ]
        raise cause(folder, config, ended, device) from None
    except SignalException as error:
        raise Failed(f"stopped by {error.sigval.name}; {GOES_ON}", 128 + error.sigval) from None


def _deepspeed(config: RunConfig, folder: Path, command: list[str]) -> None:
    hostfile = str(config.engine.hostfile)
    hosts = list(slots(hostfile))
    runner = [sys.executable, "-m", "deepspeed.launcher.runner", "--quiet", "--no_local_rank", "--no_ssh_check"]
    port = 29500  # DeepSpeed's own, as nobody here knows which are free on another machine
    if set(hosts) <= {"localhost", "127.0.0.1"}:
        port = get_free_port()  # type: ignore[no-untyped-call]
    meeting = ["--hostfile", str(Path(hostfile).expanduser()), "--master_addr", hosts[0], "--master_port", str(port)]
    if subprocess.run([*runner, *meeting, "--module", "fpt", *command], check=False).returncode:
        raise cause(folder, config, [], named(config.engine.device))


@dataclass(frozen=True)
class Ended:
    """A process that has ended early: at which second, and by which signal, if it was one."""

    rank: int
    time: int
    signal: str | None


def cause(folder: Path, config: RunConfig, ended: list[Ended], device: torch.device) -> Failed:
    """Which process failed, and of what; that others lost it, and were then ended, is only what came of it."""
    reports = sorted((json.loads(file.read_text()) for file in folder.glob("rank-*.json")), key=lambda one: one["time"])
    of = {end: [one for one in reports if one["end"] == end] for end in ("failed", "waited", "stopped", "lost")}
    if of["failed"]:
        return Failed(of["failed"][0]["message"], of["failed"][0]["status"])
    said = {report["rank"] for report in reports}
    # Of those that end in the same second, what NCCL aborts is more likely to have lost another than to be the cause.
    silent = sorted(
        (one for one in ended if one.signal and one.rank not in said), key=lambda one: (one.time, one.signal == ABORTED)
    )
    seconds = seconds_to_answer(config.engine, device)
    waiting = {one["rank"] for one in of["waited"]}
    if device.type == "cuda" and silent and silent[0].signal == ABORTED and _quiet(folder, config) >= seconds:
        waiting |= {one.rank for one in silent if one.signal == ABORTED}  # by NCCL's watchdog, for want of an answer
    if any(one["starting"] for one in of["waited"]):
        return Failed(of["waited"][0]["message"], 1)
    if waiting:
        others = [one.rank for one in silent if one.rank not in waiting][:1]
        for end in ("stopped", "lost"):  # by being told so, or late: one alone is the one that was waited for
            others = others or ([of[end][0]["rank"]] if len(of[end]) == 1 else [])
        late = f"waited for rank {others[0]}, which did not answer for" if others else None
        unknown = f"rank {min(waiting)} gave up waiting for another process after"
        return Failed(f"{late or unknown} {seconds} seconds (engine.timeout); {GOES_ON}", 1)
    if of["stopped"] and (not ended or ended[0].rank in said):
        return Failed(of["stopped"][0]["message"], of["stopped"][0]["status"])
    if silent:
        memory = ", as a machine does that is out of memory" if silent[0].signal == "SIGKILL" else ""
        return Failed(f"rank {silent[0].rank} was killed by {silent[0].signal}{memory}; {GOES_ON}", 1)
    if reports:
        return Failed(reports[0]["message"], reports[0]["status"])
    return Failed(f"a process ended without a word; see {config.folder / LOGS}; {GOES_ON}", 1)


def _quiet(folder: Path, config: RunConfig) -> float:
    """For how many seconds the run has written nothing; the main process writes with every update."""
    written = [(folder / "config.yaml"), *config.folder.glob("*.jsonl")]
    return time.time() - max(file.stat().st_mtime for file in written)
