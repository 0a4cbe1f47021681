"""What an update computes on: its batches, and on a card the next update's too, made while the card computes."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from torch import Tensor

from fpt.data.batches import UpdateOrder, micro_batches
from fpt.data.encoded import Batch, Encoded
from fpt.devices import distributed


@dataclass(frozen=True)
class Share:
    """One process's part of an update: its batches, and the tokens of all processes' examples together."""

    batches: list[Batch]
    tokens: int  # of the targets, over which the loss is a mean
    all_tokens: int  # the sources' too

    @classmethod
    def of(
        cls,
        data: Encoded,
        indices: list[int],
        micro_batch: int | None = None,
        dropout: Callable[[Sequence[int]], Tensor | None] = lambda _: None,
    ) -> "Share":
        """One process's part of the examples at `indices`, in batches of at most `micro_batch`; None: all at once."""
        batches = []
        for part in micro_batches(indices, micro_batch, process=distributed.rank(), processes=distributed.size()):
            some = part or indices[:1]
            batch = replace(data.batch(some), factors=dropout(some))
            # Every process has as many batches, for a model whose weights are shared out runs in step.
            batches.append(batch if part else batch.unlabelled())
        sources, targets = zip(*(data.lengths[index] for index in indices), strict=True)
        return cls(batches, sum(targets), sum(sources) + sum(targets))

    def pinned(self) -> "Share":
        """The share in memory from which a card copies without being waited for."""
        return replace(self, batches=[batch.pinned() for batch in self.batches])


class Supply:
    """The shares of one update after another."""

    def __init__(
        self,
        data: Encoded,
        order: UpdateOrder,
        dropout: Callable[[Sequence[int], int], Tensor | None] = lambda *_: None,
        *,
        for_card: bool,
    ) -> None:
        """`dropout` gives an update's factors [B, P, D] for examples; None: there is none.

        With `for_card` the next update's share is made in a thread, pinned; a CPU would lose the time it gained.
        """
        self._data, self._order, self._dropout = data, order, dropout
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fpt-batches") if for_card else None
        self._next: tuple[tuple[int, int | None], Future[Share]] | None = None

    def share(self, update: int, micro_batch: int | None) -> Share:
        """The share of the update that follows `update`."""
        if self._pool is None:
            return self._make(update, micro_batch)
        wanted, made = (update, micro_batch), self._next
        # The order has a memory of its own, so that only the thread may ask it.
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
        """End the thread without waiting for what it was making."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
