"""How models read: what of an example goes through the stack that a prompt enters, and how an answer comes out.

Letters: B batch, S source, T target, P prompt, L positions, D model, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from fpt.backbones.family import Family
from fpt.data.encoded import IGNORED, Batch

LEAVING = 0.75  # a batch drops the examples that have ended when no more than this share has not: dropping copies
Logits = Callable[[Tensor], Tensor]  # [N, V] of states [N, D]


class Reader(Protocol):
    """A way to read; models are Any, as in `Family`."""

    def inputs(self, batch: Batch, /) -> tuple[Tensor, Tensor]:
        """Ids [B, L] that go through the stack which a prompt enters, and their mask: all that is there in training."""
        ...

    def answering(self, body: Any, batch: Batch, states: Tensor, mask: Tensor, texts: int, /) -> Tensor:
        """States [B, T, D] that the labels are read from, given that stack's output [B, P+L, D] and its mask.

        The labels may be those of several equally long `texts` in a row, of which none sees another.
        """
        ...


class Seq2Seq:
    """An encoder reads the source, a decoder says the target."""

    def __init__(self, family: Family) -> None:
        """Of models of this family."""
        self._family = family

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The source."""
        return batch.source, batch.mask

    def answering(self, body: Any, batch: Batch, states: Tensor, mask: Tensor, texts: int) -> Tensor:
        """The decoder's, with the target given (teacher forcing)."""
        inputs = batch.labels.reshape(len(states), texts, -1).roll(1, 2)
        inputs[:, :, 0] = self._family.start_token(body.config)
        inputs = inputs.masked_fill(inputs == IGNORED, 0).flatten(1)
        return self._family.decoded(body, inputs, states, mask, texts)

    def generated(
        self, body: Any, states: Tensor, mask: Tensor, logits: Logits, *, max_new_tokens: int, beams: int, in_step: bool
    ) -> Tensor:
        """Output ids [B, ≤ max_new_tokens + 1] from the encoder's states and their mask, the start token first."""
        # transformers would size the cache by the encoder's depth, which fails for a deeper decoder.
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        if beams == 1 and not in_step:
            return self._greedy(body, states, mask, logits, max_new_tokens, cache)
        settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=beams,
            use_cache=True,
            pad_token_id=self._family.pad_token(body.config),
            eos_token_id=self._family.end_tokens(body.config),
            decoder_start_token_id=self._family.start_token(body.config),
        )
        return body.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            generation_config=settings,
            synced_gpus=in_step,
            past_key_values=cache,
        )

    def _greedy(
        self, body: Any, states: Tensor, mask: Tensor, logits: Logits, max_new_tokens: int, cache: EncoderDecoderCache
    ) -> Tensor:
        """Every example's likeliest next token, until its end; those that have ended leave the batch now and then."""
        family = self._family
        pad, ends = family.pad_token(body.config), torch.tensor(family.end_tokens(body.config), device=mask.device)
        ids = states.new_full((len(states), max_new_tokens + 1), pad, dtype=torch.long)
        ids[:, 0] = family.start_token(body.config)
        rows, ended = torch.arange(len(ids), device=ids.device), torch.zeros_like(mask[:, 0], dtype=torch.bool)
        for place in range(max_new_tokens):
            inputs = family.decoded_next(body, ids[rows, place, None], states, mask, cache)
            tokens = logits(inputs[:, -1]).argmax(-1)
            ids[rows, place + 1] = tokens.masked_fill(ended, pad)
            ended = ended | torch.isin(tokens, ends)
            left = len(ended) - int(ended.sum())
            if not left:
                return ids[:, : place + 2]
            if left <= LEAVING * len(ended):
                going = (~ended).nonzero()[:, 0]
                rows, states, mask, ended = (tensor[going] for tensor in (rows, states, mask, ended))
                cache.batch_select_indices(going)
        return ids
