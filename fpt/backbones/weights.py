"""Reads tensors, or some of their rows or columns, from checkpoint files, and refuses those that are damaged.

Files are memory-mapped: a tensor used whole and in its stored precision shares the page cache, and what a partial PLM
leaves out is never read. The mapping is private, so that nothing can write to the files. Files that torch before 1.6
wrote cannot be mapped, and are in memory as a whole.
"""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fpt.backbones.location import WEIGHT_FILES, main_file
from fpt.errors import UserError, reason
from fpt.runs.files import inside, other_kind


class WeightFiles:
    """The tensors of a checkpoint folder, by name."""

    def __init__(self, folder: Path) -> None:
        """Find the folder's weight files, and the file that holds each tensor."""
        self.folder = folder
        if (main := main_file(folder)) is None:
            raise UserError(f"{folder}: no weights; expected one of {', '.join(WEIGHT_FILES)}")
        files = _shards(main) if main.name.endswith(".index.json") else [main]
        self._pickled = {file: _load_bin(file) for file in files if file.suffix == ".bin"}
        self._file_of: dict[str, Path] = {}
        for file in files:
            names = self._pickled[file] if file in self._pickled else _open_safetensors(file).keys()
            self._file_of |= dict.fromkeys(names, file)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names."""
        return tuple(self._file_of)

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def read(
        self,
        name: str,
        *,
        shape: tuple[int, ...] | None = None,
        rows: tuple[int, ...] | None = None,
        columns: tuple[int, ...] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """A tensor, or the given rows (first axis) or columns (second axis) of it; a copy only where one is needed."""
        if name not in self._file_of:
            raise UserError(f"{self.folder}: the weights have no tensor '{name}'; is this a whole checkpoint?")
        file = self._file_of[name]
        pickled = self._pickled.get(file)
        tensor = pickled[name] if pickled else _open_safetensors(file).get_tensor(name)
        if shape is not None and tuple(tensor.shape) != shape:
            raise UserError(f"{file}: '{name}' has shape {list(tensor.shape)}, config.json says {list(shape)}")
        for axis, indices in ((0, rows), (1, columns)):
            if indices is not None:
                tensor = tensor.index_select(axis, torch.tensor(indices))
        if not _is_finite(tensor):
            raise UserError(f"{file}: '{name}' holds numbers that are not finite; it was saved so, or is damaged")
        return tensor.to(dtype) if dtype else tensor

    def fingerprint(self) -> str:
        """A hash of the tensors' names and the files' sizes and bytes.

        Files beyond 1 GiB are sampled, 4096 pieces of 16 KiB each, as hashing all of T5-XXL's 45 GB would take minutes.
        """
        digest = hashlib.sha256("\n".join(sorted(self._file_of)).encode())
        for file in sorted(set(self._file_of.values())):
            size = file.stat().st_size
            digest.update(f"{file.name} {size}".encode())
            with file.open("rb") as stream:
                if size <= 2**30:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
                    continue
                for start in range(0, size, size // 4096):
                    stream.seek(start)
                    digest.update(stream.read(2**14))
        return digest.hexdigest()


def _is_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a float tensor are finite; minimum and maximum take a quarter of the time of a copy."""
    if not tensor.is_floating_point() or tensor.itemsize == 1 or not tensor.numel():
        return True
    return all(end.isfinite() for end in tensor.aminmax())


def _open_safetensors(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        other = other_kind(file) if file.is_file() else None
        raise UserError(f"{file}: {other or f'cannot be read as safetensors ({error})'}") from None


def _load_bin(file: Path) -> dict[str, Tensor]:
    """The tensors of a .bin file, memory-mapped if its format allows; code in it is never run."""
    with file.open("rb") as stream:
        is_mappable = stream.read(4) == b"PK\x03\x04"  # a zip archive, which torch before 1.6 did not write
    if not is_mappable and (other := other_kind(file)):
        raise UserError(f"{file}: {other}")
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=is_mappable)
    except pickle.UnpicklingError:
        raise UserError(f"{file}: holds more than tensors, which would run code; convert it to safetensors") from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as PyTorch weights ({reason(error)})") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{file}: expected a dictionary of tensors")
    return loaded


def _shards(index: Path) -> list[Path]:
    try:
        names = dict.fromkeys(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise UserError(f"{index}: not an index of weight files (JSON with a weight_map)") from None
    # The Hub's cache stores a model's files as links.
    files = [inside(index.parent, name, read_in=index, links=True) for name in names]
    if missing := [file for file in files if not file.is_file()]:
        raise UserError(f"{index}: names {missing[0].name}, which is missing")
    return sorted(files)
