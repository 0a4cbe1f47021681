"""Tokenised examples, and the batches they are padded into.

Letters: B batch, S source, T target, D model, N tokens of all sources.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100  # the label at padded target positions
ALIGNED = 8  # a GPU's attention copies biases of other widths in every block; its matrix units prefer these too


@dataclass(frozen=True)
class Batch:
    """Padded token ids: source [B, S], its padding mask [B, S], and labels [B, T] with IGNORED where padded.

    `below` are states that the prompt does not change, [B, S, …], zero where padded; below a causal model's late prompt
    they cover the target too.
    """

    source: Tensor
    mask: Tensor
    labels: Tensor
    below: Tensor | None = None  # None: not computed yet
    factors: Tensor | None = None  # [B, P, D]: dropout's factors for the prompt's vectors
    places: Tensor | None = None  # [B]: where in the source a masked model answers; None: at its last token
    weights: Tensor | None = None  # [B]: what the examples' target tokens weigh in the loss; None: all the same

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All tensors of the batch, in the order of its attributes."""
        return self.source, self.mask, self.labels, self.below, self.factors, self.places, self.weights

    @cached_property
    def real(self) -> Tensor:
        """Indices [N] of the real target tokens in the flattened labels."""
        return (self.labels != IGNORED).flatten().nonzero()[:, 0]

    def unlabelled(self) -> "Batch":
        """A copy of the batch whose labels are all IGNORED, so that its loss is 0."""
        return replace(self, labels=torch.full_like(self.labels, IGNORED))

    def rows(self, rows: slice | list[int]) -> "Batch":
        """A batch of some of the examples, as wide as this one."""
        return self._with_each(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device, without waiting for it: `real` is computed before the copy."""
        return self._elsewhere(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """The same batch in pinned memory, from which a GPU copies asynchronously; as it is where there is no GPU."""
        return self._elsewhere(Tensor.pin_memory) if torch.cuda.is_available() else self

    def _elsewhere(self, copy: Callable[[Tensor], Tensor]) -> "Batch":
        copied = self._with_each(copy)
        vars(copied)["real"] = copy(self.real)
        return copied

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(*(None if tensor is None else change(tensor) for tensor in self.tensors))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class RaggedRows:
    """Token ids of many texts in one array, which saves memory: text i has ids[starts[i] : starts[i + 1]]."""

    ids: NDArray[Any]
    starts: NDArray[np.int64]  # followed by the end of the last row

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> "RaggedRows":
        """Store these lists of token ids, one per row."""
        lists = list(rows)
        return cls(np.fromiter(chain.from_iterable(lists), np.int32), np.cumsum([0, *map(len, lists)]))

    @classmethod
    def joined(cls, parts: Sequence["RaggedRows"]) -> "RaggedRows":
        """The rows of all parts, one after another."""
        ids = np.concatenate([np.empty(0, np.int32), *(part.ids for part in parts)])
        return cls(ids, np.cumsum([0, *(length for part in parts for length in part.lengths)]))

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


@dataclass(frozen=True)
class KeptStates:
    """Stored states that the prompt does not change; those of source i are rows[starts[i] : starts[i + 1]]."""

    rows: Tensor  # [N, D]
    starts: NDArray[np.int64]  # followed by the end of the last source

    def batch(self, indices: Sequence[int], width: int = 0) -> Tensor:
        """The states of the sources at `indices`, [B, S, D], padded with zeros to the longest, or to `width`."""
        parts = [self.rows[self.starts[index] : self.starts[index + 1]] for index in indices]
        states = pad_sequence(parts, batch_first=True)
        return pad(states, (0, 0, 0, max(0, width - states.shape[1])))  # a causal model's include the target


@dataclass(frozen=True)
class Encoded:
    """The token ids of examples, and how they are padded into batches.

    Padded widths are multiples of `multiple`: a target's, and a source's together with `before` prompt positions.
    """

    sources: RaggedRows
    targets: RaggedRows
    whole: NDArray[np.int32] | None = None  # lengths before cutting, [examples, 2]; None: nothing was cut
    pad: int = 0  # the id that sources are padded with
    below: KeptStates | None = None  # the sources' states that the prompt does not change, where they are stored
    multiple: int = 1
    before: int = 0
    blank: int | None = None  # the mask token's id in a masked model, which answers there; None: other models
    weights: NDArray[np.float32] | None = None  # of the examples in the loss; None: all weigh the same
    # In a mixture, the number of each task's examples, and how many of them an epoch takes; none: it takes all.
    mixed: tuple[tuple[int, int], ...] = ()

    @classmethod
    def joined(cls, parts: Sequence["Encoded"], counts: Sequence[int]) -> "Encoded":
        """The examples of all tasks of a mixture, one task after another; an epoch takes `counts` of them."""
        sources, targets = (RaggedRows.joined([getattr(one, side) for one in parts]) for side in ("sources", "targets"))
        mixed = tuple(zip(map(len, parts), counts, strict=True))
        return cls(sources, targets, pad=parts[0].pad, blank=parts[0].blank, mixed=mixed)

    @property
    def epoch(self) -> int:
        """How many examples an epoch takes."""
        return sum(count for _, count in self.mixed) or len(self)

    @cached_property
    def lengths(self) -> list[tuple[int, int]]:
        """The numbers of source and target tokens of each example."""
        return list(zip(self.sources.lengths, self.targets.lengths, strict=True))

    @cached_property
    def joined_starts(self) -> NDArray[np.int64]:
        """Where each example begins, and the last ends, in a causal model's input tokens: all but targets' last."""
        lengths = np.array(self.sources.lengths) + np.maximum(np.array(self.targets.lengths), 1) - 1
        return np.concatenate([[0], np.cumsum(lengths)])

    @cached_property
    def num_cut(self) -> tuple[int, int]:
        """How many sources and targets were longer than their limits."""
        assert self.whole is not None
        sources, targets = (self.whole > np.array(self.lengths)).sum(axis=0).tolist()
        return sources, targets

    def __len__(self) -> int:
        return len(self.sources)

    def taken(self, indices: Sequence[int]) -> "Encoded":
        """The token ids of the examples at `indices`, without stored states and weights."""
        sources, targets = (RaggedRows.of(rows[index] for index in indices) for rows in (self.sources, self.targets))
        return Encoded(sources, targets, pad=self.pad, multiple=self.multiple, before=self.before, blank=self.blank)

    def for_card(self, before: int, most: float = inf) -> "Encoded":
        """Pad to widths that GPU kernels prefer, with `before` prompt vectors, if that fits into `most` positions."""
        aligned = replace(self, multiple=ALIGNED, before=before)
        sources, targets = zip(*self.lengths, strict=True)
        padded = aligned._padded(max(sources) + before) - before + aligned._padded(max(targets)) - 1
        return aligned if padded <= most else self

    def batch(self, indices: Sequence[int]) -> Batch:
        """The examples at `indices`, padded to the longest of them."""
        _, width, target_width = self.padded_size(indices)
        source = padded([self.sources[index] for index in indices], self.pad, width)
        lengths = torch.tensor([self.lengths[index][0] for index in indices])
        mask = (torch.arange(width) < lengths[:, None]).long()
        labels = padded([self.targets[index] for index in indices], IGNORED, target_width)
        below = None if self.below is None else self.below.batch(indices, width)
        places = None if self.blank is None else (source == self.blank).long().argmax(1)
        weights = None if self.weights is None else torch.from_numpy(self.weights[[*indices]])
        return Batch(source, mask, labels, below, places=places, weights=weights)

    def padded_size(self, indices: Sequence[int]) -> tuple[int, int, int]:
        """(B, S, T) of the batch at `indices`."""
        sources, targets = zip(*(self.lengths[index] for index in indices), strict=True)
        width = self._padded(max(sources) + self.before) - self.before
        return len(sources), width, self._padded(max(targets))

    def _padded(self, positions: int) -> int:
        return -(-positions // self.multiple) * self.multiple


def padded(rows: list[list[int]], value: int, width: int) -> Tensor:
    """Rows of ids as one tensor of the given width, padded with `value`."""
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
