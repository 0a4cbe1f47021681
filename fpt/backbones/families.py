"""What the trainer may ask of any model's family; only a family's own file spells its modules and weights."""

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import Cache, T5Config

from fpt.backbones import t5
from fpt.backbones.shapes import Selection, Shape, WeightSlice
from fpt.backbones.weights import WeightFiles


class Family(Protocol):
    """What a family's file has; `t5` says what each is. Models are Any: transformers' classes are annotated in part."""

    HEAD: str

    def read_config(self, values: dict[str, Any], where: str, /) -> T5Config: ...
    def skeleton(self, config: T5Config, shape: Shape, /) -> Any: ...
    def blocks_of(self, model: Any, stack: str, /) -> list[nn.Module]: ...
    def activations_of(self, model: Any, stack: str, /) -> list[nn.Linear]: ...
    def states_before(self, model: Any, ids: Tensor, mask: Tensor, block: int, /) -> Tensor: ...
    def encoded_from(self, model: Any, states: Tensor, mask: Tensor, block: int, /) -> Tensor: ...
    def decoded(self, model: Any, ids: Tensor, states: Tensor, mask: Tensor, texts: int = 1, /) -> Tensor: ...
    def decoded_next(self, model: Any, ids: Tensor, states: Tensor, mask: Tensor, cache: Cache, /) -> Tensor: ...
    def head_logits(self, model: Any, states: Tensor, /) -> Tensor: ...
    def checkpoint_blocks(self, model: Any, /) -> None: ...
    def body_sources(self, selection: Selection, model: Any, /) -> Iterator[tuple[str, WeightSlice]]: ...
    def embedding_name(self, files: WeightFiles, /) -> str: ...
    def tie_embeddings(self, model: Any, embedding: Tensor, /) -> None: ...
    def checkpoint_tensors(self, model: Any, /) -> dict[str, Tensor]: ...
    def checkpoint_values(self, model: Any, original: dict[str, Any], /) -> tuple[dict[str, Any], dict[str, Any]]: ...


FAMILIES: dict[str, Family] = {"t5": t5, "mt5": t5}  # by model_type, as in `shapes`


def family_of(config: T5Config) -> Family:
    """The family of the model that a configuration describes."""
    return FAMILIES[config.model_type]


def read_config(values: dict[str, Any], where: str) -> T5Config:
    """The configuration of a supported model (see `shapes.read_shape`); `where` names its origin in errors.

    Raises:
        UserError: transformers finds a value wrong.
    """
    return FAMILIES[values["model_type"]].read_config(values, where)
