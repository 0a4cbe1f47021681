"""Token-by-token generation: the outputs so far, and the masks and positions of a decoder-only model's steps.

Letters: B batch, L positions, D model.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig

from fpt.backbones.family import Family

LEAVING = 0.75  # finished examples are dropped when at most this share of a batch is unfinished, as dropping copies


class Outputs:
    """A batch's outputs as they grow; finished ones are dropped from the batch now and then."""

    def __init__(self, family: Family, config: PreTrainedConfig, mask: Tensor, most: int, start: int) -> None:
        """Begin every output with the start token, which up to `most` tokens follow."""
        self._pad = family.pad_token(config)
        self._ends = torch.tensor(family.end_tokens(config), device=mask.device)
        self._ids = mask.new_full((len(mask), most + 1), self._pad, dtype=torch.long)
        self._ids[:, 0] = start
        self._rows = torch.arange(len(mask), device=mask.device)
        self._ended = torch.zeros_like(mask[:, 0], dtype=torch.bool)
        self._place, self._left = 0, len(mask)

    @property
    def ids(self) -> Tensor:
        """The token ids of all outputs so far [B, ≤ most + 1]."""
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
        """Drop the finished outputs, if they are many; returns the indices of the rows that stay, None: all stay."""
        if self._left > LEAVING * len(self._ended):
            return None
        going = (~self._ended).nonzero()[:, 0]
        self._rows, self._ended = self._rows[going], self._ended[going]
        return going


class Line:
    """A growing sequence of positions that passes through some of a stack's blocks, padded in front to end together.

    transformers makes masks and rotary angles once, for the longest sequence possible; each step takes its part.
    """

    def __init__(self, family: Family, body: Any, mask: Tensor, more: int) -> None:
        """Begin with the positions of a mask [B, L], which is padded at its ends; `more` positions can follow."""
        self._family, self._body, self._done = family, body, 0
        self._mask = torch.cat([mask.flip(1), mask.new_ones(len(mask), more)], 1)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        self._calls: list[dict[str, Any]] | None = None

    def positions(self, number: int) -> Tensor:
        """The position ids of the next `number` positions, [B, number]."""
        return self._positions[:, self._done : self._done + number]

    def through(self, states: Tensor, first: int, last: int | None, cache: DynamicCache) -> Tensor:
        """The next positions' hidden states [B, number, D], passed through blocks `first` to `last`."""
        if self._calls is None:
            room = states.new_zeros(1, 1, 1).expand(*self._mask.shape, states.shape[-1])
            self._calls = self._family.arguments(self._body, room, self._mask, self._positions)
        start, self._done = self._done, self._done + states.shape[1]
        calls = [{name: _window(value, start, self._done) for name, value in call.items()} for call in self._calls]
        return self._family.through(self._body, states, calls, first, last, past_key_values=cache)

    def take(self, going: Tensor) -> None:
        """Keep only these rows of the batch."""
        self._mask, self._positions = self._mask[going], self._positions[going]
        assert self._calls is not None
        self._calls = [{name: _picked(value, going) for name, value in call.items()} for call in self._calls]


def _window(value: Any, start: int, end: int) -> Any:
    """The part of a block's argument for positions `start` to `end`, which attend to all positions before them."""
    if isinstance(value, tuple):
        return tuple(_window(part, start, end) for part in value)
    if not isinstance(value, Tensor):
        return value
    return value[:, :, start:end, :end] if value.ndim == 4 else value[:, start:end]


def _picked(value: Any, going: Tensor) -> Any:
    """The rows of a block's argument that stay; an argument that all rows share stays as it is."""
    if isinstance(value, tuple):
        return tuple(_picked(part, going) for part in value)
    return value[going] if isinstance(value, Tensor) and len(value) > 1 else value


def padded_in_front(rows: Tensor, mask: Tensor) -> Tensor:
    """Move the padding of rows [B, L, …] from their ends, where the mask [B, L] has it, to the front."""
    length = mask.shape[1]
    places = torch.arange(length, device=mask.device) - (length - mask.sum(1, keepdim=True))
    return at_places(rows, places.clamp(min=0))


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
