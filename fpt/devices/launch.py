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
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.utils.distributed import get_free_port
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fpt.config import compose
from fpt.config.run_config import RunConfig
from fpt.devices.device import open_device
from fpt.devices.processes import GOES_ON, LOGS, Failed
from fpt.errors import UserError

GRACE = 20  # seconds for the others to save and end, when one has failed or all were told to stop


def start(config: RunConfig, flags: list[str]) -> None:
    """Run `fpt worker` in every process to its end; this one waits.

    Raises:
        UserError: the device cannot be used, or the run's folder.
        Failed: a process failed, or the run was told to stop.
    """
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


def _torchrun(config: RunConfig, folder: Path, command: list[str]) -> None:
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
    port = 29500  # DeepSpeed's own, as nobody here knows which are free on another machine
    if set(hosts) <= {"localhost", "127.0.0.1"}:
        port = get_free_port()  # type: ignore[no-untyped-call]
    meeting = ["--hostfile", str(hostfile), "--master_addr", hosts[0], "--master_port", str(port)]
    if subprocess.run([*runner, *meeting, "--module", *command[1:]], check=False).returncode:
        raise _cause(folder, config, {})


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
