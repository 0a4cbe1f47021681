"""Tensors that are kept for the next run, by a name that says what they were made from."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fpt.errors import UserError


def kept(cache: Path, kind: str, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What the cache has of this kind under `name` if it is whole there, else what is computed, and kept.

    Raises:
        UserError: the cache's folder cannot be made.
    """
    there = find(cache, kind, name)
    return keep(cache, kind, name, compute()) if there is None else there


def find(cache: Path, kind: str, name: str) -> dict[str, Tensor] | None:
    """What the cache has of this kind under `name`, None where it is not there or not whole.

    Raises:
        UserError: the cache's folder cannot be made.
    """
    file = _file(cache, kind, name)
    if file.is_file():
        with suppress(SafetensorError), safe_open(file, framework="pt") as handle:
            found = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 - no dict
            if (handle.metadata() or {}).get("sha256") == _digest(found):
                return found
    return None


def keep(cache: Path, kind: str, name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put tensors under `name`, and return them."""
    file = _file(cache, kind, name)
    aside = file.with_suffix(f".{os.getpid()}.part")
    aside.write_bytes(save(tensors, {"key": name, "sha256": _digest(tensors)}))
    aside.replace(file)
    return tensors


def _file(cache: Path, kind: str, name: str) -> Path:
    file = cache / kind / f"{name}.safetensors"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cache_dir={cache}: cannot be used ({error.strerror}); give another folder") from None
    return file


def _digest(found: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(found):
        digest.update(key.encode())
        digest.update(found[key].flatten().numpy().data)
    return digest.hexdigest()
