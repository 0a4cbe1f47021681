"""What `engine.dtype=auto` stands for: bfloat16 where the device computes in it, else float32."""

from dataclasses import replace

import torch

from fpt.config.schema import EngineConfig


def settled(engine: EngineConfig) -> EngineConfig:
    """The same with a precision; one that is given stays."""
    return replace(engine, dtype=name_of(engine)) if engine.dtype == "auto" else engine


def name_of(engine: EngineConfig) -> str:
    """As torch calls it.

    bfloat16 is what a card multiplies fastest (an H100 989 TFLOP/s, 67 in float32). On a CPU few kernels gain by it.
    """
    if engine.dtype != "auto":
        return engine.dtype
    if engine.device != "cpu" and torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if engine.device.startswith("cuda") else "float32"  # a plan for a card that is elsewhere
