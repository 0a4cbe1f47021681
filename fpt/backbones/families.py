"""What the trainer may ask of any model's family; only a family's own file spells its modules and weights.

Letters: B batch, S source, T target, D model, F neurons, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import T5Config

from fpt.backbones import t5
from fpt.backbones.shapes import Selection, Shape, WeightSlice
from fpt.backbones.weights import WeightFiles


class Family(Protocol):
    """A family of models; models are Any, since transformers' classes are annotated in part only."""

    HEAD: str  # the name of the head's weight on disk

    def read_config(self, values: dict[str, Any], where: str, /) -> T5Config:
        """The configuration that a config.json's values make, without dropout; `where` names its origin in errors."""

    def skeleton(self, config: T5Config, shape: Shape, /) -> Any:
        """A model of the given shape on the meta device, none of which trains; its embeddings are one tensor.

        So is the head, unless checkpoints of this configuration have one of their own.
        """

    def blocks_of(self, model: Any, stack: str, /) -> list[nn.Module]:
        """A stack's blocks, in order."""

    def activations_of(self, model: Any, stack: str, /) -> list[nn.Linear]:
        """The modules whose input is a block's FFN activation (after the gate), [B, positions, F], block by block."""

    def states_before(self, model: Any, ids: Tensor, mask: Tensor, block: int, /) -> Tensor:
        """What the encoder's block of that number takes in, [B, S, D], for source ids [B, S]."""

    def encoded_from(self, model: Any, states: Tensor, mask: Tensor, block: int, /) -> Tensor:
        """The encoder's output [B, S, D] from what its block of that number takes in."""

    def decoded(self, model: Any, ids: Tensor, states: Tensor, mask: Tensor, /) -> Tensor:
        """Decoder states [B, T, D] for ids [B, T] put in, from the encoder's output [B, S, D] and its mask."""

    def head_logits(self, model: Any, states: Tensor, /) -> Tensor:
        """Vocabulary logits [..., V] of decoder states [..., D]."""

    def checkpoint_blocks(self, model: Any, /) -> None:
        """Have training keep each block's input alone, and compute the rest again on the way back."""

    def body_sources(self, selection: Selection, model: Any, /) -> Iterator[tuple[str, WeightSlice]]:
        """For every tensor of a partial PLM but embedding and head: its name there, and where it comes from."""

    def embedding_name(self, files: WeightFiles, /) -> str:
        """The input embedding's name on disk."""

    def tie_embeddings(self, model: Any, embedding: Tensor, /) -> None:
        """Give all that embeds, and the head, the one embedding [V, D]."""

    def checkpoint_tensors(self, model: Any, /) -> dict[str, Tensor]:
        """The tensors of a partial PLM as a configuration of the library can say their shapes."""

    def checkpoint_values(self, model: Any, original: dict[str, Any], /) -> tuple[dict[str, Any], dict[str, Any]]:
        """What config.json and generation_config.json of a saved partial PLM say, from the backbone's `original`."""


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
