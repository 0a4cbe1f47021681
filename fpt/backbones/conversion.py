"""Keeps a copy of weights that cannot be memory-mapped in a format that can, in the Hugging Face Hub's assets cache."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from huggingface_hub import cached_assets_path, constants

from fpt.backbones.location import main_file
from fpt.backbones.weights import can_be_mapped, files_in, load_bin
from fpt.errors import UserError, reason
from fpt.runs.atomic import new_folder
from fpt.units import amount

VERSION = 1  # to be raised whenever the conversion of the same files changes


def mappable(folder: Path, say: Callable[[str], None]) -> Path:
    """A folder with memory-mappable weights: this one, or a cached copy, which a single process makes."""
    files = files_in(folder)
    if all(map(can_be_mapped, files)):
        return folder
    try:
        cache = cached_assets_path("fpt", "weights", "mappable", assets_dir=constants.HF_ASSETS_CACHE)
        place = cache / _name(files)
        with FileLock(place.with_suffix(".lock")):
            if not place.is_dir():
                with new_folder(place) as aside:
                    _convert(files, aside, say)
    except UserError:  # of the weights; it is a ValueError too
        raise
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a file is in a folder's place
        raise UserError(
            f"{files[0]}: cannot be mapped, nor its copy be written to {constants.HF_ASSETS_CACHE} ({reason(error)});"
            " set HF_ASSETS_CACHE to another folder"
        ) from None
    return place


def _convert(files: list[Path], folder: Path, say: Callable[[str], None]) -> None:
    """Write each file in torch's newer format, and their index if they have one; only one is in memory at a time."""
    for number, file in enumerate(files, 1):
        size = f"{amount(file.stat().st_size)}B"
        say(f"{file}: {size} are kept in a newer format too, once, as they cannot be mapped ({number} of {len(files)})")
        torch.save(load_bin(file), folder / file.name)
    if (main := main_file(files[0].parent)) not in files:
        shutil.copy(str(main), folder)


def _name(files: list[Path]) -> str:
    """A cache name for these files, made of their paths, sizes and modification times."""
    known = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return hashlib.sha256(json.dumps([VERSION, known]).encode()).hexdigest()[:32]
