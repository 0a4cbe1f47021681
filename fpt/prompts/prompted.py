"""Frozen model and prompt as one: the loss of a batch, and generation; the one module that engines see.

Letters: B batch, S source, T target, P prompt, D model, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from fpt.backbones.families import family_of
from fpt.data.encoded import IGNORED, Batch
from fpt.prompts.modules import Prompt, Tensors

LEAVING = 0.75  # a batch drops the examples that have ended when no more than this share has not: dropping copies
AT_ONCE = 1024  # target positions whose logits [V] are held at the same time


class PromptedModel(nn.Module):
    """A frozen encoder-decoder with a prompt before its input, or before the states inside its encoder."""

    def __init__(
        self, body: Any, prompt: Prompt, *, checkpointing: bool = False, begin_pass: Callable[[], None] = lambda: None
    ) -> None:
        """Join the two; `body` stays frozen and in eval mode. `checkpointing` trades time for memory, nothing else.

        `begin_pass` is what holds the body wants called before each pass through it.
        """
        super().__init__()
        self.family = family_of(body.config)
        if checkpointing:
            self.family.checkpoint_blocks(body)
        self.body: Any = body
        self.prompt = prompt
        self._begin_pass = begin_pass

    def with_prompt(self, prompt: Prompt) -> "PromptedModel":
        """The same body with another prompt."""
        return PromptedModel(self.body, prompt, begin_pass=self._begin_pass)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encoder states [B, P+S, D] and their mask [B, P+S]; every pass begins here."""
        self._begin_pass()
        return self.above(self._below(batch) if batch.below is None else batch.below, batch.mask)

    def learned(self) -> Tensors:
        """A copy of what is learned, by name, off the device."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.prompt.tensors.items()}

    @torch.no_grad()
    def learn(self, tensors: Tensors) -> None:
        """Put what was learned elsewhere in the place of what is here."""
        for name, tensor in self.prompt.tensors.items():
            tensor.copy_(tensors[name])

    def below(self, batch: Batch) -> Tensor:
        """The states [B, S, D] that the prompt is put before; they depend on the example alone, and never change."""
        self._begin_pass()
        return self._below(batch)

    @torch.no_grad()
    def _below(self, batch: Batch) -> Tensor:
        return self.family.states_before(self.body, batch.source, batch.mask, self.prompt.position)

    def above(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder states [B, P+S, D] and their mask [B, P+S], from those below the prompt and theirs [B, S]."""
        states, mask = self.prompt.prepend(states, mask)
        return self.family.encoded_from(self.body, states, mask, self.prompt.position), mask

    def decode(self, batch: Batch, states: Tensor, mask: Tensor) -> Tensor:
        """Decoder states [B, T, D] with the target given (teacher forcing)."""
        inputs = batch.labels.roll(1, 1)
        inputs[:, 0] = self.body.config.decoder_start_token_id
        return self.family.decoded(self.body, inputs.masked_fill(inputs == IGNORED, 0), states, mask)

    def forward(self, batch: Batch) -> Tensor:
        """Cross-entropy summed over the batch's real target tokens; the head runs on those positions alone."""
        return self.loss(batch, *self.encode(batch))

    def loss(self, batch: Batch, states: Tensor, mask: Tensor) -> Tensor:
        """The same from the encoder's states [B, P+S, D] and their mask on."""
        states = self.decode(batch, states, mask)
        real = batch.labels != IGNORED
        states, labels = states[real], batch.labels[real]
        if len(states) <= AT_ONCE:
            return self._entropy(states, labels)
        parts = zip(torch.split(states, AT_ONCE), torch.split(labels, AT_ONCE), strict=True)
        # Of a vocabulary of 250,000 a batch's logits are gigabytes: they are made again on the way back, part by part.
        again: Any = {"use_reentrant": False, "preserve_rng_state": False}
        return torch.stack([checkpoint(self._entropy, *part, **again) for part in parts]).sum()

    def _entropy(self, states: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy summed over decoder states [N, D] whose next tokens are labels [N]."""
        return cross_entropy(self._logits(states), labels, reduction="sum")

    @torch.no_grad()
    def generate(self, batch: Batch, *, max_new_tokens: int, beams: int = 1, in_step: bool = False) -> Tensor:
        """Output ids [B, ≤ max_new_tokens + 1], the start token first; greedy, or the best of a beam search.

        With `in_step` every process goes on until the last has finished, as a model whose weights are shared out needs.
        """
        return self._generate(*self.encode(batch), max_new_tokens, beams, in_step)

    @torch.no_grad()
    def answer(self, batch: Batch, *, max_new_tokens: int, beams: int = 1) -> tuple[Tensor, Tensor]:
        """Output ids [B, T] without the start token, IGNORED behind each end; and the log-probability of each, 0 there.

        A token's probability is the model's own, given the source and the tokens before it.
        """
        states, mask = self.encode(batch)
        ids = self._generate(states, mask, max_new_tokens, beams, in_step=False)[:, 1:]
        ended = (ids == self.body.config.eos_token_id).cumsum(1)
        labels = ids.masked_fill(ended.cumsum(1) > 1, IGNORED)  # the end itself is part of the output
        self._begin_pass()
        states, real = self.decode(replace(batch, labels=labels), states, mask), labels != IGNORED
        logs = torch.zeros(labels.shape, device=labels.device)
        parts = zip(torch.split(states[real], AT_ONCE), torch.split(labels[real], AT_ONCE), strict=True)
        logs[real] = torch.cat([-cross_entropy(self._logits(some), ids, reduction="none") for some, ids in parts])
        return labels, logs

    def _logits(self, states: Tensor) -> Tensor:
        """Logits [N, V] of decoder states [N, D], in float32."""
        return self.family.head_logits(self.body, states).float()

    def _generate(self, states: Tensor, mask: Tensor, max_new_tokens: int, beams: int, in_step: bool) -> Tensor:
        config = self.body.config
        # transformers would size the cache by the encoder's depth, which fails for a deeper decoder.
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        if beams == 1 and not in_step:
            return self._greedy(states, mask, max_new_tokens, cache)
        settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=beams,
            use_cache=True,
            pad_token_id=config.pad_token_id,
            eos_token_id=config.eos_token_id,
            decoder_start_token_id=config.decoder_start_token_id,
        )
        return self.body.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            generation_config=settings,
            synced_gpus=in_step,
            past_key_values=cache,
        )

    def _greedy(self, states: Tensor, mask: Tensor, max_new_tokens: int, cache: EncoderDecoderCache) -> Tensor:
        """Every example's likeliest next token, until its end; those that have ended leave the batch now and then."""
        config = self.body.config
        ids = states.new_full((len(states), max_new_tokens + 1), config.pad_token_id, dtype=torch.long)
        ids[:, 0] = config.decoder_start_token_id
        rows, ended = torch.arange(len(ids), device=ids.device), torch.zeros_like(mask[:, 0], dtype=torch.bool)
        for place in range(max_new_tokens):
            inputs = self.family.decoded_next(self.body, ids[rows, place, None], states, mask, cache)
            tokens = self._logits(inputs[:, -1]).argmax(-1)
            ids[rows, place + 1] = tokens.masked_fill(ended, config.pad_token_id)
            ended = ended | (tokens == config.eos_token_id)
            left = len(ended) - int(ended.sum())
            if not left:
                return ids[:, : place + 2]
            if left <= LEAVING * len(ended):
                going = (~ended).nonzero()[:, 0]
                rows, states, mask, ended = (tensor[going] for tensor in (rows, states, mask, ended))
                cache.batch_select_indices(going)
        return ids
