"""A model's shape, stack by stack, as config.json gives it, and the part of a model to keep."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

from packaging.version import Version

from fpt.backbones.family_table import FAMILY_TABLE, REFUSED, SUPPORTED, FamilyRow, value_at
from fpt.errors import UserError

MOST_BLOCKS, MOST = 10_000, 100_000_000  # the largest number of blocks, and the largest other size, that are accepted
STACKS = ("encoder", "decoder")  # a model has one of them or both
Part = TypeVar("Part")


class ByStack(dict[str, Part]):
    """A value for each of a model's stacks, by name, in the order in which hidden states pass through them."""

    def __init__(self, encoder: Part | None = None, decoder: Part | None = None) -> None:
        """Hold a value for each stack that the model has; None: it does not have that one."""
        pairs = zip(STACKS, (encoder, decoder), strict=True)
        super().__init__({name: part for name, part in pairs if part is not None})

    def __hash__(self) -> int:  # type: ignore[override]  # a shape is never changed
        return hash(tuple(self.items()))

    @property
    def source(self) -> Part:
        """The value of the first stack, which reads the source, and which a prompt enters."""
        return next(iter(self.values()))

    @property
    def encoder(self) -> Part:
        """The value of the encoder, where there is one."""
        return self["encoder"]

    @property
    def decoder(self) -> Part:
        """The value of the decoder, where there is one."""
        return self["decoder"]


@dataclass(frozen=True)
class Stack:
    """The size of a stack: its blocks, and the FFN neurons of each."""

    blocks: int
    neurons: int


class Shape(ByStack[Stack]):
    """The sizes of a model's stacks, which compression changes."""


@dataclass(frozen=True)
class Sizes:
    """Sizes that compression leaves as they are: the model width D, and the number of tokens."""

    width: int
    vocabulary: int


def row_of(values: dict[str, Any], where: str) -> FamilyRow:
    """The family table's row for a config.json's values; `where` names their origin in errors."""
    family = values.get("model_type")
    row = FAMILY_TABLE.get(str(family))
    if row is None:
        reason = REFUSED.get(str(family), f"its model_type is '{family}'")
        raise UserError(f"{where}: not a supported model: {reason}. Supported are {SUPPORTED}")
    if row.transformers and Version(version("transformers")) < Version(row.transformers):
        raise UserError(
            f"{where}: model_type '{family}' needs transformers {row.transformers} or later, and"
            f" {version('transformers')} is installed: pip install 'transformers>={row.transformers}'"
        )
    for key, (refused, why) in row.refused.items():
        if (value := value_at(values, key)) == refused:
            raise UserError(f"{where}: config.json says {key}={value!r}, which is not supported: {why}")
    return row


def read_shape(values: dict[str, Any], where: str) -> Shape:
    """The full model's shape, from its config.json's values; `where` names their origin in errors."""
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
    """The full model's other sizes, from its config.json's values; `where` names their origin in errors."""
    first, vocabulary = (row := row_of(values, where)).first, row.vocabulary
    return Sizes(_count(values, first.key(first.width), where), _count(values, first.key(vocabulary), where))


def _count(values: dict[str, Any], key: str, where: str, most: int = MOST) -> int:
    value = value_at(values, key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        expected = f"expected a whole number above 0, at most {most}"
        raise UserError(f"{where}: config.json says {key}={value!r:.40}; {expected}")
    return value


@dataclass(frozen=True)
class StackSelection:
    """The part of a stack to keep: block indices, ascending, and each kept block's neuron indices.

    `neurons` is None to keep all neurons; otherwise one ascending tuple per kept block, all of equal length.
    """

    blocks: tuple[int, ...]
    neurons: tuple[tuple[int, ...], ...] | None = None


class Selection(ByStack[StackSelection]):
    """The part of a model to keep, stack by stack."""


@dataclass(frozen=True)
class WeightSlice:
    """Where a partial PLM's tensor comes from: a tensor of the full model, or some of its rows or columns."""

    name: str
    rows: tuple[int, ...] | None = None
    columns: tuple[int, ...] | None = None
