"""The outputs of token-by-token generation as they grow."""

import torch
from torch import Tensor
from transformers import PreTrainedConfig

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
