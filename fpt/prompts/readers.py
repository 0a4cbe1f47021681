"""Forward passes and generation for each way to read (`Reading` in `family_table.py`): seq2seq, causal, masked.

Letters: B batch, S source, T target, P prompt, L positions, D model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from fpt.backbones.family import Family
from fpt.data.encoded import IGNORED, Batch
from fpt.devices import distributed
from fpt.prompts.context import Context, at_places
from fpt.prompts.generation import Outputs
from fpt.prompts.modules import Prompt

TARGETS_AT_ONCE = 32  # the most targets side by side behind a source, which attention computes with each other
LOGITS_AT_ONCE = 1024  # the most positions whose logits [V] are in memory at once
Encoded = tuple[Tensor, Tensor]  # output [B, P+L, D] of the stack that the prompt enters, and its mask [B, P+L]


class Reader(ABC):
    """The passes of a frozen model with a prompt; each way to read has a subclass."""

    def __init__(
        self, family: Family, body: Any, prompt: Prompt, begin_pass: Callable[[], None], in_step: bool
    ) -> None:
        """Read with this model, as `PromptedModel` does."""
        self.family, self.body, self.prompt, self.begin_pass, self.in_step = family, body, prompt, begin_pass, in_step

    keeps_target = False  # whether `below` has states of the target too

    @property
    def kept_width(self) -> int:
        """How many numbers `below` has for each token."""
        return self.family.row.first.width_in(self.body.config)

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Token ids [B, L] that `below` is of in training, and their padding mask."""
        return batch.source, batch.mask

    def below(self, batch: Batch) -> Tensor:
        """The states [B, L, D] that the prompt goes before, which depend on the examples alone."""
        return self.family.states_before(self.body, *self.inputs(batch), self.prompt.position)

    def encode(self, batch: Batch, below: Tensor) -> Encoded:
        """The output of the stack that the prompt enters, and its mask, from what the method `below` gave."""
        _, mask = self.inputs(batch)
        states, mask = self.prompt.joined(below, mask[:, : below.shape[1]], batch.mask, batch.factors)
        recorded = self.family.arguments(self.body, states, mask)
        states = self.family.through(self.body, states, recorded, self.prompt.position, None)
        return self.family.normed(self.body, states), mask

    def position_weights(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weights [B, L] of the positions that pass in `below` and of those in `encode`, for means over an example."""
        _, mask = self.inputs(batch)
        prompt = mask.new_ones(len(mask), self.prompt.length)
        return mean_weights(mask), mean_weights(torch.cat([prompt, mask], 1))

    def decoder_mask(self, batch: Batch) -> Tensor:
        """The padding mask [B, L] of the decoder's input in training."""
        return batch.labels != IGNORED

    @abstractmethod
    def decode(self, batch: Batch, encoded: Encoded, texts: int = 1) -> Tensor:
        """States [B, T, D] that predict the batch's labels (teacher forcing), from the output of the prompt's stack.

        Each row of labels is one target, or `texts` targets of equal length one after the other.
        """

    @abstractmethod
    def generate(self, batch: Batch, encoded: Encoded | None, most: int, *, beams: int) -> Tensor:
        """Output ids [B, ≤ most + 1], the start token first; `encoded` is None in a causal model."""

    def target_log_probs(self, batch: Batch, encoded: Encoded | None, targets: Tensor) -> Tensor:
        """Log-probabilities [B, N, T] of the tokens of N targets [N, T], 0 where a target is padded with IGNORED.

        `encoded` is None in a causal model.
        """
        assert encoded is not None
        batch = replace(batch, labels=targets.flatten().expand(len(batch.source), -1))
        return self.label_log_probs(batch, encoded, len(targets)).view(-1, *targets.shape)

    def label_log_probs(self, batch: Batch, encoded: Encoded, texts: int = 1) -> Tensor:
        """Log-probabilities [B, T] of a batch's labels, 0 where they are IGNORED."""
        labels = batch.labels
        states, real = self.decode(batch, encoded, texts), labels != IGNORED
        log_probs, states, ids = torch.zeros(labels.shape, device=labels.device), states[real], labels[real]
        parts = [
            -cross_entropy(self.logits(states[part]), ids[part], reduction="none")
            for part in self.logit_parts(len(ids))
        ]
        log_probs[real] = torch.cat(parts)
        return log_probs

    def logit_parts(self, number: int, at_once: int | None = None) -> list[slice]:
        """Slices of up to `at_once` of `number` positions, whose logits are computed one slice after the other.

        Each calls the head, so that with sharded weights every process has equally many, the last ones perhaps empty.
        """
        at_once = at_once or LOGITS_AT_ONCE
        count = max(1, -(-number // at_once))
        count = max(distributed.all_gather(count)) if self.in_step else count
        return [slice(index * at_once, (index + 1) * at_once) for index in range(count)]

    def _are_ended(self, outputs: Outputs) -> bool:
        """Whether every output has ended, in all processes if they run in step."""
        return not distributed.any_process(not outputs.are_ended) if self.in_step else outputs.are_ended

    def logits(self, states: Tensor) -> Tensor:
        """Vocabulary logits [N, V] for states [N, D], in float32."""
        return self.family.head_logits(self.body, states).float()


class Seq2Seq(Reader):
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
        return None

    def generate(self, batch: Batch, encoded: Encoded | None, most: int, *, beams: int) -> Tensor:
        assert encoded is not None
        states, mask = encoded
        # transformers would size the cache by the encoder's depth, which fails for a deeper decoder.
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        if beams == 1:
            return self._greedy(states, mask, most, cache)
        family, config = self.family, self.body.config
        settings = GenerationConfig(
            max_new_tokens=most,
            do_sample=False,
            num_beams=beams,
            use_cache=True,
            pad_token_id=family.pad_token(config),
            eos_token_id=family.end_tokens(config),
            decoder_start_token_id=family.start_token(config),
        )
        return self.body.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            generation_config=settings,
            synced_gpus=self.in_step,
            past_key_values=cache,
        )

    def _greedy(self, states: Tensor, mask: Tensor, most: int, cache: EncoderDecoderCache) -> Tensor:
        """Greedy decoding up to each example's end token; finished examples are dropped from the batch now and then."""
        config, prompt = self.body.config, self.decoder_prompt((states, mask))
        outputs = Outputs(self.family, config, mask, most, self.family.start_token(config))
        for _ in range(most):
            decoded = self.family.decoded_next(self.body, outputs.last[:, None], states, mask, cache, prompt)
            prompt = None  # its keys and values are in the cache now
            outputs.add(self.logits(decoded[:, -1]).argmax(-1))
            if self._are_ended(outputs):
                break
            self.begin_pass()
            if not self.in_step and (going := outputs.leave()) is not None:
                states, mask = states[going], mask[going]
                cache.batch_select_indices(going)
        return outputs.ids


class Causal(Reader):
    """Reads with a decoder-only stack, which has the prompt, and which source and target pass one after the other."""

    keeps_target = True

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        given = batch.labels[:, :-1]  # nothing is read from the last token
        lengths, places = batch.mask.sum(1, keepdim=True), torch.arange(given.shape[1], device=given.device)
        ids = torch.cat([batch.source, torch.zeros_like(given)], 1)
        ids = ids.scatter(1, lengths + places, given.masked_fill(given == IGNORED, 0))
        ends = lengths + ((batch.labels != IGNORED).sum(1, keepdim=True) - 1).clamp(min=0)
        return ids, (torch.arange(ids.shape[1], device=ids.device) < ends).long()

    def decode(self, batch: Batch, encoded: Encoded, texts: int = 1) -> Tensor:
        assert texts == 1  # as every target needs a pass of its own
        return _following(encoded[0], self.prompt.length + batch.mask.sum(1) - 1, batch.labels.shape[1])

    def read(self, batch: Batch, more: int) -> Context:
        """Read source and prompt into a cache, behind which up to `more` tokens can follow."""
        self.begin_pass()
        return Context.of(self.family, self.body, self.prompt, batch, more)

    def generate(self, batch: Batch, encoded: Encoded | None, most: int, *, beams: int) -> Tensor:
        assert beams == 1
        context, config = self.read(batch, most), self.body.config
        outputs = Outputs(self.family, config, batch.mask, most, self.family.pad_token(config))
        while True:
            outputs.add(self.logits(context.last).argmax(-1))
            if self._are_ended(outputs) or outputs.are_full:
                return outputs.ids
            if not self.in_step and (going := outputs.leave()) is not None:
                context.take(going)
            self.begin_pass()
            context.add(outputs.last)

    def target_log_probs(self, batch: Batch, encoded: Encoded | None, targets: Tensor) -> Tensor:
        """The source is read once, and some targets at a time follow it side by side."""
        context = self.read(batch, targets.shape[1] - 1)
        return torch.cat([self._log_probs_behind(context, some) for some in torch.split(targets, TARGETS_AT_ONCE)], 1)

    def _log_probs_behind(self, context: Context, targets: Tensor) -> Tensor:
        """Log-probabilities [B, N, T] of targets behind a context; what several begin with is read once for all."""
        texts = [tuple(row[row != IGNORED].tolist()) for row in targets]
        begun = sorted({text[:end] for text in texts for end in range(1, len(text))})
        place = {text: index for index, text in enumerate([(), *begun])}
        places = torch.tensor([[place.get(text[:end], 0) for end in range(targets.shape[1])] for text in texts])
        states = context.last[:, None]
        if begun:
            ids = torch.tensor([text[-1] for text in begun], device=targets.device)
            sees = torch.tensor([[one[: len(other)] == other for other in begun] for one in begun])
            self.begin_pass()
            states = torch.cat([states, context.branch(ids, sees.to(targets.device))], 1)
        parts = self.logit_parts(len(states), max(1, LOGITS_AT_ONCE // states.shape[1]))
        log_probs = [self.logits(states[part]).log_softmax(-1)[:, places, targets.clamp(min=0)] for part in parts]
        return torch.cat(log_probs).masked_fill(targets == IGNORED, 0)


class Mask(Reader):
    """Reads with an encoder-only stack; a word at the mask is chosen (`target_log_probs`), nothing is generated."""

    def decode(self, batch: Batch, encoded: Encoded, texts: int = 1) -> Tensor:
        places = batch.mask.sum(1) - 1 if batch.places is None else batch.places
        return _following(encoded[0], self.prompt.length + places, 1).expand(-1, batch.labels.shape[1], -1)

    def generate(self, batch: Batch, encoded: Encoded | None, most: int, *, beams: int) -> Tensor:
        raise AssertionError("a masked model chooses among labels")


READERS: dict[str, type[Reader]] = {"seq2seq": Seq2Seq, "causal": Causal, "mask": Mask}


def mean_weights(real: Tensor) -> Tensor:
    """Weights [B, L] with which a sum over a batch's positions is the sum of its examples' means."""
    return real.float() / real.sum(1, keepdim=True)


def _following(states: Tensor, starts: Tensor, number: int) -> Tensor:
    """`number` states of each row from its start [B] on, [B, number, D]; past a row's end its last one is repeated."""
    places = starts[:, None] + torch.arange(number, device=starts.device)
    return at_places(states, places.clamp(max=states.shape[1] - 1))
