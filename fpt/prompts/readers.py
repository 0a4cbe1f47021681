"""Chooses a model's way to read, and has the passes of encoder-decoders and of masked models.

Letters: B batch, S source, T target, P prompt, D model.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from fpt.backbones.backbone import family_of
from fpt.data.encoded import IGNORED, Batch
from fpt.prompts.causal import Causal, CausalBehind, following
from fpt.prompts.modules import Prompt
from fpt.prompts.prompted import Encoded, PromptedModel


class Seq2Seq(PromptedModel):
    """Reads with the encoder, which has the prompt; the decoder attends to its output and writes the answer."""

    def decode(self, batch: Batch, encoded: Encoded, texts: int = 1) -> Tensor:
        states, mask = encoded
        inputs = batch.labels.reshape(len(states), texts, -1).roll(1, 2)
        inputs[:, :, 0] = self.family.start_token(self.body.config)
        inputs = inputs.masked_fill(inputs == IGNORED, 0).flatten(1)
        prompt = self.decoder_prompt(encoded)
        decoded = self.family.decoded(self.body, inputs, states, mask, texts, prompt)
        if prompt is None:
            return decoded
        return decoded.view(len(states), texts, -1, decoded.shape[2])[:, :, prompt.shape[1] :].flatten(1, 2)

    def decoder_prompt(self, encoded: Encoded) -> Tensor | None:
        """The prompt's vectors [B, P, D] in front of the decoder's input; None: the prompt is in the encoder."""
        return self.prompt(*encoded) if self.prompt.is_behind else None

    def _generated(self, batch: Batch, most: int) -> tuple[Tensor, Encoded | None]:
        encoded, start = self.encode(batch), self.family.start_token(self.body.config)
        return self._greedy(_Decoder(self, encoded), batch.mask, most, start), encoded


class _Decoder:
    """What a decoder has written so far; the first token that it reads is the start token."""

    def __init__(self, model: Seq2Seq, encoded: Encoded) -> None:
        self._model, (self._states, self._mask) = model, encoded
        # transformers would size the cache by the encoder's depth, which fails for a deeper decoder.
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self._prompt = model.decoder_prompt(encoded)
        self.add(self._mask.new_full((len(self._mask),), model.family.start_token(model.body.config)))

    def add(self, tokens: Tensor) -> None:
        source, cache = (self._states, self._mask), {"past_key_values": self._cache, "use_cache": True}
        family, body = self._model.family, self._model.body
        decoded = family.decoder_output(body, tokens[:, None], *source, self._prompt, **cache)
        self.last, self._prompt = decoded[:, -1], None  # the prompt's keys and values are in the cache now

    def take(self, going: Tensor) -> None:
        self._states, self._mask = self._states[going], self._mask[going]
        self._cache.batch_select_indices(going)


class Seq2SeqBehind(Seq2Seq):
    """Reads the source alone with the encoder, without gradients; the prompt is in front of the decoder's input."""

    def _below(self, batch: Batch) -> Tensor:
        """The encoder's output [B, S, D]."""
        return self.family.normed(self.body, self.family.states_before(self.body, *self.inputs(batch), None))

    def _encode(self, batch: Batch, below: Tensor) -> Encoded:
        return below, batch.mask

    def decoder_mask(self, batch: Batch) -> Tensor:
        real = batch.labels != IGNORED
        return torch.cat([real.new_ones(len(real), self.prompt.length), real], 1)


class Mask(PromptedModel):
    """Reads with an encoder-only stack; a word at the mask is chosen (`target_log_probs`), nothing is generated."""

    def decode(self, batch: Batch, encoded: Encoded, texts: int = 1) -> Tensor:
        places = batch.mask.sum(1) - 1 if batch.places is None else batch.places
        return following(encoded[0], self.prompt.length + places, 1).expand(-1, batch.labels.shape[1], -1)

    def _generated(self, batch: Batch, most: int) -> tuple[Tensor, Encoded | None]:
        raise AssertionError("a masked model chooses among labels")


READERS: dict[str, type[PromptedModel]] = {"seq2seq": Seq2Seq, "causal": Causal, "mask": Mask}
BEHIND: dict[str, type[PromptedModel]] = {"seq2seq": Seq2SeqBehind, "causal": CausalBehind}


def prompted_model(body: Any, prompt: Prompt, **more: Any) -> PromptedModel:
    """Join a frozen model and a prompt by the model's way to read; the arguments are those of `PromptedModel`."""
    readers = BEHIND if prompt.is_behind else READERS
    return readers[family_of(body.config).row.reads.name](body, prompt, **more)
