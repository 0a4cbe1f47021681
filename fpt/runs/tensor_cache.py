"""Caches neurons' importance for later runs, in `cache_dir`, under keys that hash what it was made from."""

import hashlib
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fpt.errors import UserError
from fpt.runs.atomic import naming

Tensors = dict[str, Tensor]


def find(cache: Path, key: str) -> Tensors | None:
    """Return the tensors cached under `key`; None if the file is missing, damaged, or another key's."""
    file = _file(cache, key)
    if file.is_file():
        with suppress(SafetensorError), safe_open(file, framework="pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no dict
            known = handle.metadata() or {}
            if (known.get("key"), known.get("sha256")) == (key, _digest(tensors)):
                return tensors
    return None


def keep(cache: Path, key: str, tensors: Tensors) -> None:
    """Cache tensors under `key`."""
    # safetensors itself writes atomically, under a temporary name that no other process uses.
    file = _file(cache, key)
    with naming(file):
        save_file(tensors, file, {"key": key, "sha256": _digest(tensors)})


def _file(cache: Path, key: str) -> Path:
    file = cache / "importance" / f"{key}.safetensors"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cache_dir={cache}: cannot be used ({error.strerror}); give another folder") from None
    return file


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().numpy().data)
    return digest.hexdigest()
