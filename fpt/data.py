"""Tokenise once, order by (seed, update), batch by length: no example is padded beyond its neighbours.

Letters: B batch, S source, T target.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fpt.streams import stream
from fpt.tasks.task import Example

IGNORED = -100  # label of a padded target position
CHUNK = 32  # updates whose examples are sorted by length together


@dataclass(frozen=True)
class Batch:
    """Padded token ids: source [B, S], mask [B, S], labels [B, T] with IGNORED where padded."""

    source: Tensor
    mask: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        return Batch(self.source.to(device), self.mask.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples, and how many sources and targets were cut to the limits."""

    sources: list[list[int]]
    targets: list[list[int]]
    cut_sources: int = 0
    cut_targets: int = 0
    pad: int = 0
    lengths: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        pairs = zip(self.sources, self.targets, strict=True)
        object.__setattr__(self, "lengths", [(len(source), len(target)) for source, target in pairs])

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The examples at `indices`, padded to the longest of them."""
        source = _pad([self.sources[index] for index in indices], self.pad)
        lengths = torch.tensor([len(self.sources[index]) for index in indices])
        mask = (torch.arange(source.shape[1]) < lengths[:, None]).long()
        return Batch(source, mask, _pad([self.targets[index] for index in indices], IGNORED))

    def padded_size(self, indices: Sequence[int]) -> tuple[int, int, int]:
        """(B, S, T) of the batch at `indices`."""
        sizes = [self.lengths[index] for index in indices]
        return len(sizes), max(source for source, _ in sizes), max(target for _, target in sizes)


def encode(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, source_length: int, target_length: int
) -> Encoded:
    """Token ids of every example, cut at the end to the limits, closing </s> kept."""
    sources = _tokenise([example.source for example in examples], tokenizer)
    targets = _tokenise([example.target for example in examples], tokenizer)
    return Encoded(
        [_cut(ids, source_length) for ids in sources],
        [_cut(ids, target_length) for ids in targets],
        cut_sources=sum(len(ids) > source_length for ids in sources),
        cut_targets=sum(len(ids) > target_length for ids in targets),
        pad=int(tokenizer.pad_token_id or 0),
    )


def batches_by_length(data: Encoded, size: int) -> list[list[int]]:
    """Every example once, longest first, in batches of up to `size`; for passes whose order does not matter."""
    order = sorted(range(len(data)), key=lambda index: (data.lengths[index], -index), reverse=True)
    return [order[start : start + size] for start in range(0, len(order), size)]


class Order:
    """Which examples an update trains on: a pure function of (seed, update).

    Epochs follow each other without a break, each in an order of its own. The examples of up to CHUNK updates
    are sorted by length and cut into batches, so that a batch holds little padding; the batches are then shuffled.
    """

    def __init__(self, data: Encoded, *, batch_size: int, seed: int) -> None:
        """An order over all of `data`."""
        self._data, self._size, self._seed = data, batch_size, seed
        # At most an epoch: sorting would bring the same example of several epochs into one batch.
        self._chunk_size = max(1, min(CHUNK, len(data) // batch_size))
        self._chunk: tuple[int, list[list[int]]] = (-1, [])
        self._epoch: tuple[int, list[int]] = (-1, [])

    def indices(self, update: int) -> list[int]:
        """The example indices of an update, sorted by length."""
        number, position = divmod(update, self._chunk_size)
        if self._chunk[0] != number:
            self._chunk = (number, self._batches(number))
        return self._chunk[1][position]

    def micro_batches(self, update: int, size: int | None) -> list[list[int]]:
        """The update's examples in parts of at most `size`."""
        indices = self.indices(update)
        size = size or len(indices)
        return [indices[start : start + size] for start in range(0, len(indices), size)]

    def _batches(self, chunk: int) -> list[list[int]]:
        count = self._chunk_size * self._size
        drawn: list[int] = []
        for number, part in enumerate(self._drawn(chunk * count, count)):
            # Epoch by epoch, or an example's two copies would meet; down after up, so that lengths meet at the seam.
            drawn += sorted(part, key=lambda index: self._data.lengths[index], reverse=number % 2 == 1)
        batches = [drawn[start : start + self._size] for start in range(0, count, self._size)]
        shuffled = torch.randperm(self._chunk_size, generator=stream(self._seed, "batches", chunk)).tolist()
        return [batches[index] for index in shuffled]

    def _drawn(self, start: int, count: int) -> Iterator[list[int]]:
        """`count` examples from position `start` of all epochs in a row, one list for each epoch touched."""
        total = len(self._data)
        for epoch in range(start // total, (start + count - 1) // total + 1):
            if self._epoch[0] != epoch:
                order = torch.randperm(total, generator=stream(self._seed, "data", epoch)).tolist()
                self._epoch = (epoch, order)
            yield self._epoch[1][max(start - epoch * total, 0) : start + count - epoch * total]


def _tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=True, verbose=False)["input_ids"]
    return ids


def _cut(ids: list[int], limit: int) -> list[int]:
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def _pad(rows: list[list[int]], value: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
