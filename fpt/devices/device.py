"""Chooses the device that a process computes on, and the precision."""

import os
from dataclasses import replace

import torch

from fpt.config.schema import EngineConfig
from fpt.devices.processes import counted, is_worker
from fpt.errors import UserError

WIDE = 512  # a narrower model's updates gain little or nothing from bfloat16 on a CPU
BFLOAT16_ON_CPU = "engine.dtype=auto: bfloat16 on this CPU, whose AMX multiplies it faster"


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


def named(name: str) -> torch.device:
    """Return the device that `engine.device` names, whether or not it is here."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def with_precision(engine: EngineConfig, width: int) -> EngineConfig:
    """Replace `engine.dtype=auto`, for a model of this width: bfloat16 where the device computes faster in it."""
    if engine.dtype != "auto":
        return engine
    if named(engine.device).type == "cpu":
        is_faster = width >= WIDE and multiplies_bfloat16()
    else:  # a plan may be for a GPU that is not here
        is_faster = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    return replace(engine, dtype="bfloat16" if is_faster else "float32")


def states_precision(engine: EngineConfig) -> str:
    """Name the precision of hidden states: the model's, but on a CPU float32, which costs nothing there.

    DeepSpeed computes states in its shards' precision on every device.
    """
    return "float32" if not engine.is_sharded and named(engine.device).type == "cpu" else engine.dtype


def multiplies_bfloat16() -> bool:
    """Whether this machine's CPU multiplies bfloat16 several times as fast as float32: with AMX, in oneDNN's kernels.

    AVX512-BF16 alone is not enough: the same kernels were slower than float32's with it.
    """
    has_kernels: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_kernels and torch.cpu._is_amx_tile_supported()
