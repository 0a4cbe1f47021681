"""The full PLM on disk: its family, configuration, weight files and tokenizer."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from fpt.backbones.family import Family
from fpt.backbones.family_table import FAMILY_TABLE
from fpt.backbones.location import GENERATION, TOKENIZER_FILES, locate, read_values
from fpt.backbones.shapes import Shape, Sizes, read_shape, read_sizes
from fpt.backbones.t5 import T5, UMT5
from fpt.backbones.weights import WeightFiles
from fpt.config.schema import ModelConfig
from fpt.errors import UserError, reason
from fpt.runs.files import other_kind

VOCABULARIES = ("spiece.model", "tokenizer.json")
CLASSES = {"t5": T5, "mt5": T5, "umt5": UMT5}  # for families that a row alone cannot describe
FAMILIES: dict[str, Family] = {name: CLASSES.get(name, Family)(row) for name, row in FAMILY_TABLE.items()}


def family_of(config: PreTrainedConfig) -> Family:
    """The family of the model that a configuration describes."""
    return FAMILIES[config.model_type]


def read_config(values: dict[str, Any], where: str) -> PreTrainedConfig:
    """The configuration of a supported model (see `shapes.read_shape`); `where` names its origin in errors."""
    return FAMILIES[values["model_type"]].read_config(values, where)


@dataclass(frozen=True)
class Backbone:
    """The full PLM on disk, without weights in memory."""

    folder: Path
    shape: Shape
    sizes: Sizes
    config: PreTrainedConfig

    @property
    def family(self) -> Family:
        """The family that the model belongs to."""
        return family_of(self.config)

    @cached_property
    def files(self) -> WeightFiles:
        """The weight files, from which tensors are read by name."""
        return WeightFiles(self.folder)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own tokenizer."""
        if not self.has_tokenizer:  # transformers would make up an empty tokenizer
            raise UserError(f"{self.folder}: no vocabulary; expected one of {', '.join(VOCABULARIES)}")
        try:
            return AutoTokenizer.from_pretrained(self.folder)
        except Exception as error:  # transformers raises many types for a folder without a tokenizer
            files = (self.folder / name for name in TOKENIZER_FILES)
            others = (f"{file}: {other}" for file in files if file.is_file() and (other := other_kind(file)))
            unknown = f"{self.folder}: no tokenizer can be opened there ({reason(error)})"
            raise UserError(next(others, unknown)) from None

    @property
    def has_tokenizer(self) -> bool:
        """Whether the folder has a vocabulary, or a tokenizer that needs none (ByT5)."""
        file = self.folder / "tokenizer_config.json"
        bytes_only = file.is_file() and '"ByT5Tokenizer' in file.read_text(encoding="utf-8", errors="replace")
        return bytes_only or any((self.folder / name).is_file() for name in VOCABULARIES)

    @cached_property
    def ends(self) -> list[int]:
        """The tokens that end an output: those in config.json, generation_config.json and the tokenizer."""
        file = self.folder / GENERATION
        stated = read_values(self.folder, GENERATION).get("eos_token_id") if file.is_file() else None
        trained = self.tokenizer.eos_token_id if self.has_tokenizer else None
        own = [*self.family.end_tokens(self.config), *(stated if isinstance(stated, list) else [stated]), trained]
        return list(dict.fromkeys(end for end in own if isinstance(end, int)))

    @cached_property
    def vocabulary(self) -> str:
        """A hash of the tokenizer's files."""
        digest = hashlib.sha256()
        for name in TOKENIZER_FILES:
            file = self.folder / name
            digest.update(name.encode() + (hashlib.sha256(file.read_bytes()).digest() if file.is_file() else b""))
        return digest.hexdigest()

    @cached_property
    def has_own_head(self) -> bool:
        """Whether the weights hold an untied head although the configuration does not say so."""
        return self.family.has_own_head(self.files)

    def embeddings(self, ids: list[int]) -> Tensor:
        """The input embeddings of token ids as the first block receives them, [len(ids), D], float32."""
        name = self.family.on_disk(self.files, self.family.row.embedding)
        rows = self.files.read(name, rows=tuple(ids), dtype=torch.float32)
        if norm := self.family.row.embedding_norm:  # positions, which it sees too, are small beside the tokens
            names = (self.family.on_disk(self.files, (f"{norm}.{part}",)) for part in ("weight", "bias"))
            weight, bias = (self.files.read(name, dtype=torch.float32) for name in names)
            return layer_norm(rows, rows.shape[1:], weight, bias, self.config.layer_norm_eps)
        return rows * self.sizes.width**0.5 if self.family.row.embedding_scale else rows

    @cached_property
    def fingerprint(self) -> str:
        """A hash of configuration and weights."""
        config = json.dumps(self.config.to_dict(), sort_keys=True, default=str)
        return hashlib.sha256((config + self.files.fingerprint()).encode()).hexdigest()


def open_backbone(config: ModelConfig, *, with_weights: bool = True) -> Backbone:
    """The backbone that `model=` names; its weights are located but not read, and only `with_weights`."""
    folder = locate(config, with_weights=with_weights)
    values = read_values(folder)
    shape = read_shape(values, str(folder))
    if config.config is not None and (stated := read_shape(config.config, f"model={config.name}")) != shape:
        raise UserError(f"model.weights={config.weights}: its shape is {shape}, model.config says {stated}")
    backbone = Backbone(folder, shape, read_sizes(values, str(folder)), read_config(values, str(folder)))
    if with_weights:
        backbone.family.check_tied(backbone.config, backbone.files, has_own_head=backbone.has_own_head)
    return backbone
