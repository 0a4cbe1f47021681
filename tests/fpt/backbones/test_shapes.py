"""Sizes that no model has are refused before anything is made of them."""

import json
from typing import Any

import pytest

from fpt.backbones import shapes, tiny
from fpt.backbones.shapes import read_shape
from fpt.errors import UserError

TINY = json.loads((tiny.FOLDER / "config.json").read_text())


@pytest.mark.parametrize(
    "changed", [{"num_layers": 10**9}, {"num_decoder_layers": 20_000}, {"d_ff": 10**12}, {"d_model": 0}, {"d_ff": "9"}]
)
def test_a_size_that_no_model_has_is_named(changed: dict[str, Any]) -> None:
    (name,) = changed
    with pytest.raises(UserError, match=f"config.json says {name}=.*; expected a whole number above 0, at most"):
        read_shape({**TINY, **changed}, "x")


def test_a_family_that_the_installed_library_computes_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "version", lambda _: "5.17.0")
    read_shape(TINY, "x")
    with pytest.raises(UserError, match=r"'umt5' needs transformers 5.18 or later, and 5.17.0 is installed"):
        read_shape({**TINY, "model_type": "umt5"}, "x")


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_rotary_angles_that_change_with_what_is_read_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=rf"{key}\.rope_type='longrope', which is not supported: a long text"):
        read_shape({"model_type": "mistral", key: {"rope_type": "longrope"}}, "x")
