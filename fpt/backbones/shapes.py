"""How large a model is, and which part of it to keep.

Letters: L blocks of a stack, F FFN neurons of a block.
"""

from dataclasses import dataclass

STACKS = ("encoder", "decoder")


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
class WeightSlice:
    """Where one tensor of a partial PLM comes from: a tensor on disk, some of its rows or columns."""

    name: str
    rows: tuple[int, ...] | None = None
    columns: tuple[int, ...] | None = None
