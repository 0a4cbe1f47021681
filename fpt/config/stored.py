"""The configuration as stored in a run folder: its paths are absolute, and some keys may not change when it resumes."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fpt.config.keys import YAML, settings
from fpt.config.literal import leaves
from fpt.config.run_config import RunConfig
from fpt.config.schema import HUB

# These keys, and the engine's except for ENGINE_MAY_NOT, do not change what a run computes: they say where it is kept,
# how often it is saved, and how it fits into memory.
MAY_DIFFER = (
    "resume",
    "run.dir",
    "tracking",
    "prompt.cache",
    "train.save_every",
    "train.micro_batch",
    "train.activation_checkpointing",
)
ENGINE_MAY_NOT = ("engine.dtype", "engine.quantize")


def is_hub_id(weights: str) -> bool:
    """Whether `model.weights` has the form of a Hub id and is not a local folder."""
    return weights.count("/") == 1 and weights[:1] not in "/.~" and not Path(weights).is_dir()


def stored(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, with absolute paths."""
    return with_absolute_paths({**asdict(config), "run": {"dir": str(config.folder)}})


def with_absolute_paths(tree: dict[str, Any]) -> dict[str, Any]:
    """Plain values with their paths made absolute; they may be relative to the working directory."""
    return with_paths(tree, lambda path: path if path.startswith("~") else os.path.abspath(path))


def relocated(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A stored configuration whose run folder is now `folder`: paths of files that moved with it are corrected."""
    then = (tree.get("run") or {}).get("dir") or ""

    def moved(path: str) -> str:
        if not os.path.isabs(then) or not os.path.isabs(path) or Path(path).exists():
            return path
        now = os.path.normpath(folder.resolve() / os.path.relpath(path, then))
        return now if Path(now).exists() else path

    return with_paths(tree, moved)


def with_paths(tree: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Plain values with each path changed."""
    tree = {name: dict(value) if isinstance(value, dict) else value for name, value in tree.items()}
    for key, item in settings().items():
        group, _, name = key.rpartition(".")
        branch: Any = tree.get(group, {}) if group else tree
        value = branch.get(name)
        if not item.metadata.get("place") or value in (None, "", *item.metadata.get("words", ())):
            continue
        if not value.startswith(HUB) and not (key == "model.weights" and is_hub_id(value)):
            branch[name] = change(value)
    task = tree.get("task", {})
    if task.get("of"):
        task["of"] = [change(one) if str(one).endswith(YAML) else one for one in task["of"]]
    return tree


def differences(then: dict[str, Any], now: RunConfig) -> list[str]:
    """What differs from a run's stored settings, as in `optim.lr: 0.3 then, 0.1 now`; stored paths may be relative."""
    before = leaves(with_absolute_paths(then))
    return [
        f"{key}: {before.get(key)} then, {value} now"
        for key, value in leaves(stored(now)).items()
        if before.get(key) != value and key not in MAY_DIFFER
        if key in ENGINE_MAY_NOT or not key.startswith("engine.")
    ]
