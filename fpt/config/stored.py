"""The configuration as a run folder keeps it: its paths hold anywhere, and some of it may not change."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fpt.config.keys import settings
from fpt.config.literal import leaves
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
ENGINE_MAY_NOT = ("engine.dtype", "engine.quantize")


def is_hub_id(weights: str) -> bool:
    """Whether a model's weights have the form of a Hub id, and are no folder here."""
    return weights.count("/") == 1 and weights[:1] not in "/.~" and not Path(weights).is_dir()


def stored(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, with absolute paths."""
    return rooted({**asdict(config), "run": {"dir": str(config.folder)}})


def rooted(tree: dict[str, Any]) -> dict[str, Any]:
    """Plain values, whose paths may be relative to the working directory, with absolute paths."""
    return _with_paths(tree, lambda path: path if path.startswith("~") else os.path.abspath(path))


def found(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A stored configuration that now lies in this folder; what moved together with it is found again."""
    then = (tree.get("run") or {}).get("dir") or ""

    def moved(path: str) -> str:
        if not os.path.isabs(then) or not os.path.isabs(path) or Path(path).exists():
            return path
        now = os.path.normpath(folder.resolve() / os.path.relpath(path, then))
        return now if Path(now).exists() else path

    return _with_paths(tree, moved)


def _with_paths(tree: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    tree = {name: dict(value) if isinstance(value, dict) else value for name, value in tree.items()}
    for key, item in settings().items():
        group, _, name = key.rpartition(".")
        branch: Any = tree.get(group) if group else tree
        value = branch.get(name) if isinstance(branch, dict) else None
        if (
            not item.metadata.get("place")
            or not isinstance(value, str)
            or value in ("", *item.metadata.get("words", ()))
        ):
            continue
        if key != "model.weights" or not is_hub_id(value):
            branch[name] = change(value)
    return tree


def fixed(config: RunConfig) -> dict[str, Any]:
    """What may not change while a run goes on, nor when its result is read, key by key."""
    return fixed_of(stored(config))


def fixed_of(tree: dict[str, Any]) -> dict[str, Any]:
    """What may not change of a configuration as plain values, key by key."""
    return {
        key: value
        for key, value in leaves(tree).items()
        if key not in MAY_DIFFER and (key in ENGINE_MAY_NOT or not key.startswith("engine."))
    }


def differences(then: dict[str, Any], now: RunConfig) -> list[str]:
    """What differs from a run's stored settings, as in `optim.lr: 0.3 then, 0.1 now`; paths may be relative to here."""
    before = leaves(rooted(then))
    return [
        f"{key}: {before.get(key)} then, {value} now" for key, value in fixed(now).items() if before.get(key) != value
    ]
