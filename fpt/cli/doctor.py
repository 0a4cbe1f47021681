"""What this machine has and can do, as one pastes it into a bug report; nothing here may fail."""

import os
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from fpt import __version__
from fpt.backbones.tiny import FOLDER, checksums
from fpt.errors import reason

OPTIONAL = ("bitsandbytes", "tensorboard", "wandb", "trackio", "peft")
OPERATIONS = ("pin_memory",)  # for offloading
PATIENCE = 5.0  # seconds for the Hub

Report = dict[str, Any]


def examine(cache: Path) -> Report:
    """Everything, each part by itself: one that cannot be told says why under `error`.

    `problems` lists what is broken: packages that are missing or do not work, files of the embedded model.
    """
    parts = {
        "versions": _safely(versions),
        "machine": _safely(machine),
        "torch": _safely(torch_environment),
        "disks": _safely(lambda: disks({"here": Path.cwd(), "cache_dir": cache})),
        "devices": _safely(devices),
        "deepspeed": _safely(deepspeed),
        "hub": _safely(hub),
        "embedded_model": _safely(embedded_model),
    }
    missing = [name for name, number in parts["versions"].items() if number is None and name not in OPTIONAL]
    broken = parts["embedded_model"].get("problems", {})
    locks = parts["deepspeed"].get("abandoned_locks", [])
    problems = [f"{name} is not installed" for name in missing]
    problems += [f"{name.replace('_', ' ')}: {part['error']}" for name, part in parts.items() if "error" in part]
    problems += [f"{lock}: is of a build that was killed; remove this file" for lock in locks]
    problems += [f"the embedded model's {name} {problem}" for name, problem in broken.items()]
    return {**parts, "problems": problems}


def _safely(look: Callable[[], Report]) -> Report:
    try:
        with redirect_stdout(sys.stderr):  # what libraries say on the way is no part of the report
            return look()
    except Exception as error:  # whatever is wrong here is what the report is for
        return {"error": reason(error)}


def versions() -> Report:
    """Of this program, Python, and the packages that it needs or can use; null where one is not installed."""
    needed = [re.split(r"[^\w-]", line)[0] for line in requires("fpt") or () if "extra ==" not in line]
    report: Report = {"fpt": __version__, "python": platform.python_version()}
    for name in (*needed, *OPTIONAL):
        report[name] = None
        with suppress(PackageNotFoundError):
            report[name] = version(name)
    return report


def machine() -> Report:
    """Cores and memory; bytes."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    return {
        "cores": os.cpu_count(),
        "cores_of_this_process": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
        "memory": memory.total,
        "memory_available": memory.available,
    }


def torch_environment() -> Report:
    """What torch's own report for bugs knows: system, compilers, CUDA and its drivers, of what is there."""
    from torch.utils.collect_env import get_env_info

    elsewhere = ("torch_version", "pip_version", "pip_packages", "conda_packages", "cpu_info")
    values = get_env_info()._asdict().items()  # type: ignore[no-untyped-call]
    return {name: value for name, value in values if value not in (None, "N/A", {}) and name not in elsewhere}


def disks(places: dict[str, Path]) -> Report:
    """Free bytes where things are written, by what is written there."""

    def of(place: Path) -> Report:
        there = next(folder for folder in (place, *place.parents) if folder.is_dir())
        return {"path": str(place), "free": shutil.disk_usage(there).free, "writable": os.access(there, os.W_OK)}

    return {name: of(place.expanduser().absolute()) for name, place in places.items()}


def devices() -> Report:
    """What torch computes on, and what processes can talk over."""
    import torch
    import torch.distributed as dist

    cards = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpus": [
            {"name": card.name, "memory": card.total_memory, "capability": f"{card.major}.{card.minor}"}
            for card in cards
        ],
        "gloo": dist.is_available() and dist.is_gloo_available(),
        "nccl": dist.is_available() and dist.is_nccl_available(),
    }


def deepspeed() -> Report:
    """Its accelerator, what builds its operations, and which of those that matter here could be built."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    from fpt.devices.extensions import abandoned_locks

    accelerator = get_accelerator()
    return {
        "accelerator": accelerator.device_name(),
        "communication": accelerator.communication_backend_name(),
        "compiler": shutil.which(os.environ.get("CXX", "c++")),
        "ninja": shutil.which("ninja"),
        "abandoned_locks": [str(lock) for lock in abandoned_locks()],
        **{name: name in ALL_OPS and bool(ALL_OPS[name].is_compatible(verbose=False)) for name in OPERATIONS},
    }


def hub() -> Report:
    """Whether the Hub answers, asked once as downloads ask."""
    from huggingface_hub import constants, get_session

    report: Report = {"endpoint": constants.ENDPOINT, "offline": constants.HF_HUB_OFFLINE}
    if constants.HF_HUB_OFFLINE:
        return {**report, "answers": False, "why": "not asked: HF_HUB_OFFLINE is set"}
    answer: Report = {"answers": False, "why": f"no answer within {PATIENCE:g} seconds"}

    def ask() -> None:
        try:
            status = get_session().head(constants.ENDPOINT, timeout=PATIENCE).status_code
            answer.update(answers=status < 400, why=f"status {status}")
        except Exception as error:  # of whatever network library there is
            answer.update(why=reason(error))

    start, asking = time.perf_counter(), threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)  # a name that is not resolved knows no timeout of its own
    return {**report, **answer, "seconds": round(time.perf_counter() - start, 2)}


def embedded_model() -> Report:
    """Whether its files are those that its recipe made."""
    wrong = checksums.problems()
    return {"folder": str(FOLDER), "checksums": "hold" if not wrong else "do not hold", "problems": wrong}
