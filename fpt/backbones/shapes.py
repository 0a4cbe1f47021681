"""Which models are supported, how large one is by its config.json, and which part of it to keep.

Letters: L blocks of a stack, F FFN neurons of a block.
"""

from dataclasses import dataclass
from typing import Any

from fpt.errors import UserError

STACKS = ("encoder", "decoder")
FAMILIES = ("t5", "mt5")  # model_type in config.json; T5 1.0, 1.1, LM-adapted, Flan and ByT5 are all t5
REFUSED = {
    "umt5": "UMT5 has a position bias in every block",
    "longt5": "LongT5 has another attention",
    "t5gemma": "T5Gemma is another architecture",
    "t5gemma2": "T5Gemma 2 is another architecture",
    "switch_transformers": "Switch Transformers has experts in place of FFN neurons",
}
NEEDED = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size")


@dataclass(frozen=True)
class Stack:
    """Size of one stack: L blocks of F neurons each."""

    blocks: int
    neurons: int


@dataclass(frozen=True)
class Shape:
    """Size of both stacks; what compression changes."""

    encoder: Stack
    decoder: Stack

    def stack(self, name: str) -> Stack:
        """The stack called `encoder` or `decoder`."""
        return self.encoder if name == "encoder" else self.decoder


def read_shape(values: dict[str, Any], where: str) -> Shape:
    """The full model's size, from the values of its config.json; `where` names their origin in errors.

    Raises:
        UserError: the model is not of a supported family, or a value is missing or not a positive number.
    """
    family = values.get("model_type")
    if family not in FAMILIES:
        reason = REFUSED.get(str(family), f"its model_type is '{family}'")
        raise UserError(f"{where}: not a supported model: {reason}. Supported are T5, T5 1.1, Flan-T5, mT5 and ByT5")
    sizes: dict[str, Any] = {key: values.get(key) for key in NEEDED}
    decoder = values.get("num_decoder_layers")
    sizes["num_decoder_layers"] = sizes["num_layers"] if decoder is None else decoder
    for key, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{where}: config.json says {key}={value!r}; expected a whole number above 0")
    neurons = values["d_ff"]
    return Shape(Stack(values["num_layers"], neurons), Stack(sizes["num_decoder_layers"], neurons))


@dataclass(frozen=True)
class StackSelection:
    """The part of a stack to keep: block indices, ascending, and each kept block's neuron indices.

    `neurons` None keeps all of every block; otherwise one ascending tuple per kept block, all of one length.
    """

    blocks: tuple[int, ...]
    neurons: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True)
class Selection:
    """The part of a model to keep."""

    encoder: StackSelection
    decoder: StackSelection

    def stack(self, name: str) -> StackSelection:
        """The selection of the stack called `encoder` or `decoder`."""
        return self.encoder if name == "encoder" else self.decoder


@dataclass(frozen=True)
class WeightSlice:
    """Where one tensor of a partial PLM comes from: a tensor on disk, some of its rows or columns."""

    name: str
    rows: tuple[int, ...] | None = None
    columns: tuple[int, ...] | None = None
