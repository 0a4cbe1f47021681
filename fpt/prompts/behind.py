"""Passes in which a soft prompt stands behind the source, whose states then do not depend on it.

Letters: B batch, S source, T target, P prompt, D model.
"""

import math
from functools import partial

import torch
from torch import Tensor
from transformers import DynamicCache

from fpt.data.encoded import IGNORED, Batch
from fpt.prompts.context import CachedBlocks, Context, ReadOnly, padded_in_front
from fpt.prompts.readers import Causal, Encoded, Reader, Seq2Seq, mean_weights


class CausalBehind(Causal):
    """Reads the source alone, without gradients, and then the prompt and the target, which stand behind it."""

    keeps_target = False

    @property
    def kept_width(self) -> int:
        return math.prod(self._shape)

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        """What a token's keys and values are in all blocks: blocks, the two of them, heads, and their width."""
        return len(self.family.blocks_of(self.body, "decoder")), 2, *self.family.row.key_heads_in(self.body.config)

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.source, batch.mask

    def below(self, batch: Batch) -> Tensor:
        """Every block's keys and values of the source [B, S, …], side by side."""
        cache = DynamicCache()
        self.family.states_before(self.body, *self.inputs(batch), None, past_key_values=cache)
        parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        return torch.cat([part.transpose(1, 2).flatten(2) for part in parts], 2)

    def encode(self, batch: Batch, below: Tensor) -> Encoded:
        """The output [B, P+T-1, D] for the prompt and the target, and the mask of all positions."""
        family, body, mask = self.family, self.body, batch.mask
        self.begin_pass()
        source = self._source(below, mask)
        lengths, number = mask.sum(1, keepdim=True), self.prompt.length + batch.labels.shape[1] - 1
        places = lengths + torch.arange(number, device=mask.device)
        ids = batch.labels.masked_fill(batch.labels == IGNORED, 0)
        target = family.embedded(body, ids, places[:, : ids.shape[1]])
        states = torch.cat([self.prompt(target, mask).to(target.dtype), target[:, :-1]], 1)
        mask = torch.cat([mask.flip(1), mask.new_ones(places.shape)], 1)
        recorded = family.arguments(body, states, mask, places, past_key_values=source)
        states = family.through(body, states, recorded, 0, None, past_key_values=ReadOnly(source))
        return family.normed(body, states), mask

    def position_weights(self, batch: Batch) -> tuple[Tensor, Tensor]:
        prompt, read = batch.mask.new_ones(len(batch.mask), self.prompt.length), batch.labels[:, 1:] != IGNORED
        both = mean_weights(torch.cat([batch.mask, prompt, read], 1))
        return both[:, : batch.mask.shape[1]], both[:, batch.mask.shape[1] :]

    def _source(self, below: Tensor, mask: Tensor) -> DynamicCache:
        """The keys and values that the method `below` gave, as the blocks take them: with the padding in front."""
        rows = padded_in_front(below, mask)
        return DynamicCache(rows.view(*rows.shape[:2], *self._shape).permute(2, 3, 0, 4, 1, 5).unbind(0))

    def read(self, batch: Batch, more: int) -> Context:
        """As every causal reader's; the source is in a cache already, so that only the prompt is read."""
        family, body, mask = self.family, self.body, batch.mask
        if (below := batch.below) is None:
            self.begin_pass()
            below = self.below(batch)
        self.begin_pass()
        source = self._source(below, mask)
        blocks = partial(CachedBlocks, family, body, more=more, cache=source, done=mask.shape[1])
        keys = source.layers[0].keys
        vectors = self.prompt(keys.new_zeros(len(mask), 1, family.row.first.width_in(body.config)), mask).to(keys.dtype)
        upper = blocks(mask=torch.cat([mask, mask.new_ones(vectors.shape[:2])], 1))
        return Context(family, body, source, blocks(mask=mask, last=0), upper, vectors)

    def decode(self, batch: Batch, encoded: Encoded, texts: int = 1) -> Tensor:
        assert texts == 1
        return encoded[0][:, self.prompt.length - 1 :]


class Seq2SeqBehind(Seq2Seq):
    """Reads the source alone with the encoder, without gradients; the prompt is in front of the decoder's input."""

    def below(self, batch: Batch) -> Tensor:
        """The encoder's output [B, S, D]."""
        return self.family.normed(self.body, self.family.states_before(self.body, *self.inputs(batch), None))

    def encode(self, batch: Batch, below: Tensor) -> Encoded:
        return below, batch.mask

    def decoder_mask(self, batch: Batch) -> Tensor:
        real = batch.labels != IGNORED
        return torch.cat([real.new_ones(len(real), self.prompt.length), real], 1)

    def decoder_prompt(self, encoded: Encoded) -> Tensor:
        return self.prompt(*encoded)


BEHIND: dict[str, type[Reader]] = {"causal": CausalBehind, "seq2seq": Seq2SeqBehind}  # by way to read, as `READERS`
