"""Measures a stage's updates: tokens per second, the share of the GPU's peak FLOP/s, and peak memory."""

import re
from collections.abc import Mapping
from typing import Any

import torch

# Peak TFLOP/s of dense matrix multiplication from NVIDIA's data sheets, by a part of torch's name for the GPU.
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
    """Look up a GPU's peak FLOP/s in a precision, None if unknown; `tf32` says whether float32 may use TF32."""
    precision = "tf32" if dtype == "float32" and tf32 else dtype
    for name, peaks in RATED.items():
        if re.search(rf"\b{name}\b(?!.*Laptop)", card):
            peak = peaks.get(precision, peaks.get(dtype))
            return peak and peak * 1e12
    return None


def peak_flops(device: torch.device, dtype: str, processes: int) -> float | None:
    """Return the peak FLOP/s of that many processes, each with such a device; None if unknown."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = rated(card, dtype, tf32=torch.get_float32_matmul_precision() != "highest")
    return peak and peak * processes


class Meter:
    """Measures updates stage by stage, from where the run began or last resumed."""

    def __init__(self, device: torch.device, peak_flops: float | None) -> None:
        """Measure updates on a device; `peak_flops` are FLOP/s, None if unknown."""
        self._device, self._peak_flops = device, peak_flops

    def begin(self, flops: float, seconds: float) -> None:
        """Begin a stage, or resume it after `seconds` of training; `flops` are those of one update."""
        self._flops, self._at, self._peak = flops, seconds, 0
        self._updates = self._tokens = 0
        self._seconds = 0.0
        self._forget_peak()

    def updated(self, seconds: float, tokens: int) -> float | None:
        """Count an update of `tokens` tokens; returns the stage's tokens per second so far.

        The time of a single update is not known, since its loss is read while the next one is running.
        """
        took, self._at = seconds - self._at, seconds
        self._updates, self._tokens, self._seconds = self._updates + 1, self._tokens + tokens, self._seconds + took
        if self._device.type == "cuda":
            self._peak = max(self._peak, torch.cuda.max_memory_allocated(self._device))
        return self._tokens / self._seconds if self._seconds > 0 else None

    def validated(self, seconds: float) -> None:
        """Leave out a validation that has just ended: its time and memory are not those of updates."""
        self._at = seconds
        self._forget_peak()

    @property
    def found(self) -> dict[str, Any]:
        """The stage's peak memory on a GPU in bytes, tokens per second, and share of the peak FLOP/s; None if unknown.

        Tokens are those of sources and targets, without padding and prompt. The share is model FLOPs utilisation
        (Chowdhery et al. 2022).
        """
        per_second = self._updates / self._seconds if self._seconds > 0 else None
        return {
            "peak_memory": self._peak or None,
            "tokens_per_second": per_second and self._tokens / self._updates * per_second,
            "share_of_peak": self._flops * per_second / self._peak_flops if per_second and self._peak_flops else None,
        }

    def _forget_peak(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
