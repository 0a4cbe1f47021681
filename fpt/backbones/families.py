"""The table of model families, and the family of a given model."""

from typing import Any

from transformers import PreTrainedConfig

from fpt.backbones.family import Family
from fpt.backbones.family_table import FAMILY_TABLE
from fpt.backbones.t5 import T5, UMT5

CLASSES = {"t5": T5, "mt5": T5, "umt5": UMT5}  # for families that a row alone cannot describe
FAMILIES: dict[str, Family] = {name: CLASSES.get(name, Family)(row) for name, row in FAMILY_TABLE.items()}


def family_of(config: PreTrainedConfig) -> Family:
    """The family of the model that a configuration describes."""
    return FAMILIES[config.model_type]


def read_config(values: dict[str, Any], where: str) -> PreTrainedConfig:
    """The configuration of a supported model (see `shapes.read_shape`); `where` names its origin in errors."""
    return FAMILIES[values["model_type"]].read_config(values, where)
