"""Which device a process computes on."""

import os

import torch

from fpt.config.schema import EngineConfig
from fpt.devices.processes import is_worker
from fpt.errors import UserError


def open_device(config: EngineConfig) -> torch.device:
    """The device of this process, of those that `engine.device` names.

    Raises:
        UserError: no such device here, or fewer than processes.
    """
    there = torch.cuda.device_count()
    number = int(os.environ["LOCAL_RANK"]) + 1 if is_worker() else config.processes
    device = _named(config.device)
    if device.type != "cuda":
        return device
    if (device.index or 0) >= there:
        raise UserError(f"engine.device={config.device}: torch sees {there} CUDA devices here; engine.device=cpu works")
    if number > there:
        raise UserError(
            f"engine.processes={number}: torch sees {there} CUDA devices here, and each process takes one;"
            f" give {there}, or engine.device=cpu"
        )
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if is_worker() else device


def _named(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"engine.device={name}: allowed are auto, cpu, cuda and cuda:N")
    return device
