"""Locates a model's files: the embedded folder, a local folder, or a snapshot from the Hub. Imports nothing heavy."""

import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from fpt.backbones import tiny
from fpt.config.schema import ModelConfig
from fpt.config.stored import is_hub_id
from fpt.errors import UserError, reason
from fpt.runs.files import other_kind

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
GENERATION = "generation_config.json"
TOKENIZER_FILES = ("spiece.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def config_values(config: ModelConfig) -> tuple[dict[str, Any], str]:
    """The values of the model's config.json and their origin; only a Hub id not in conf/model needs a network."""
    if config.config is not None:
        return config.config, f"model={config.name}"
    folder = locate(config, with_weights=False)
    return read_values(folder), str(folder)


def read_values(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The values in the config.json of a model folder, or in another JSON file there."""
    file = folder / name
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: no {name}; expected a Hugging Face checkpoint") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: {other_kind(file) or f'not JSON ({reason(error)})'}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected a JSON object")
    return values


def locate(config: ModelConfig, *, with_weights: bool = True) -> Path:
    """The folder with the model's files, downloaded from the Hub if need be."""
    if config.weights == "embedded":
        return tiny.FOLDER
    local = Path(config.weights).expanduser()
    if local.is_dir():
        return local
    if local.exists() or not is_hub_id(config.weights):
        raise UserError(f"model={config.weights}: no such folder, and not a Hub id (owner/name)")
    return _download(config, with_weights)


def is_on_this_machine(config: ModelConfig) -> bool:
    """Whether the model is local: the embedded one or a folder."""
    return config.weights == "embedded" or Path(config.weights).expanduser().is_dir()


def main_file(folder: Path) -> Path | None:
    """The weight file, or index of weight files, in the best format that the folder has; None: it has none."""
    return next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)


def _download(config: ModelConfig, with_weights: bool) -> Path:
    """Download a model to Hugging Face's own cache, with its weights only in the best format that it has."""
    from huggingface_hub import HfApi, snapshot_download

    fetched = partial(snapshot_download, config.weights, revision=config.revision)
    try:
        wanted = ["config.json", GENERATION, *TOKENIZER_FILES]
        if with_weights:
            listed = HfApi().list_repo_files(config.weights, revision=config.revision)
            weights = next((name for name in WEIGHT_FILES if name in listed), None)
            shards = ["model-*.safetensors"] if str(weights).startswith("model") else ["pytorch_model-*.bin"]
            wanted += [str(weights), *shards]
        return Path(fetched(allow_patterns=wanted))
    except Exception as error:  # the Hub client raises httpx, OS and its own errors
        with suppress(Exception):  # an earlier download that has all files serves offline
            folder = Path(fetched(local_files_only=True))
            if (folder / "config.json").is_file() and (main_file(folder) or not with_weights):
                return folder
        raise UserError(
            f"model={config.weights}: is no folder here, and cannot be fetched from the Hub ({reason(error)})."
            " Give a local folder, or log in with 'hf auth login' if the model is private"
        ) from None
