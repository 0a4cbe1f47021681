"""Keys and values of what a decoder-only model has read, so that more can follow without reading it again.

Letters: B batch, L positions, N positions of one pass, P prompt, S source, D model.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from fpt.backbones.calls import Call
from fpt.backbones.family import Family
from fpt.data.encoded import Batch
from fpt.prompts.modules import Prompt

MASK = "attention_mask"  # what transformers' blocks call their [B, 1, L, L] mask; None: all earlier positions are seen


class CachedBlocks:
    """Blocks of a decoder-only stack with the keys and values of the positions that have passed through them.

    All sequences of the batch end together: their padding is in front. transformers makes masks and rotary angles once,
    for the longest sequence possible; each pass takes its part of them.
    """

    def __init__(
        self,
        family: Family,
        body: Any,
        mask: Tensor,
        more: int,
        cache: DynamicCache,
        *,
        first: int = 0,
        last: int | None = None,
        done: int = 0,
    ) -> None:
        """Take blocks `first` to `last` (exclusive), which share a cache with any others of the stack.

        `mask` [B, L] is the padding mask of the first L positions, in any order; up to `more` can follow. The cache
        has `done` of them already.
        """
        self._family, self._body, self._cache = family, body, cache
        self._first, self._last, self._done = first, last, done
        self._mask = torch.cat([mask.sort(1).values, mask.new_ones(len(mask), more)], 1)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        self._calls: list[Call] = []

    def positions(self, number: int) -> Tensor:
        """The position ids [B, N] of the next `number` positions."""
        return self._positions[:, self._done : self._done + number]

    def positions_of(self, sees: Tensor) -> Tensor:
        """The position ids [B, N] of the positions that `branch` takes."""
        return self._positions[:, self._done + sees.sum(1) - 1]

    def read(self, states: Tensor) -> Tensor:
        """Pass the next positions' hidden states [B, N, D] through the blocks; their keys and values are cached."""
        start, number = self._done, states.shape[1]
        self._done += number
        part: Callable[[str, Any], Any] = partial(_window, start=start, end=self._done)
        if start and number > 1:  # of several, each would see all if there is no mask
            sees = torch.ones(number, number, dtype=torch.bool, device=states.device).tril()
            part = partial(_branch, done=start, sees=sees)
        return self._run(states, part, self._cache)

    def branch(self, states: Tensor, sees: Tensor) -> Tensor:
        """Pass hidden states [B, N, D] that follow what is cached through the blocks; the cache stays as it is.

        `sees` [N, N] says which of them attend to which: each to itself and to those before it in its own text. Several
        texts can thus follow side by side, or a single one, for which it is lower triangular.
        """
        return self._run(states, partial(_branch, done=self._done, sees=sees), ReadOnly(self._cache))

    def _run(self, states: Tensor, part: Callable[[str, Any], Any], cache: Any) -> Tensor:
        """Pass states through the blocks with some positions' part of the arguments."""
        if self._first == self._last:
            return states
        if not self._calls:
            room = states.new_zeros(1, 1, 1).expand(*self._mask.shape, states.shape[-1])
            self._calls = self._family.arguments(self._body, room, self._mask, self._positions)
        calls = _of_each(self._calls, part)
        return self._family.through(self._body, states, calls, self._first, self._last, past_key_values=cache)

    def take(self, going: Tensor) -> None:
        """Keep only these rows of the batch; the cache, which others share, is left to the caller."""
        self._mask, self._positions = self._mask[going], self._positions[going]
        self._calls = _of_each(self._calls, lambda _, value: _picked(value, going))


class Context:
    """A batch's source and prompt as a decoder-only model has read them, and the tokens that were added behind them.

    Blocks below the prompt cache the tokens, those above also the prompt's P vectors.

    Attributes:
        last: the stack's output [B, D] at the last position, from which the next token is predicted.
    """

    def __init__(
        self, family: Family, body: Any, cache: DynamicCache, lower: CachedBlocks, upper: CachedBlocks, states: Tensor
    ) -> None:
        """Read hidden states [B, N, D] with the upper blocks, which share a cache with the lower ones."""
        self._family, self._body, self._cache, self._lower, self._upper = family, body, cache, lower, upper
        self.last = family.normed(body, upper.read(states)[:, -1])

    @classmethod
    def of(cls, family: Family, body: Any, prompt: Prompt, batch: Batch, more: int) -> "Context":
        """Read the batch's source and prompt; texts of up to `more` tokens can follow."""
        cache = DynamicCache()
        blocks = partial(CachedBlocks, family, body, more=more, cache=cache)
        lower = blocks(mask=batch.mask, last=prompt.position)
        ids = padded_in_front(batch.source, batch.mask)
        states = lower.read(family.embedded(body, ids, lower.positions(ids.shape[1])))
        states, mask = prompt.joined(padded_behind(states, batch.mask), batch.mask, batch.mask)
        upper = blocks(mask=mask, first=prompt.position)
        return cls(family, body, cache, lower, upper, padded_in_front(states, mask))

    def add(self, tokens: Tensor) -> None:
        """Read one more token [B] of each text."""
        states = self._family.embedded(self._body, tokens[:, None], self._lower.positions(1))
        self.last = self._family.normed(self._body, self._upper.read(self._lower.read(states))[:, -1])

    def branch(self, ids: Tensor, sees: Tensor) -> Tensor:
        """The stack's output [B, N, D] for token ids [N] that follow in every row, as `CachedBlocks.branch` says."""
        ids = ids.expand(len(self.last), -1)
        states = self._family.embedded(self._body, ids, self._lower.positions_of(sees))
        states = self._upper.branch(self._lower.branch(states, sees), sees)
        return self._family.normed(self._body, states)

    def take(self, going: Tensor) -> None:
        """Keep only these rows of the batch."""
        self.last = self.last[going]
        self._lower.take(going)
        self._upper.take(going)
        self._cache.batch_select_indices(going)


class ReadOnly:
    """A cache that blocks read, and add nothing to."""

    def __init__(self, cache: DynamicCache) -> None:
        self._layers = cache.layers

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, L, …] of a block with those in the cache before them."""
        cached = self._layers[layer_idx]
        return torch.cat([cached.keys, keys], -2), torch.cat([cached.values, values], -2)


def _of_each(calls: list[Call], part: Callable[[str, Any], Any]) -> list[Call]:
    """A part of each block's arguments; what several blocks share is made once."""
    made: dict[tuple[str, int], Any] = {}
    for call in calls:
        for name, value in call.items():
            if (name, id(value)) not in made:
                made[name, id(value)] = part(name, value)
    return [{name: made[name, id(value)] for name, value in call.items()} for call in calls]


def _window(name: str, value: Any, start: int, end: int) -> Any:
    """The part of a block's argument for positions `start` to `end`, which attend to all positions before them."""
    if isinstance(value, tuple):
        return tuple(_window(name, part, start, end) for part in value)
    if not isinstance(value, Tensor):
        return value
    return value[:, :, start:end, :end] if name == MASK else value[:, start:end]


def _branch(name: str, value: Any, done: int, sees: Tensor) -> Any:
    """The part of a block's argument for positions that follow `done` others and attend to each other as in `sees`."""
    places = done + sees.sum(1) - 1
    if isinstance(value, tuple):
        return tuple(_branch(name, part, done, sees) for part in value)
    if name == MASK and value is None:
        return torch.cat([sees.new_ones(len(sees), done), sees], 1)[None, None]
    if not isinstance(value, Tensor):
        return value
    if name != MASK:
        return value[:, places]
    rows, unseen = value[:, :, places], False if value.dtype == torch.bool else torch.finfo(value.dtype).min
    return torch.cat([rows[..., :done], rows[..., places].masked_fill(~sees, unseen)], -1)


def _picked(value: Any, going: Tensor) -> Any:
    """The rows of a block's argument that stay; an argument that all rows share stays as it is."""
    if isinstance(value, tuple):
        return tuple(_picked(part, going) for part in value)
    return value[going] if isinstance(value, Tensor) and len(value) > 1 else value


def padded_in_front(rows: Tensor, mask: Tensor) -> Tensor:
    """Move the padding of rows [B, L, …], wherever the mask [B, L] has it, to the front."""
    return at_places(rows, mask.argsort(dim=1, stable=True))


def padded_behind(rows: Tensor, mask: Tensor) -> Tensor:
    """Move the padding of rows [B, L, …] from the front to their ends, where the mask [B, L] has it."""
    length = mask.shape[1]
    places = torch.arange(length, device=mask.device) + (length - mask.sum(1, keepdim=True))
    return at_places(rows, places.clamp(max=length - 1))


def at_places(rows: Tensor, places: Tensor) -> Tensor:
    """The entries of rows [B, …] or [B, …, D] at places [B, L]."""
    if rows.ndim == 2:
        return rows.gather(1, places)
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))
