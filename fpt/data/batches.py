"""Puts examples of similar length into batches, in an order that is a function of (seed, update)."""

from collections.abc import Iterator

import torch

from fpt.data.encoded import Encoded
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
        self._bucket_size = max(1, min(bucket or BUCKET, len(data) // batch_size))
        self._bucket: tuple[int, list[list[int]]] = (-1, [])
        self._epoch: tuple[int, list[int]] = (-1, [])

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
        total = len(self._data)
        for epoch in range(start // total, (start + count - 1) // total + 1):
            if self._epoch[0] != epoch:
                order = torch.randperm(total, generator=stream(self._seed, "data", epoch)).tolist()
                self._epoch = (epoch, order)
            yield self._epoch[1][max(start - epoch * total, 0) : start + count - epoch * total]
