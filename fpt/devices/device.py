"""Chooses the device that a process computes on, and the precision."""

import os
from dataclasses import replace

import torch

from fpt.config.schema import EngineConfig
from fpt.devices.processes import counted, is_worker
from fpt.errors import UserError


def open_device(config: EngineConfig) -> torch.device:
    """Return this process's device among those that `engine.device` names; refuse one that is not here."""
    there, number = torch.cuda.device_count(), counted(config).here
    device = named(config.device)
    if device.type != "cuda":
        return device
    if config.dtype == "auto":  # products that stay in float32 may use TF32 on GPUs that have it
        torch.set_float32_matmul_precision("high")
    if (device.index or 0) >= there:
        raise UserError(f"engine.device={config.device}: torch sees {there} CUDA devices here; engine.device=cpu works")
    if number > there:
        key = "engine.processes" if config.processes > 1 else "LOCAL_WORLD_SIZE"
        raise UserError(
            f"{key}={number}: torch sees {there} CUDA devices here, and each process takes one;"
            f" give {there}, or engine.device=cpu"
        )
    if not is_worker():
        return device
    return torch.device("cuda", device.index or 0 if number == 1 else int(os.environ["LOCAL_RANK"]))


def seconds_to_answer(config: EngineConfig, device: torch.device) -> int:
    """Return how many seconds to wait for another process; on a GPU it may compute for long on its own."""
    return config.timeout or (600 if device.type == "cuda" else 30)


def named(name: str) -> torch.device:
    """Return the device that `engine.device` names, whether or not it is here."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def with_precision(engine: EngineConfig) -> EngineConfig:
    """Replace `engine.dtype=auto` by the precision that it means here."""
    return replace(engine, dtype=precision_of(engine))


def precision_of(engine: EngineConfig) -> str:
    """Name the model's precision: auto is bfloat16 on a GPU, where that is fastest, and float32 on a CPU."""
    if engine.dtype != "auto":
        return engine.dtype
    if engine.device != "cpu" and torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if engine.device.startswith("cuda") else "float32"  # a plan for a GPU that is not here
