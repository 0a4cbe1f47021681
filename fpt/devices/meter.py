"""How fast a stage's updates are, and what they take: tokens per second, part of what the card could do, memory."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from fpt.devices.peak import PeakMemory

# Multiplying dense matrices, in TFLOP/s, as NVIDIA's data sheets rate the cards; by a part of torch's name for them.
RATED: Mapping[str, Mapping[str, float]] = {
    "B200": {"bfloat16": 2250, "tf32": 1100, "float32": 75},
    "H200": {"bfloat16": 989, "tf32": 495, "float32": 67},
    "H100 PCIe": {"bfloat16": 756, "tf32": 378, "float32": 51},
    "H100 NVL": {"bfloat16": 835, "tf32": 418, "float32": 60},
    "H100": {"bfloat16": 989, "tf32": 495, "float32": 67},
    "A100": {"bfloat16": 312, "tf32": 156, "float32": 19.5},
    "L40S": {"bfloat16": 362, "tf32": 183, "float32": 91.6},
    "L4": {"bfloat16": 121, "tf32": 60, "float32": 30.3},
    "RTX 4090": {"bfloat16": 165, "tf32": 82.6, "float32": 82.6},
    "RTX 3090": {"bfloat16": 71, "tf32": 35.6, "float32": 35.6},
    "V100": {"float32": 15.7},
    "T4": {"float32": 8.1},
}


def rated(card: str, dtype: str, *, tf32: bool) -> float | None:
    """FLOP/s of a card at most, in a precision that float32 may be rounded to; None: not known."""
    precision = "tf32" if dtype == "float32" and tf32 else dtype
    for name, peaks in RATED.items():
        if re.search(rf"\b{name}\b(?!.*Laptop)", card):
            peak = peaks.get(precision, peaks.get(dtype))
            return peak and peak * 1e12
    return None


def peak_flops(device: torch.device, dtype: str, processes: int) -> float | None:
    """FLOP/s of so many processes at most, each with such a device; None: not known."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = rated(card, dtype, tf32=torch.get_float32_matmul_precision() != "highest")
    return peak and peak * processes


class Meter:
    """Of the run's updates, stage by stage; what was before the run last went on is not in it."""

    def __init__(self, device: torch.device, peak_flops: float | None) -> None:
        """To be made before the first model, as PeakMemory is; FLOP/s at most, None: not known."""
        self._memory, self._peak_flops = PeakMemory(device), peak_flops

    def begin(self, flops: float, seconds: float) -> None:
        """A stage of updates of so many FLOPs each begins, or goes on, when it has taken so many seconds."""
        self._flops, self._at, self._peak = flops, seconds, 0
        self._updates = self._tokens = 0
        self._seconds = 0.0
        self._memory.begin()

    def updated(self, seconds: float, tokens: int) -> float | None:
        """An update of so many tokens is done; how many of them a second of the stage had so far, if that can be told.

        So far, as an update's loss is read when the next one is under way, and its own time is not known.
        """
        took, self._at = seconds - self._at, seconds
        self._updates, self._tokens, self._seconds = self._updates + 1, self._tokens + tokens, self._seconds + took
        self._peak = max(self._peak, self._memory.bytes)
        return self._tokens / self._seconds if self._seconds > 0 else None

    def validated(self, seconds: float) -> None:
        """A validation is over, whose time and memory are not the updates'."""
        self._at = seconds
        self._memory.begin()

    @property
    def found(self) -> dict[str, Any]:
        """Of the stage: bytes at the peak, tokens per second, part of what the devices can do at most; None: unknown.

        Tokens are those of sources and targets, without padding and prompt. The part is the counted FLOPs' (model FLOPs
        utilisation, Chowdhery et al. 2022).
        """
        per_second = self._updates / self._seconds if self._seconds > 0 else None
        return {
            "peak_memory": self._peak or None,
            "tokens_per_second": per_second and self._tokens / self._updates * per_second,
            "share_of_peak": self._flops * per_second / self._peak_flops if per_second and self._peak_flops else None,
        }
