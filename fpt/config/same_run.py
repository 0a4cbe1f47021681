"""What of a configuration may not change while a run goes on, nor when its result is read."""

from typing import Any

from fpt.config.literal import leaves
from fpt.config.places import rooted, stored
from fpt.config.run_config import RunConfig

# Where a run is kept, how often it is saved and which engine computes it is not part of what it computes.
MAY_DIFFER = (
    "resume",
    "run.dir",
    "tracking",
    "cache_dir",
    "prompt.cache",
    "train.save_every",
    "train.micro_batch",
    "train.activation_checkpointing",
)
OF_THE_ENGINE = ("engine.dtype", "engine.quantize")  # what of it may not


def fixed(config: RunConfig) -> dict[str, Any]:
    """What may not change, key by key."""
    return fixed_of(stored(config))


def fixed_of(tree: dict[str, Any]) -> dict[str, Any]:
    """What may not change of a configuration as plain values, key by key."""
    return {
        key: value
        for key, value in leaves(tree).items()
        if key not in MAY_DIFFER and (key in OF_THE_ENGINE or not key.startswith("engine."))
    }


def differences(then: dict[str, Any], now: RunConfig) -> list[str]:
    """What differs from a run's stored settings, as in `optim.lr: 0.3 then, 0.1 now`; paths may be relative to here."""
    before = leaves(rooted(then))
    return [
        f"{key}: {before.get(key)} then, {value} now" for key, value in fixed(now).items() if before.get(key) != value
    ]
