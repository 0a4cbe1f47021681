"""Where the frozen model lives: one process on one device."""

import torch

from fpt.config import EngineConfig
from fpt.errors import UserError


def open_device(config: EngineConfig) -> torch.device:
    """The device that `engine.device` names.

    Raises:
        UserError: no such device here.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
    except RuntimeError:
        raise UserError(f"engine.device={config.device}: allowed are auto, cpu, cuda and cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"engine.device={config.device}: allowed are auto, cpu, cuda and cuda:N")
    found = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= found:
        raise UserError(f"engine.device={config.device}: torch sees {found} CUDA devices here; engine.device=cpu works")
    return device


def dtype_of(config: EngineConfig) -> torch.dtype:
    """The frozen model's precision."""
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype
