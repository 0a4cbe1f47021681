"""Weights that can only be read whole, once a process, are kept as safetensors, which all processes map.

The copies are among the Hugging Face Hub's cached assets, beside what was downloaded.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import cached_assets_path, constants
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fpt.backbones.weights import can_be_mapped, files_in, load_bin
from fpt.errors import UserError, reason
from fpt.runs.atomic import new_folder
from fpt.units import amount

MADE_BY = 1  # one more whenever the same files give others


def mappable(folder: Path, say: Callable[[str], None]) -> Path:
    """The folder, or one with its weights as safetensors where some of them cannot be mapped; made by one process."""
    files = files_in(folder)
    if all(map(can_be_mapped, files)):
        return folder
    try:
        cache = cached_assets_path("fpt", "weights", "safetensors", assets_dir=constants.HF_ASSETS_CACHE)
        place = cache / _name(files)
        with _alone(place.with_suffix(".lock")):
            if not place.is_dir():
                _check_room(cache, files)
                with new_folder(place) as aside:
                    aside.mkdir()
                    _convert(files, aside, say)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{files[0]}: cannot be mapped, nor its copy be written to {constants.HF_ASSETS_CACHE} ({reason(error)});"
            " set HF_ASSETS_CACHE to another folder"
        ) from None
    return place


def _convert(files: list[Path], folder: Path, say: Callable[[str], None]) -> None:
    """A file for each, and their index; no more than one is in memory at a time."""
    places: dict[str, str] = {}
    for number, file in enumerate(files, 1):
        size = f"{amount(file.stat().st_size)}B"
        say(f"{file}: {size} are kept as safetensors too, once, as they cannot be mapped ({number} of {len(files)})")
        name, tensors = f"model-{number:05}-of-{len(files):05}.safetensors", load_bin(file)
        save_file(_apart(tensors), folder / name)
        places |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same without memory in common, which safetensors refuse: T5 1.0's embedding has four names."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if storage in seen else tensor.contiguous()
        seen.add(storage)
    return apart


def _check_room(folder: Path, files: list[Path]) -> None:
    needed, free = sum(file.stat().st_size for file in files), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{files[0]}: cannot be mapped, and its copy as safetensors needs {amount(needed)}B in {folder}, where"
            f" {amount(free)}B are free; make room, or set HF_ASSETS_CACHE to a folder that has it"
        )


def _name(files: list[Path]) -> str:
    """Tells files from others, and from themselves once they have changed."""
    known = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return hashlib.sha256(json.dumps([MADE_BY, known]).encode()).hexdigest()[:32]


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Within, no other process of this machine is."""
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
