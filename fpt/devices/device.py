"""Which device a process computes on."""

import os

import torch

from fpt.config.schema import EngineConfig
from fpt.devices.processes import counted, is_worker
from fpt.errors import UserError


def open_device(config: EngineConfig) -> torch.device:
    """The device of this process, of those that `engine.device` names."""
    there, number = torch.cuda.device_count(), counted(config).here
    device = named(config.device)
    if device.type != "cuda":
        return device
    if config.dtype == "auto":  # what stays in float32 may be multiplied in TF32, where there is such a thing
        torch.set_float32_matmul_precision("high")
    if (device.index or 0) >= there:
        raise UserError(f"engine.device={config.device}: torch sees {there} CUDA devices here; engine.device=cpu works")
    if number == 1:
        return torch.device("cuda", device.index or 0) if is_worker() else device
    if number > there:
        key = "engine.processes" if config.processes > 1 else "LOCAL_WORLD_SIZE"
        raise UserError(
            f"{key}={number}: torch sees {there} CUDA devices here, and each process takes one;"
            f" give {there}, or engine.device=cpu"
        )
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if is_worker() else device


def seconds_to_answer(config: EngineConfig, device: torch.device) -> int:
    """After how many a process that does not answer is given up; one on a GPU may compute for long on its own."""
    return config.timeout or (600 if device.type == "cuda" else 30)


def named(name: str) -> torch.device:
    """The device of an `engine.device`, whether or not it is there."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
