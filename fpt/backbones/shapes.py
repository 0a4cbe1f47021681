"""How large a model is by its config.json, stack by stack, and which part of it to keep.

Letters: L blocks of a stack, F FFN neurons of a block.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from fpt.backbones.rows import REFUSED, ROWS, SUPPORTED, Row, value_at
from fpt.errors import UserError

MOST_BLOCKS, MOST = 10_000, 100_000_000  # of a stack, and of any other size: no model comes near
STACKS = ("encoder", "decoder")  # a model has both or either
Part = TypeVar("Part", covariant=True)


class ByStack(Mapping[str, Part]):
    """Something of each of a model's stacks, by name, in the order in which states pass through them."""

    __slots__ = ("_parts",)

    def __init__(self, encoder: Part | None = None, decoder: Part | None = None) -> None:
        """Of the stacks that there are."""
        pairs = zip(STACKS, (encoder, decoder), strict=True)
        self._parts = {name: part for name, part in pairs if part is not None}

    def __getitem__(self, name: str) -> Part:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __hash__(self) -> int:
        return hash(tuple(self._parts.items()))

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={part}" for name, part in self._parts.items())
        return f"{type(self).__name__}({parts})"

    @property
    def source(self) -> Part:
        """Of the stack that reads the source, the first, which a prompt enters."""
        return next(iter(self._parts.values()))

    @property
    def encoder(self) -> Part:
        """Of the encoder, where there is one."""
        return self._parts["encoder"]

    @property
    def decoder(self) -> Part:
        """Of the decoder, where there is one."""
        return self._parts["decoder"]

    def with_source(self, part: Any) -> Self:
        """The same with another part of the first stack."""
        return type(self)(**{**self._parts, next(iter(self._parts)): part})


@dataclass(frozen=True)
class Stack:
    """Size of one stack: L blocks of F neurons each."""

    blocks: int
    neurons: int


class Shape(ByStack[Stack]):
    """Size of every stack; what compression changes."""


@dataclass(frozen=True)
class Sizes:
    """What compression leaves as it is: numbers in a state (`width`), and tokens in the vocabulary."""

    width: int
    vocabulary: int


def row_of(values: dict[str, Any], where: str) -> Row:
    """The row of a model's family, from the values of its config.json; `where` names their origin in errors."""
    family = values.get("model_type")
    row = ROWS.get(str(family))
    if row is None:
        reason = REFUSED.get(str(family), f"its model_type is '{family}'")
        raise UserError(f"{where}: not a supported model: {reason}. Supported are {SUPPORTED}")
    for key, (refused, why) in row.refused.items():
        if (value := value_at(values, key)) == refused:
            raise UserError(f"{where}: config.json says {key}={value!r}, which is not supported: {why}")
    return row


def read_shape(values: dict[str, Any], where: str) -> Shape:
    """The full model's size, from the values of its config.json; `where` names their origin in errors."""
    row, stacks = row_of(values, where), {}
    for key in (row.first.width, row.num_heads, row.vocabulary):
        _count(values, row.first.key(key), where)
    for name, stack in row.stacks.items():
        numbers = []
        for name_of_key in (stack.num_blocks, stack.num_neurons):
            key, factor = name_of_key, 1
            if key in stack.otherwise and value_at(values, stack.key(key)) is None:
                key, factor = stack.otherwise[key]
            most = MOST_BLOCKS if name_of_key == stack.num_blocks else MOST
            numbers.append(factor * _count(values, stack.key(key), where, most))
        stacks[name] = Stack(*numbers)
    return Shape(**stacks)


def read_sizes(values: dict[str, Any], where: str) -> Sizes:
    """The full model's other sizes, likewise."""
    first, vocabulary = (row := row_of(values, where)).first, row.vocabulary
    return Sizes(_count(values, first.key(first.width), where), _count(values, first.key(vocabulary), where))


def _count(values: dict[str, Any], key: str, where: str, most: int = MOST) -> int:
    value = value_at(values, key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise UserError(
            f"{where}: config.json says {key}={value!r:.40}; expected a whole number above 0, at most {most}"
        )
    return value


@dataclass(frozen=True)
class StackSelection:
    """The part of a stack to keep: block indices, ascending, and each kept block's neuron indices.

    `neurons` None keeps all of every block; otherwise one ascending tuple per kept block, all of one length.
    """

    blocks: tuple[int, ...]
    neurons: tuple[tuple[int, ...], ...] | None = None


class Selection(ByStack[StackSelection]):
    """The part of a model to keep, stack by stack."""


@dataclass(frozen=True)
class WeightSlice:
    """Where one tensor of a partial PLM comes from: a tensor of the full model, some of its rows or columns."""

    name: str
    rows: tuple[int, ...] | None = None
    columns: tuple[int, ...] | None = None
