"""Converts weights that cannot be memory-mapped to safetensors, once, in the Hugging Face Hub's assets cache."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from huggingface_hub import cached_assets_path, constants
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fpt.backbones.weights import can_be_mapped, files_in, load_bin
from fpt.errors import UserError, reason
from fpt.runs.atomic import new_folder
from fpt.units import amount

VERSION = 1  # to be raised whenever the conversion of the same files changes


def mappable(folder: Path, say: Callable[[str], None]) -> Path:
    """A folder with memory-mappable weights: this one, or a cached safetensors copy, which a single process makes."""
    files = files_in(folder)
    if all(map(can_be_mapped, files)):
        return folder
    try:
        cache = cached_assets_path("fpt", "weights", "safetensors", assets_dir=constants.HF_ASSETS_CACHE)
        place = cache / _name(files)
        with FileLock(place.with_suffix(".lock")):
            if not place.is_dir():
                with new_folder(place) as aside:
                    aside.mkdir()
                    _convert(files, aside, say)
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: a file is in a folder's place
        raise UserError(
            f"{files[0]}: cannot be mapped, nor its copy be written to {constants.HF_ASSETS_CACHE} ({reason(error)});"
            " set HF_ASSETS_CACHE to another folder"
        ) from None
    return place


def _convert(files: list[Path], folder: Path, say: Callable[[str], None]) -> None:
    """Write each file as safetensors, and an index of them; only one is in memory at a time."""
    places: dict[str, str] = {}
    for number, file in enumerate(files, 1):
        size = f"{amount(file.stat().st_size)}B"
        say(f"{file}: {size} are kept as safetensors too, once, as they cannot be mapped ({number} of {len(files)})")
        name, tensors = f"model-{number:05}-of-{len(files):05}.safetensors", load_bin(file)
        save_file(_apart(tensors), folder / name)
        places |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without shared memory, which safetensors refuses; T5 1.0's embedding, for one, has four names."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if storage in seen else tensor.contiguous()
        seen.add(storage)
    return apart


def _name(files: list[Path]) -> str:
    """A cache name for these files, made of their paths, sizes and modification times."""
    known = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return hashlib.sha256(json.dumps([VERSION, known]).encode()).hexdigest()[:32]
