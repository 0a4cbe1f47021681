"""Frozen model and prompt as one: the loss of a batch, and its answers; the one module that engines see.

Letters: B batch, S source, T target, P prompt, D model, V vocabulary, L labels.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from fpt.backbones.families import family_of
from fpt.data.encoded import IGNORED, Batch
from fpt.prompts.modules import Prompt, Tensors
from fpt.prompts.readers import READERS

AT_ONCE = 1024  # target positions whose logits [V] are held at the same time


class PromptedModel(nn.Module):
    """A frozen model with a prompt before its input, or before the states inside the stack that reads it."""

    def __init__(
        self, body: Any, prompt: Prompt, *, checkpointing: bool = False, begin_pass: Callable[[], None] = lambda: None
    ) -> None:
        """Join the two; `body` stays frozen and in eval mode. `checkpointing` trades time for memory, nothing else.

        `begin_pass` is what holds the body wants called before each pass through it.
        """
        super().__init__()
        self.family = family_of(body.config)
        self.reader = READERS[self.family.row.reads](self.family)
        self.width = self.family.width(body.config)
        if checkpointing:
            self.family.checkpoint_blocks(body)
        self.body: Any = body
        self.prompt = prompt
        self.begin_pass = begin_pass

    def with_prompt(self, prompt: Prompt) -> "PromptedModel":
        """The same body with another prompt."""
        return PromptedModel(self.body, prompt, begin_pass=self.begin_pass)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """States [B, P+S, D] of the stack that reads, and their mask [B, P+S]; every pass begins here."""
        self.begin_pass()
        states = self._below(batch) if batch.below is None else batch.below
        _, mask = self.reader.inputs(batch)
        states, mask = self.prompt.prepend(states, mask[:, : states.shape[1]], batch.mask, batch.factors)
        return self.family.encoded_from(self.body, states, mask, self.prompt.position), mask

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
        self.begin_pass()
        return self._below(batch)

    @torch.no_grad()
    def _below(self, batch: Batch) -> Tensor:
        return self.family.states_before(self.body, *self.reader.inputs(batch), self.prompt.position)

    def decode(self, batch: Batch, states: Tensor, mask: Tensor, texts: int = 1) -> Tensor:
        """States [B, T, D] that labels are read from, the target given (teacher forcing), or several `texts` in a row.

        States and mask are `encode`'s.
        """
        return self.reader.answering(self, batch, states, mask, texts)

    def forward(self, batch: Batch) -> Tensor:
        """Cross-entropy summed over the batch's real target tokens; the head runs on those positions alone."""
        return self.loss(batch, *self.encode(batch))

    def loss(self, batch: Batch, states: Tensor, mask: Tensor) -> Tensor:
        """The same from the encoder's states [B, P+S, D] and their mask on."""
        states = self.decode(batch, states, mask).flatten(0, 1)[batch.real]
        labels = batch.labels.flatten()[batch.real]
        if len(states) <= AT_ONCE:
            return self._entropy(states, labels)
        parts = zip(torch.split(states, AT_ONCE), torch.split(labels, AT_ONCE), strict=True)
        # Of a vocabulary of 250,000 a batch's logits are gigabytes: they are made again on the way back, part by part.
        again: Any = {"use_reentrant": False, "preserve_rng_state": False}
        return torch.stack([checkpoint(self._entropy, *part, **again) for part in parts]).sum()

    def _entropy(self, states: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy summed over decoder states [N, D] whose next tokens are labels [N]."""
        return cross_entropy(self.logits(states), labels, reduction="sum")

    @torch.no_grad()
    def generate(self, batch: Batch, *, max_new_tokens: int, beams: int = 1, in_step: bool = False) -> Tensor:
        """Output ids [B, ≤ max_new_tokens + 1], the start token first; greedy, or the best of a beam search.

        With `in_step` every process goes on until the last has finished, as a model whose weights are shared out needs.
        """
        read = None if self.reader.reads_target else self.encode(batch)
        return self.reader.generated(self, batch, read, max_new_tokens=max_new_tokens, beams=beams, in_step=in_step)

    def said(self, ids: Tensor) -> Tensor:
        """What `generate`'s ids say [B, T]: without the start token, and IGNORED behind the end."""
        ids = ids[:, 1:]
        ended = torch.isin(ids, torch.tensor(self.family.end_tokens(self.body.config), device=ids.device)).cumsum(1)
        return ids.masked_fill(ended.cumsum(1) > 1, IGNORED)  # the end itself is part of the output

    @torch.no_grad()
    def answer(self, batch: Batch, *, max_new_tokens: int, beams: int = 1) -> tuple[Tensor, Tensor]:
        """Output ids [B, T] without the start token, IGNORED behind each end; and the log-probability of each, 0 there.

        A token's probability is the model's own, given the source and the tokens before it.
        """
        read = None if self.reader.reads_target else self.encode(batch)
        ids = self.reader.generated(self, batch, read, max_new_tokens=max_new_tokens, beams=beams, in_step=False)
        labels = self.said(ids)
        batch = replace(batch, labels=labels)
        if read is None:
            return labels, self._logs(batch, *self.encode(batch))
        self.begin_pass()
        return labels, self._logs(batch, *read)

    @torch.no_grad()
    def weigh(self, batch: Batch, targets: Tensor) -> Tensor:
        """Log-probabilities [B, L, T] of the tokens of L targets [L, T], 0 behind their ends, where these have IGNORED.

        Their sum over T is minus the training loss that the source would have with that target. It is one pass, which
        has the targets side by side, unless the target goes the source's way.
        """
        if self.reader.reads_target:
            batches = [replace(batch, labels=target.expand(len(batch.source), -1), below=None) for target in targets]
            return torch.stack([self._logs(each, *self.encode(each)) for each in batches], 1)
        states, mask = self.encode(batch)
        labels = targets.flatten().expand(len(states), -1)
        return self._logs(replace(batch, labels=labels), states, mask, len(targets)).view(-1, *targets.shape)

    def _logs(self, batch: Batch, states: Tensor, mask: Tensor, texts: int = 1) -> Tensor:
        """The log-probability of each of a batch's labels [B, T], 0 where they are IGNORED."""
        labels = batch.labels
        states, real = self.decode(batch, states, mask, texts), labels != IGNORED
        logs = torch.zeros(labels.shape, device=labels.device)
        parts = zip(torch.split(states[real], AT_ONCE), torch.split(labels[real], AT_ONCE), strict=True)
        logs[real] = torch.cat([-cross_entropy(self.logits(some), ids, reduction="none") for some, ids in parts])
        return logs

    def logits(self, states: Tensor) -> Tensor:
        """Logits [N, V] of states [N, D], in float32."""
        return self.family.head_logits(self.body, states).float()
