"""Makes the batches of each update; on a GPU those of the next update are made while it computes."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from fpt.data.batches import UpdateOrder, micro_batches
from fpt.data.encoded import Batch, Encoded
from fpt.devices import distributed


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
            # Every process has equally many batches, as sharded weights need processes to run in step.
            batches.append(batch if part else batch.unlabelled())
        sources, targets = zip(*(data.lengths[index] for index in indices), strict=True)
        counted = sum(targets) if data.weights is None else float(np.dot(data.weights[indices], targets))
        return cls(batches, counted, sum(sources) + sum(targets))

    def pinned(self) -> "Share":
        """The share in pinned memory, from which a GPU copies asynchronously."""
        return replace(self, batches=[batch.pinned() for batch in self.batches])


class Supply:
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
        self._next: tuple[tuple[int, int | None], Future[Share]] | None = None

    def share(self, update: int, micro_batch: int | None) -> Share:
        """The share of the update that comes after `update` updates."""
        if self._pool is None:
            return self._make(update, micro_batch)
        wanted, made = (update, micro_batch), self._next
        # The order caches its epoch and chunk, so that only the thread may use it.
        share = made[1] if made and made[0] == wanted else self._pool.submit(self._pinned, *wanted)
        self._next = (update + 1, micro_batch), self._pool.submit(self._pinned, update + 1, micro_batch)
        return share.result()

    def _make(self, update: int, micro_batch: int | None) -> Share:
        return Share.of(self._data, self._order.indices(update), micro_batch, lambda some: self._dropout(some, update))

    def _pinned(self, update: int, micro_batch: int | None) -> Share:
        return self._make(update, micro_batch).pinned()

    def __enter__(self) -> "Supply":
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread without waiting for the share that it is making."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
