"""Paths among the settings, which a run folder stores so that they are found from any working directory."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fpt.config.run_config import RunConfig

# Keys that name files and folders, and what else they may say.
KEYS: dict[str, tuple[str, ...]] = {
    "model.weights": ("embedded",),
    "task.data": ("auto", "world", "hub"),
    **dict.fromkeys(("task.train", "task.valid", "task.test", "prompt.file", "run.dir", "cache_dir"), ()),
}


def is_hub_id(weights: str) -> bool:
    """Whether a model's weights have the form of a Hub id, and are no folder here."""
    return weights.count("/") == 1 and weights[:1] not in "/.~" and not Path(weights).is_dir()


def stored(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, its paths from the root or the home folder on."""
    return rooted({**asdict(config), "run": {"dir": str(config.folder)}})


def rooted(tree: dict[str, Any]) -> dict[str, Any]:
    """Plain values, whose paths may be relative to the working directory, with paths from the root on."""
    return _changed(tree, lambda path: path if path.startswith("~") else os.path.abspath(path))


def found(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A stored configuration that lies in this folder: what is gone may have been moved together with it."""
    then = (tree.get("run") or {}).get("dir") or ""

    def place(path: str) -> str:
        if not os.path.isabs(then) or not os.path.isabs(path) or Path(path).exists():
            return path
        moved = os.path.normpath(folder.resolve() / os.path.relpath(path, then))
        return moved if Path(moved).exists() else path

    return _changed(tree, place)


def _changed(tree: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    tree = {name: dict(value) if isinstance(value, dict) else value for name, value in tree.items()}
    for key, words in KEYS.items():
        group, _, name = key.rpartition(".")
        branch: Any = tree.get(group) if group else tree
        value = branch.get(name) if isinstance(branch, dict) else None
        if isinstance(value, str) and value not in ("", *words) and not (key == "model.weights" and is_hub_id(value)):
            branch[name] = change(value)
    return tree
