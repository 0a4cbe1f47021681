"""Puts examples of similar length into batches, in an order that is a function of (seed, update)."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fpt.data.encoded import Batch, Encoded
from fpt.devices import distributed
from fpt.random_streams import stream

BUCKET = 32  # the examples of so many updates are sorted by length together, unless `train.bucket` says otherwise


def batches_by_length(data: Encoded, size: int) -> list[list[int]]:
    """Batches of up to `size` that hold every example once, longest first; for passes whose order does not matter."""
    order = sorted(range(len(data)), key=lambda index: (data.lengths[index], -index), reverse=True)
    return [order[start : start + size] for start in range(0, len(order), size)]


def in_turn(batches: list[list[int]], process: int, processes: int) -> list[list[int]]:
    """One process's batches, taken in turn; every process has equally many, of which the last may be empty."""
    own = batches[process::processes]
    return own if process < len(batches) % processes or len(batches) % processes == 0 else [*own, []]


def micro_batches(indices: list[int], size: int | None, *, process: int = 0, processes: int = 1) -> list[list[int]]:
    """One process's share of an update's examples, in micro-batches of at most `size`.

    Every process has equally many, of which the last may be empty, as sharded weights need processes to run in step.
    Examples are dealt out in turn, so that every process has short and long ones.
    """
    size = size or len(indices)
    share, largest = indices[process::processes], -(-len(indices) // processes)
    return [share[start : start + size] for start in range(0, largest, size)]


class UpdateOrder:
    """The examples that each update trains on, a pure function of (seed, update).

    Epochs follow each other without a break, each in an order of its own. The examples of up to `bucket` updates
    are sorted by length and cut into batches, so that a batch holds little padding; the batches are then shuffled.
    """

    def __init__(self, data: Encoded, *, batch_size: int, seed: int, bucket: int | None = None) -> None:
        self._data, self._size, self._seed = data, batch_size, seed
        # At most an epoch, or sorting would put copies of an example from several epochs into one batch.
        self._bucket_size = max(1, min(bucket or BUCKET, data.epoch // batch_size))
        self._bucket: tuple[int, list[list[int]]] = (-1, [])

    def indices(self, update: int) -> list[int]:
        """The example indices of an update, sorted by length."""
        number, position = divmod(update, self._bucket_size)
        if self._bucket[0] != number:
            self._bucket = (number, self._batches(number))
        return self._bucket[1][position]

    def _batches(self, number: int) -> list[list[int]]:
        count = self._bucket_size * self._size
        drawn: list[int] = []
        for epoch, part in enumerate(self._drawn(number * count, count)):
            # Each epoch is sorted by itself, or copies of an example would meet; every second one in reverse, so that
            # a batch that spans two epochs holds similar lengths.
            drawn += sorted(part, key=lambda index: self._data.lengths[index], reverse=epoch % 2 == 1)
        batches = [drawn[start : start + self._size] for start in range(0, count, self._size)]
        shuffled = torch.randperm(self._bucket_size, generator=stream(self._seed, "batches", number)).tolist()
        return [batches[index] for index in shuffled]

    def _drawn(self, start: int, count: int) -> Iterator[list[int]]:
        """`count` examples from position `start` in the sequence of all epochs, in one list for each epoch touched."""
        for epoch, part in _epochs(self._data.epoch, start, count):
            yield in_epoch(self._data, self._seed, epoch)[part].tolist()


def in_epoch(data: Encoded, seed: int, epoch: int) -> Tensor:
    """The indices of the examples that an epoch trains on, in its order.

    A mixture's epoch takes some of each task's examples, which have epochs of their own.
    """
    order, first, drawn = torch.randperm(data.epoch, generator=stream(seed, "data", epoch)), 0, list[Tensor]()
    for number, (size, count) in enumerate(data.mixed):
        for own, part in _epochs(size, epoch * count, count):
            drawn.append(first + torch.randperm(size, generator=stream(seed, f"data of task {number}", own))[part])
        first += size
    return torch.cat(drawn)[order] if drawn else order


def _epochs(total: int, start: int, count: int) -> Iterator[tuple[int, slice]]:
    """The epochs of `total` examples in which `count` positions lie, from `start` on, and the part of each."""
    for epoch in range(start // total, (start + count - 1) // total + 1):
        yield epoch, slice(max(start - epoch * total, 0), start + count - epoch * total)


@dataclass(frozen=True)
class Share:
    """One process's part of an update: its batches, and the token counts of the whole update."""

    batches: list[Batch]
    tokens: float  # target tokens, over which the loss is averaged, each counted by its example's weight if it has one
    all_tokens: int  # source and target tokens

    @classmethod
    def of(
        cls,
        data: Encoded,
        indices: list[int],
        micro_batch: int | None = None,
        dropout: Callable[[Sequence[int]], Tensor | None] = lambda _: None,
    ) -> "Share":
        """One process's part of the examples at `indices`, in batches of at most `micro_batch`; None: in one batch."""
        batches = []
        for part in micro_batches(indices, micro_batch, process=distributed.rank(), processes=distributed.size()):
            some = part or indices[:1]
            batch = replace(data.batch(some), factors=dropout(some))
            batches.append(batch if part else batch.unlabelled())
        sources, targets = zip(*(data.lengths[index] for index in indices), strict=True)
        counted = sum(targets) if data.weights is None else float(np.dot(data.weights[indices], targets))
        return cls(batches, counted, sum(sources) + sum(targets))

    def pinned(self) -> "Share":
        """The share in pinned memory, from which a GPU copies asynchronously."""
        return replace(self, batches=[batch.pinned() for batch in self.batches])


class Supply(AbstractContextManager["Supply"]):
    """Gives one update's share after another."""

    def __init__(
        self,
        data: Encoded,
        order: UpdateOrder,
        dropout: Callable[[Sequence[int], int], Tensor | None] = lambda *_: None,
        *,
        for_card: bool,
    ) -> None:
        """`dropout` gives the factors [B, P, D] for examples in an update; None: the prompt has no dropout.

        With `for_card` the next update's share is made in a thread, in pinned memory; a CPU would gain nothing by it.
        """
        self._data, self._order, self._dropout = data, order, dropout
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fpt-batches") if for_card else None
        self._ahead: dict[tuple[int, int | None], Future[Share]] = {}

    def share(self, update: int, micro_batch: int | None) -> Share:
        """The share of the update that comes after `update` updates."""
        if self._pool is None:
            return self._make(update, micro_batch)
        # The order caches its bucket, so that only the thread may use it.
        share = self._ahead.get((update, micro_batch)) or self._pool.submit(self._make, update, micro_batch)
        self._ahead = {(update + 1, micro_batch): self._pool.submit(self._make, update + 1, micro_batch)}
        return share.result()

    def _make(self, update: int, micro_batch: int | None) -> Share:
        indices = self._order.indices(update)
        share = Share.of(self._data, indices, micro_batch, lambda some: self._dropout(some, update))
        return share if self._pool is None else share.pinned()

    def __exit__(self, *_: object) -> None:
        """End the thread without waiting for the share that it is making."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
