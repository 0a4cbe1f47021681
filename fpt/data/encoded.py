"""Tokenised examples, one after another in flat arrays, and the batches they are padded into.

Letters: B batch, S source, T target, D model, N tokens of all sources.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100  # label of a padded target position


@dataclass(frozen=True)
class Batch:
    """Padded token ids: source [B, S], mask [B, S], labels [B, T] with IGNORED where padded.

    `below` are the states [B, S, D] below a late prompt, zero where padded; None: not computed yet.
    """

    source: Tensor
    mask: Tensor
    labels: Tensor
    below: Tensor | None = None

    def unlabelled(self) -> "Batch":
        """The same batch without a target token, whose loss is 0."""
        return replace(self, labels=torch.full_like(self.labels, IGNORED))

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        below = None if self.below is None else self.below.to(device)
        return Batch(self.source.to(device), self.mask.to(device), self.labels.to(device), below)


class Rows:
    """Lists of token ids, one after another in one array: row i is ids[starts[i] : starts[i + 1]]."""

    def __init__(self, ids: NDArray[np.int32], starts: NDArray[np.int64]) -> None:
        """Of all ids, and of the rows' starts with the end of the last behind them."""
        self.ids, self.starts = ids, starts

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> "Rows":
        """The same lists in one array."""
        writer = RowsWriter()
        for row in rows:
            writer.add(row)
        return writer.rows

    @property
    def lengths(self) -> list[int]:
        """Each row's number of ids."""
        lengths: list[int] = np.diff(self.starts).tolist()
        return lengths

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[list[int]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> list[int]:
        row: list[int] = self.ids[self.starts[index] : self.starts[index + 1]].tolist()
        return row


class RowsWriter:
    """Rows that grow at the end."""

    def __init__(self) -> None:
        self._ids, self._starts = array("i"), array("q", [0])

    def add(self, row: Sequence[int]) -> None:
        """Append a row."""
        self._ids.extend(row)
        self._starts.append(len(self._ids))

    @property
    def rows(self) -> Rows:
        """All that were added."""
        return Rows(np.array(self._ids, np.int32), np.array(self._starts, np.int64))


class KeptStates:
    """A state for every source token, of the layer below a late prompt: source i's are rows[starts[i] : starts[i + 1]].

    They may be in a file, of which a batch reads what it needs.
    """

    def __init__(self, rows: Tensor, starts: NDArray[np.int64]) -> None:
        """Of all states [N, D], and of where each source's start, with the end of the last behind them."""
        self.rows, self._starts = rows, starts

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Those of the sources at `indices`, [B, S, D], zero behind the shorter ones' ends."""
        parts = [self.rows[self._starts[index] : self._starts[index + 1]] for index in indices]
        return pad_sequence(parts, batch_first=True)


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples.

    Attributes:
        sources: their token ids.
        targets: likewise.
        whole: numbers of tokens before cutting, [examples, 2]: sources and targets; None: nothing was cut.
        lost_answers: of the examples whose source was cut, how many have no gold left in it that was there before.
        pad: what a source is padded with.
        below: the sources' states below a late prompt, where they are kept.
    """

    sources: Rows
    targets: Rows
    whole: NDArray[np.int32] | None = None
    lost_answers: int = 0
    pad: int = 0
    below: KeptStates | None = None

    @cached_property
    def lengths(self) -> list[tuple[int, int]]:
        """Each example's numbers of source and target tokens."""
        return list(zip(self.sources.lengths, self.targets.lengths, strict=True))

    @cached_property
    def num_cut(self) -> tuple[int, int]:
        """How many sources and targets were longer than their limits."""
        if self.whole is None:
            return 0, 0
        sources, targets = (self.whole > np.array(self.lengths)).sum(axis=0).tolist()
        return sources, targets

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The examples at `indices`, padded to the longest of them."""
        source = _pad([self.sources[index] for index in indices], self.pad)
        lengths = torch.tensor([self.lengths[index][0] for index in indices])
        mask = (torch.arange(source.shape[1]) < lengths[:, None]).long()
        below = None if self.below is None else self.below.batch(indices)
        return Batch(source, mask, _pad([self.targets[index] for index in indices], IGNORED), below)

    def padded_size(self, indices: Sequence[int]) -> tuple[int, int, int]:
        """(B, S, T) of the batch at `indices`."""
        sizes = [self.lengths[index] for index in indices]
        return len(sizes), max(source for source, _ in sizes), max(target for _, target in sizes)


def _pad(rows: list[list[int]], value: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
