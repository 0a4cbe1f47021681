"""Shapes in conf/model: with them a model has as many parameters as those who published it say."""

import pytest

from fpt.backbones.backbone import read_config
from fpt.backbones.location import config_values
from fpt.backbones.shapes import read_shape
from fpt.config import compose
from fpt.pricing.flops import price_of

MILLIONS = {
    "t5-small": 77,
    "t5-base": 248,
    "t5-large": 783,
    "t5-xl": 2850,
    "mt5-small": 300,
    "mt5-base": 582,
    "mt5-large": 1230,
    "mt5-xl": 3740,
    "mt5-xxl": 12900,
    "byt5-small": 300,
    "byt5-base": 582,
    "byt5-large": 1230,
    "flan-ul2": 19500,
    "gpt2": 124,
    "gpt2-large": 774,
    "llama-3.2-1b": 1236,
    "smollm2-135m": 135,
    "qwen3-0.6b": 596,
    "qwen3-1.7b": 1721,
    "gemma3-270m": 268,
    "roberta-base": 125,
    "roberta-large": 355,
}


@pytest.mark.parametrize("name", MILLIONS)
def test_a_model_is_as_large_as_published(name: str) -> None:
    values, _ = config_values(compose.load([f"model={name}"]).model)
    parameters = price_of(read_config(values, name)).parameters(read_shape(values, name))
    assert parameters / 1e6 == pytest.approx(MILLIONS[name], rel=0.01)
