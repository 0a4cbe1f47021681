"""Tokenise once, order by (seed, update), batch by length: no example is padded beyond its neighbours.

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
from transformers import PreTrainedTokenizerBase

from fpt.metrics import normalise
from fpt.streams import stream
from fpt.tasks.task import Example
from fpt.tracking import Watch

IGNORED = -100  # label of a padded target position
CHUNK = 32  # updates whose examples are sorted by length together
PART = 2000  # examples that are tokenised at once


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
        writer = _Writer()
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


class _Writer:
    """Rows that grow at the end."""

    def __init__(self) -> None:
        self._ids, self._starts = array("i"), array("q", [0])

    def add(self, row: Sequence[int]) -> None:
        self._ids.extend(row)
        self._starts.append(len(self._ids))

    @property
    def rows(self) -> Rows:
        return Rows(np.array(self._ids, np.int32), np.array(self._starts, np.int64))


class States:
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
    below: States | None = None

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


def encode(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    source_length: int,
    target_length: int,
    find_answers: bool = False,
    watch: Watch = lambda parts, _: parts,
) -> Encoded:
    """Token ids of every example, closing </s> kept where they are cut to the limits.

    A source gives up its spare part from that part's end, and only then the end of the rest; a target its end.

    Args:
        examples: what to tokenise.
        tokenizer: the model's own.
        source_length: limit in tokens.
        target_length: likewise.
        find_answers: whether golds are pieces of their source, so that a cut may lose them.
        watch: shows how far this is.
    """
    sources, targets = _Writer(), _Writer()
    whole = np.empty((len(examples), 2), np.int32)
    lost = 0
    parts = [list(range(start, min(start + PART, len(examples)))) for start in range(0, len(examples), PART)]
    for indices in watch(parts, "tokenising"):
        part = [examples[index] for index in indices]
        sources_of_part = _tokenise([example.source for example in part], tokenizer)
        for index, example, ids in zip(indices, part, sources_of_part, strict=True):
            whole[index, 0] = len(ids)
            if len(ids) > source_length:
                ids = _cut_source(example, ids, tokenizer, source_length)
                lost += find_answers and _is_lost(example, ids, tokenizer)
            sources.add(ids)
        distinct = list(dict.fromkeys(example.target for example in part))
        ids_of = dict(zip(distinct, _tokenise(distinct, tokenizer), strict=True))
        for index, example in zip(indices, part, strict=True):
            whole[index, 1] = len(ids_of[example.target])
            targets.add(_cut(ids_of[example.target], target_length))
    return Encoded(sources.rows, targets.rows, whole, lost, pad=int(tokenizer.pad_token_id or 0))


def batches_by_length(data: Encoded, size: int) -> list[list[int]]:
    """Every example once, longest first, in batches of up to `size`; for passes whose order does not matter."""
    order = sorted(range(len(data)), key=lambda index: (data.lengths[index], -index), reverse=True)
    return [order[start : start + size] for start in range(0, len(order), size)]


def in_turn(batches: list[list[int]], process: int, processes: int) -> list[list[int]]:
    """One process's batches, as many as any other's; where there are not enough, the last is empty."""
    own = batches[process::processes]
    return own if process < len(batches) % processes or len(batches) % processes == 0 else [*own, []]


def micro_batches(indices: list[int], size: int | None, *, process: int = 0, processes: int = 1) -> list[list[int]]:
    """One process's share of an update's examples, in parts of at most `size`.

    Every process has as many parts, of which its last may be empty: a model whose weights are shared out runs in step.
    Shares are taken in turn, so that each has short and long examples.
    """
    size = size or len(indices)
    share, largest = indices[process::processes], -(-len(indices) // processes)
    return [share[start : start + size] for start in range(0, largest, size)]


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


def _tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase, *, closed: bool = True) -> list[list[int]]:
    """Token ids of each text, `closed` with </s>."""
    found = tokenizer(texts, add_special_tokens=closed, return_attention_mask=False, verbose=False)
    ids: list[list[int]] = found["input_ids"]
    return ids


def _cut_source(example: Example, ids: list[int], tokenizer: PreTrainedTokenizerBase, limit: int) -> list[int]:
    """The ids without as much of the end of the spare part as it takes, or of the whole where that is not enough."""
    start, end = example.spare
    if start == end:
        return _cut(ids, limit)
    (before,) = _tokenise([example.source[:start]], tokenizer, closed=False)
    (after,) = _tokenise([example.source[end:]], tokenizer)
    room = limit - len(after)
    return [*ids[:room], *after] if room >= len(before) else _cut([*before, *after], limit)


def _is_lost(example: Example, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the source had a gold in it and the cut one has none."""
    golds = {gold: f" {normalise(gold)} " for gold in example.golds if normalise(gold)}
    if not any(gold in example.source for gold in golds):
        return False
    left = f" {normalise(tokenizer.decode(ids, skip_special_tokens=True))} "
    return not any(gold in left for gold in golds.values())


def _cut(ids: list[int], limit: int) -> list[int]:
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def _pad(rows: list[list[int]], value: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
