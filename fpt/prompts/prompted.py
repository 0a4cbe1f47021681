"""A frozen model with a prompt as one module, which engines wrap: a batch's loss, and its answers.

Letters: B batch, S source, T target, P prompt, L positions, D model, V vocabulary, N targets or positions.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from fpt.backbones.backbone import family_of
from fpt.data.encoded import IGNORED, Batch
from fpt.prompts.behind import BEHIND
from fpt.prompts.modules import Prompt
from fpt.prompts.readers import READERS, Encoded


class PromptedModel(nn.Module):
    """A frozen model with a prompt before its embedded input, or before the hidden states inside its first stack."""

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
        self.reads = self.family.row.reads
        self.width = self.family.row.first.width_in(body.config)
        if checkpointing:
            self.family.checkpoint_blocks(body)
        self.body: Any = body
        self.prompt = prompt
        self.begin_pass, self.in_step = begin_pass, in_step
        readers = BEHIND if prompt.is_behind else READERS
        self.reader = readers[self.reads.name](self.family, body, prompt, begin_pass, in_step)

    def with_prompt(self, prompt: Prompt) -> "PromptedModel":
        """The same frozen model with another prompt."""
        return PromptedModel(self.body, prompt, begin_pass=self.begin_pass, in_step=self.in_step)

    def encode(self, batch: Batch) -> Encoded:
        """Output [B, P+L, D] of the stack that the prompt enters, and its padding mask [B, P+L]; passes begin here."""
        self.begin_pass()
        with torch.no_grad():
            below = self.reader.below(batch) if batch.below is None else batch.below
        return self.reader.encode(batch, below)

    @torch.no_grad()
    def below(self, batch: Batch) -> Tensor:
        """The part of a pass that depends on the examples alone and can be stored: numbers [B, L, …] for each token."""
        self.begin_pass()
        return self.reader.below(batch)

    def read_once(self, batch: Batch) -> Batch:
        """The batch with `below`, for which sources that occur several times are read once."""
        texts = batch.source.masked_fill(batch.mask == 0, IGNORED).tolist()
        number = {text: index for index, text in reversed(list(enumerate(map(tuple, texts))))}
        rows = sorted(number.values())
        return replace(batch, below=self.below(batch.rows(rows))[[rows.index(number[tuple(text)]) for text in texts]])

    def forward(self, batch: Batch) -> Tensor:
        """Cross-entropy summed over the batch's real target tokens, by their weights; no others go through the head."""
        return self.loss(batch, *self.encode(batch))

    def loss(self, batch: Batch, states: Tensor, mask: Tensor) -> Tensor:
        """The loss of a batch from the states and the padding mask that `encode` returned for it."""
        states = self.reader.decode(batch, (states, mask)).flatten(0, 1)[batch.real]
        labels = batch.labels.flatten()[batch.real]
        weights = None if batch.weights is None else batch.weights[batch.real // batch.labels.shape[1]]
        parts = self.reader.logit_parts(len(states))
        if len(parts) == 1:
            return self._entropy(states, labels, weights)
        # With 250,000 tokens a batch's logits take gigabytes, so they are recomputed in the backward pass, in parts.
        again: Any = {"use_reentrant": False, "preserve_rng_state": False}
        each = [(states[part], labels[part], None if weights is None else weights[part]) for part in parts]
        return torch.stack([checkpoint(self._entropy, *one, **again) for one in each]).sum()

    def _entropy(self, states: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Summed cross-entropy of labels [N], the tokens that states [N, D] should predict, by weights [N] if any."""
        logits = self.reader.logits(states)
        if weights is None:
            return cross_entropy(logits, labels, reduction="sum")
        return cross_entropy(logits, labels, reduction="none") @ weights

    @torch.no_grad()
    def generate(self, batch: Batch, *, max_new_tokens: int, beams: int = 1) -> Tensor:
        """Output ids [B, ≤ max_new_tokens + 1], the start token first; greedy, or the best of a beam search."""
        return self.reader.generate(batch, self._encoded(batch), max_new_tokens, beams=beams)

    def trimmed(self, ids: Tensor) -> Tensor:
        """The output in `generate`'s ids, [B, T]: without the start token, and with IGNORED after the end token."""
        ids = ids[:, 1:]
        ended = torch.isin(ids, torch.tensor(self.family.end_tokens(self.body.config), device=ids.device)).cumsum(1)
        return ids.masked_fill(ended.cumsum(1) > 1, IGNORED)  # the end itself is part of the output

    @torch.no_grad()
    def answer(self, batch: Batch, *, max_new_tokens: int, beams: int = 1) -> tuple[Tensor, Tensor]:
        """Generated ids [B, T] without the start token, IGNORED after each end, and their log-probabilities, there 0.

        A token's probability is the model's, given the source and the tokens before it.
        """
        encoded = self._encoded(batch)
        labels = self.trimmed(self.reader.generate(batch, encoded, max_new_tokens, beams=beams))
        batch = replace(batch, labels=labels)
        if encoded is None:
            encoded = self.encode(batch)
        else:
            self.begin_pass()
        return labels, self.reader.label_log_probs(batch, encoded)

    @torch.no_grad()
    def target_log_probs(self, batch: Batch, targets: Tensor) -> Tensor:
        """Log-probabilities [B, N, T] of the tokens of N targets [N, T], 0 where a target is padded with IGNORED.

        Their sum over T is minus the training loss of the source with that target. A source is read once for all.
        """
        return self.reader.target_log_probs(batch, self._encoded(batch), targets)

    def _encoded(self, batch: Batch) -> Encoded | None:
        """What `encode` returns, once for all targets; None: the target follows the source through the same stack."""
        return None if self.reads.reads_target else self.encode(batch)
