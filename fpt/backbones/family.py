"""What the trainer may ask of any model: its shape, and which part of it to keep.

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
class Source:
    """Where one tensor of a partial PLM comes from: a tensor on disk, some of its rows or columns."""

    name: str
    rows: tuple[int, ...] | None = None
    columns: tuple[int, ...] | None = None


def evenly(kept: int, total: int) -> tuple[int, ...]:
    """`kept` of `total` block indices, spread evenly, first and last among them (Huang et al. 2022).

    Gaps differ by at most one, and the wider gaps come last; a single block is the first.

    Raises:
        ValueError: `kept` is not between 1 and `total`.
    """
    if not 1 <= kept <= total:
        raise ValueError(f"cannot keep {kept} of {total} blocks")
    if kept == 1:
        return (0,)
    narrow, wider = divmod(total - 1, kept - 1)
    gaps = [narrow] * (kept - 1 - wider) + [narrow + 1] * wider
    return tuple(sum(gaps[:index]) for index in range(kept))


def around(kept: int, total: int, layer: int) -> tuple[int, ...]:
    """`kept` of `total` block indices where a prompt enters before block `layer`: spread evenly below it and above.

    The blocks are shared out as the whole model's are. Kept are always the block just below the prompt, and the last
    one if any above it is; both sides keep one if `kept` allows. Without blocks below it is `evenly`.

    Raises:
        ValueError: `kept` is not between 1 and `total`.
    """
    if not 1 <= kept <= total:
        raise ValueError(f"cannot keep {kept} of {total} blocks")
    if layer == 0:
        return evenly(kept, total)
    below = num_below(kept, total, layer)
    lower = evenly(below, layer) if below > 1 else (layer - 1,)
    above = kept - below
    upper = evenly(above, total - layer) if above > 1 else (total - layer - 1,) * above
    return (*lower, *(layer + block for block in upper))


def num_below(kept: int, total: int, layer: int) -> int:
    """How many of the blocks that `around` keeps lie below block `layer`."""
    if layer in (0, total):
        return min(kept, layer)
    share = (2 * kept * layer + total) // (2 * total)
    return max(1, min(share, kept - 1))


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
