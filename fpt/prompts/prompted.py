"""A frozen model with a prompt as one module, which engines wrap: a batch's loss, and its answers.

Letters: B batch, S source, T target, P prompt, L positions, D model, V vocabulary, N targets or positions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from fpt.backbones.backbone import family_of
from fpt.data.encoded import IGNORED, Batch
from fpt.devices import distributed
from fpt.prompts.modules import Prompt

LOGITS_AT_ONCE = 1024  # the most positions whose logits [V] are in memory at once
LEAVING = 0.75  # finished examples are dropped when at most this share of a batch is unfinished, as dropping copies
Encoded = tuple[Tensor, Tensor]  # output [B, P+L, D] of the stack that the prompt enters, and its mask [B, P+L]


class Written(Protocol):
    """What a model has read and written so far, kept in a cache."""

    last: Tensor  # the last stack's output [B, D] at the last position, from which the next token is predicted

    def add(self, tokens: Tensor) -> None:
        """Read one more token [B] of each text."""

    def take(self, going: Tensor) -> None:
        """Keep only these rows of the batch."""


class PromptedModel(nn.Module, ABC):
    """A frozen model with a prompt before its embedded input, or before the hidden states inside its first stack.

    Each way to read (`Reading` in `fpt.backbones.family_table`) has a subclass, which `fpt.prompts.readers` chooses.
    """

    keeps_target = False  # whether `below` has states of the target too

    def __init__(
        self,
        body: Any,
        prompt: Prompt,
        *,
        checkpointing: bool = False,
        begin_pass: Callable[[], None] = lambda: None,
        in_step: bool = False,
    ) -> None:
        """Join the two; `body` stays frozen and in eval mode. `checkpointing` recomputes activations to save memory.

        `begin_pass` is called before each pass through the body, for the engine that holds its weights; `in_step` says
        that all processes call its modules equally often.
        """
        super().__init__()
        self.family = family_of(body.config)
        self.width = self.family.row.first.width_in(body.config)
        if checkpointing:
            self.family.checkpoint_blocks(body)
        self.body: Any = body
        self.prompt = prompt
        self.begin_pass, self.in_step = begin_pass, in_step

    def with_prompt(self, prompt: Prompt) -> Self:
        """The same frozen model with another prompt at the same place."""
        return type(self)(self.body, prompt, begin_pass=self.begin_pass, in_step=self.in_step)

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Token ids [B, L] that `below` is of in training, and their padding mask."""
        return batch.source, batch.mask

    @torch.no_grad()
    def below(self, batch: Batch) -> Tensor:
        """The part of a pass that depends on the examples alone and can be stored: numbers [B, L, …] for each token."""
        self.begin_pass()
        return self._below(batch)

    def _below(self, batch: Batch) -> Tensor:
        """The states [B, L, D] that the prompt goes before."""
        return self.family.states_before(self.body, *self.inputs(batch), self.prompt.position)

    def read_once(self, batch: Batch) -> Batch:
        """The batch with `below`, for which sources that occur several times are read once."""
        texts = batch.source.masked_fill(batch.mask == 0, IGNORED).tolist()
        first = [texts.index(text) for text in texts]
        once = sorted(set(first))
        return replace(batch, below=self.below(batch.rows(once))[[once.index(row) for row in first]])

    def encode(self, batch: Batch) -> Encoded:
        """Output [B, P+L, D] of the stack that the prompt enters, and its padding mask [B, P+L]; passes begin here."""
        self.begin_pass()
        with torch.no_grad():
            below = self._below(batch) if batch.below is None else batch.below
        return self._encode(batch, below)

    def _encode(self, batch: Batch, below: Tensor) -> Encoded:
        """What `encode` returns, from what `below` did."""
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

    def forward(self, batch: Batch) -> Tensor:
        """Cross-entropy summed over the batch's real target tokens, by their weights; no others go through the head."""
        return self.loss(batch, *self.encode(batch))

    def loss(self, batch: Batch, states: Tensor, mask: Tensor) -> Tensor:
        """The loss of a batch from the states and the padding mask that `encode` returned for it."""
        states = self.decode(batch, (states, mask)).flatten(0, 1)[batch.real]
        labels = batch.labels.flatten()[batch.real]
        weights = None if batch.weights is None else batch.weights[batch.real // batch.labels.shape[1]]
        parts = self._logit_parts(len(states))
        if len(parts) == 1:
            return self._entropy(states, labels, weights)
        # With 250,000 tokens a batch's logits take gigabytes, so they are recomputed in the backward pass, in parts.
        again: Any = {"use_reentrant": False, "preserve_rng_state": False}
        each = [(states[part], labels[part], None if weights is None else weights[part]) for part in parts]
        return torch.stack([checkpoint(self._entropy, *one, **again) for one in each]).sum()

    def _entropy(self, states: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Summed cross-entropy of labels [N], the tokens that states [N, D] should predict, by weights [N] if any."""
        logits = self.logits(states)
        if weights is None:
            return cross_entropy(logits, labels, reduction="sum")
        return cross_entropy(logits, labels, reduction="none") @ weights

    @abstractmethod
    def decode(self, batch: Batch, encoded: Encoded, texts: int = 1) -> Tensor:
        """States [B, T, D] that predict the batch's labels (teacher forcing), from the output of the prompt's stack.

        Each row of labels is one target, or `texts` targets of equal length one after the other.
        """

    def logits(self, states: Tensor) -> Tensor:
        """Vocabulary logits [N, V] for states [N, D], in float32."""
        return self.family.head_logits(self.body, states).float()

    def _logit_parts(self, number: int, positions: int = 1) -> list[slice]:
        """Slices of `number` rows of so many positions, whose logits are computed one slice after the other.

        Each calls the head, so that with sharded weights every process has equally many, the last ones perhaps empty.
        """
        at_once = max(1, LOGITS_AT_ONCE // positions)
        count = max(1, -(-number // at_once))
        count = max(distributed.all_gather(count)) if self.in_step else count
        return [slice(index * at_once, (index + 1) * at_once) for index in range(count)]

    @torch.no_grad()
    def target_log_probs(self, batch: Batch, targets: Tensor) -> Tensor:
        """Log-probabilities [B, N, T] of the tokens of N targets [N, T], 0 where a target is padded with IGNORED.

        Their sum over T is minus the training loss of the source with that target. A source is read once for all.
        """
        batch = replace(batch, labels=targets.flatten().expand(len(batch.source), -1))
        return self._label_log_probs(batch, self.encode(batch), len(targets)).view(-1, *targets.shape)

    def _label_log_probs(self, batch: Batch, encoded: Encoded, texts: int = 1) -> Tensor:
        """Log-probabilities [B, T] of a batch's labels, 0 where they are IGNORED."""
        labels = batch.labels
        states, real = self.decode(batch, encoded, texts), labels != IGNORED
        log_probs, states, ids = torch.zeros(labels.shape, device=labels.device), states[real], labels[real]
        parts = [
            -cross_entropy(self.logits(states[part]), ids[part], reduction="none")
            for part in self._logit_parts(len(ids))
        ]
        log_probs[real] = torch.cat(parts)
        return log_probs

    @torch.no_grad()
    def generate(self, batch: Batch, *, max_new_tokens: int) -> Tensor:
        """Output ids [B, ≤ max_new_tokens + 1] by greedy decoding, the start token first."""
        return self._generated(batch, max_new_tokens)[0]

    @abstractmethod
    def _generated(self, batch: Batch, most: int) -> tuple[Tensor, Encoded | None]:
        """What `generate` returns, and `encode`; None: the target follows the source through the same stack."""

    def trimmed(self, ids: Tensor) -> Tensor:
        """The output in `generate`'s ids, [B, T]: without the start token, and with IGNORED after the end token."""
        ids = ids[:, 1:]
        ended = torch.isin(ids, torch.tensor(self.family.end_tokens(self.body.config), device=ids.device)).cumsum(1)
        return ids.masked_fill(ended.cumsum(1) > 1, IGNORED)  # the end itself is part of the output

    @torch.no_grad()
    def answer(self, batch: Batch, *, max_new_tokens: int) -> tuple[Tensor, Tensor]:
        """Generated ids [B, T] without the start token, IGNORED after each end, and their log-probabilities, there 0.

        A token's probability is the model's, given the source and the tokens before it.
        """
        ids, encoded = self._generated(batch, max_new_tokens)
        batch = replace(batch, labels=self.trimmed(ids))
        if encoded is None:
            encoded = self.encode(batch)
        else:
            self.begin_pass()
        return batch.labels, self._label_log_probs(batch, encoded)

    def _greedy(self, written: Written, mask: Tensor, most: int, start: int) -> Tensor:
        """Up to `most` tokens of each example by greedy decoding, behind its start token.

        Finished examples are dropped from the batch now and then, unless other processes need as many.
        """
        config, pad = self.body.config, self.family.pad_token(self.body.config)
        ends = torch.tensor(self.family.end_tokens(config), device=mask.device)
        ids = mask.new_full((len(mask), most + 1), pad, dtype=torch.long)
        ids[:, 0] = start
        rows, ended = torch.arange(len(mask), device=mask.device), torch.zeros_like(mask[:, 0], dtype=torch.bool)
        for place in range(1, most + 1):
            tokens = self.logits(written.last).argmax(-1)
            ids[rows, place] = tokens.masked_fill(ended, pad)
            ended = ended | torch.isin(tokens, ends)
            left = len(ended) - int(ended.sum())
            is_over = not distributed.any_process(left > 0) if self.in_step else not left
            if is_over or place == most:
                break
            if not self.in_step and left <= LEAVING * len(ended):
                going = (~ended).nonzero()[:, 0]
                rows, ended = rows[going], ended[going]
                written.take(going)
            self.begin_pass()
            written.add(ids[rows, place])
        return ids[:, : place + 1]


def mean_weights(real: Tensor) -> Tensor:
    """Weights [B, L] with which a sum over a batch's positions is the sum of its examples' means."""
    return real.float() / real.sum(1, keepdim=True)
