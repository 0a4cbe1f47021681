"""Outputs that grow token by token: which go on, and the positions that a stack without an encoder reads meanwhile.

Letters: B batch, L positions, M positions that there can be, D model.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig

from fpt.backbones.family import Family

LEAVING = 0.75  # a batch drops the examples that have ended when no more than this share has not: dropping copies


class Outputs:
    """A batch's outputs as they grow; those that have ended leave the batch now and then."""

    def __init__(self, family: Family, config: PreTrainedConfig, mask: Tensor, most: int, start: int) -> None:
        """Begin each with the start token; up to `most` tokens follow it."""
        self._pad = family.pad_token(config)
        self._ends = torch.tensor(family.end_tokens(config), device=mask.device)
        self._ids = mask.new_full((len(mask), most + 1), self._pad, dtype=torch.long)
        self._ids[:, 0] = start
        self._rows = torch.arange(len(mask), device=mask.device)
        self._ended = torch.zeros_like(mask[:, 0], dtype=torch.bool)
        self._place, self._left = 0, len(mask)

    @property
    def ids(self) -> Tensor:
        """All outputs so far [B, ≤ most + 1]."""
        return self._ids[:, : self._place + 1]

    @property
    def last(self) -> Tensor:
        """The last token of each output that is still in the batch."""
        return self._ids[self._rows, self._place]

    @property
    def are_ended(self) -> bool:
        """Whether every output has ended."""
        return not self._left

    @property
    def are_full(self) -> bool:
        """Whether there is no room for another token."""
        return self._place + 1 == self._ids.shape[1]

    def add(self, tokens: Tensor) -> None:
        """Append a token to each output that is still in the batch."""
        self._place += 1
        self._ids[self._rows, self._place] = tokens.masked_fill(self._ended, self._pad)
        self._ended = self._ended | torch.isin(tokens, self._ends)
        self._left = len(self._ended) - int(self._ended.sum())

    def leave(self) -> Tensor | None:
        """Drop the outputs that have ended, if they are many; returns the rows that stay, None: all."""
        if self._left > LEAVING * len(self._ended):
            return None
        going = (~self._ended).nonzero()[:, 0]
        self._rows, self._ended = self._rows[going], self._ended[going]
        return going


class Line:
    """Positions that go through some of a stack's blocks as they become more, padded in front so that all end alike.

    Masks and angles are the library's for all positions that there can be, of which each step takes its own.
    """

    def __init__(self, family: Family, body: Any, mask: Tensor, more: int) -> None:
        """For what has the mask [B, L], padded at its ends, and `more` positions to come."""
        self._family, self._body, self._done = family, body, 0
        self._mask = torch.cat([mask.flip(1), mask.new_ones(len(mask), more)], 1)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        self._calls: list[dict[str, Any]] | None = None

    def positions(self, number: int) -> Tensor:
        """The numbers of the next positions, [B, number]."""
        return self._positions[:, self._done : self._done + number]

    def through(self, states: Tensor, first: int, last: int | None, cache: DynamicCache) -> Tensor:
        """The next positions' states [B, number, D] after a part of the blocks."""
        if self._calls is None:
            room = states.new_zeros(1, 1, 1).expand(*self._mask.shape, states.shape[-1])
            self._calls = self._family.arguments(self._body, room, self._mask, self._positions)
        start, self._done = self._done, self._done + states.shape[1]
        calls = [{name: _window(value, start, self._done) for name, value in call.items()} for call in self._calls]
        return self._family.through(self._body, states, calls, first, last, past_key_values=cache)

    def take(self, going: Tensor) -> None:
        """Keep these rows of the batch alone."""
        self._mask, self._positions = self._mask[going], self._positions[going]
        assert self._calls is not None
        self._calls = [{name: _picked(value, going) for name, value in call.items()} for call in self._calls]


def _window(value: Any, start: int, end: int) -> Any:
    """The part of an argument for all positions that belongs to some, which look back on all before them."""
    if isinstance(value, tuple):
        return tuple(_window(part, start, end) for part in value)
    if not isinstance(value, Tensor):
        return value
    return value[:, :, start:end, :end] if value.ndim == 4 else value[:, start:end]


def _picked(value: Any, going: Tensor) -> Any:
    """The rows of an argument that go on; an argument for any row is for these, too."""
    if isinstance(value, tuple):
        return tuple(_picked(part, going) for part in value)
    return value[going] if isinstance(value, Tensor) and len(value) > 1 else value


def padded_in_front(rows: Tensor, mask: Tensor) -> Tensor:
    """Rows [B, L, …] that the mask [B, L] says are padded at their ends, padded in front instead."""
    length = mask.shape[1]
    places = torch.arange(length, device=mask.device) - (length - mask.sum(1, keepdim=True))
    return at_places(rows, places.clamp(min=0))


def padded_behind(rows: Tensor, mask: Tensor) -> Tensor:
    """Rows [B, L, …] that are padded in front, padded at their ends instead, as the mask [B, L] says."""
    length = mask.shape[1]
    places = torch.arange(length, device=mask.device) + (length - mask.sum(1, keepdim=True))
    return at_places(rows, places.clamp(max=length - 1))


def at_places(rows: Tensor, places: Tensor) -> Tensor:
    """The entries of rows [B, …] or [B, …, D] at places [B, L]."""
    if rows.ndim == 2:
        return rows.gather(1, places)
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))
