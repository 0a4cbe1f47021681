"""Prompts as trainable modules: the learned tensors, and how their vectors enter the hidden states.

Letters: B batch, S source, P prompt, D model, W widest window.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from fpt.config.schema import PromptConfig
from fpt.errors import UserError
from fpt.random_streams import stream

Tensors = dict[str, Tensor]  # learned tensors, by name


class Prompt(nn.Module):
    """The learned tensors that a prompt's vectors are made from; in float32, as small updates vanish in bfloat16."""

    is_behind = False  # whether the vectors stand behind the source rather than before it

    def __init__(self, tensors: Tensors, *, length: int, position: int, dropout: float = 0.0) -> None:
        """Start from `tensors`; `length` vectors enter after `position` blocks, with `dropout` in training."""
        super().__init__()
        self.length, self.position, self.dropout = length, position, dropout
        for name in sorted(tensors):  # a fixed order, as the optimizer numbers them, and files may have any order
            self.register_parameter(name, nn.Parameter(tensors[name].detach().clone().float()))

    @property
    def tensors(self) -> dict[str, nn.Parameter]:
        """The learned tensors, by name."""
        return dict(self.named_parameters())

    def learned(self) -> Tensors:
        """A copy of the tensors on the CPU, by name."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.named_parameters()}

    @torch.no_grad()
    def learn(self, tensors: Tensors) -> None:
        """Overwrite the learned tensors with these."""
        for name, tensor in self.named_parameters():
            tensor.copy_(tensors[name])

    def joined(
        self, states: Tensor, mask: Tensor, source: Tensor, factors: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Each example's vectors with its states [B, L, D] and mask [B, L], at their place: [B, P+L, D] and [B, P+L].

        The vectors may depend on the source's states, the first S, whose padding mask [B, S] is `source`. They are
        multiplied by dropout's `factors` [B, P, D].
        """
        vectors = self(states[:, : source.shape[1]], source)
        vectors = vectors if factors is None else vectors * factors
        return self._in_order(vectors.to(states.dtype), states), self._in_order(self.own_mask(mask), mask)

    def own_mask(self, mask: Tensor) -> Tensor:
        """The padding mask [B, P] of the vectors for a batch with this mask."""
        return mask.new_ones(len(mask), self.length)

    def _in_order(self, own: Tensor, others: Tensor) -> Tensor:
        return torch.cat([others, own] if self.is_behind else [own, others], 1)


class SoftPrompt(Prompt):
    """P learned vectors that go before the embedded source, or behind it."""

    def __init__(self, vectors: Tensor, *, is_behind: bool = False) -> None:
        """Start from vectors [P, D]."""
        super().__init__({"prompt": vectors}, length=len(vectors), position=0)
        self.is_behind = is_behind

    def forward(self, states: Tensor, _: Tensor) -> Tensor:
        """The vectors [B, P, D], the same for every example."""
        return self.tensors["prompt"].expand(len(states), -1, -1)


class LatePrompt(Prompt):
    """Vectors that are made from each example's hidden states, or with no generator are learned directly."""

    def __init__(self, config: PromptConfig, tensors: Tensors, *, position: int, dropout: float = 0.0) -> None:
        """Start from the tensors that `Late.shapes` names."""
        super().__init__(tensors, length=config.length, position=position, dropout=dropout)
        self._generator = config.generator
        self._pool = "first" if config.pool == "auto" else config.pool  # a run's settings are resolved already

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """The vectors [B, P, D] for states [B, S, D], whatever their padding."""
        tensors = self.tensors
        if self._generator == "none":
            return tensors["vectors"].expand(len(states), -1, -1)
        states, lengths = states.float(), mask.sum(1)
        down, up = (tensors["down"], tensors["down_bias"]), (tensors["up"], tensors["up_bias"])
        if self._generator == "npg":
            hidden = functional.linear(pooled(states, lengths, self._pool), *down)
        elif self._generator == "appg":  # the paper averages after this layer; before it is equal and cheaper
            hidden = functional.linear(average_pooled(states, lengths, self.length), *down)
        else:
            hidden = max_pooled(functional.linear(states, *down), lengths, self.length)
        return functional.linear(hidden.relu(), *up).view(len(states), self.length, -1)


class MixedPrompt(Prompt):
    """Several prompts that enter at the same place, one for each example of a batch."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        """Use prompts[i] for example i of the batch."""
        distinct = dict.fromkeys(prompts)
        self._rows = [(one, [row for row, own in enumerate(prompts) if own is one]) for one in distinct]
        super().__init__({}, length=max(prompt.length for prompt in prompts), position=prompts[0].position)
        self.is_behind = prompts[0].is_behind

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """The vectors [B, P, D] of each example's prompt; shorter prompts are padded in front."""
        vectors = states.new_zeros(len(states), self.length, states.shape[2])
        for prompt, rows in self._rows:
            vectors[rows, self.length - prompt.length :] = prompt(states[rows], mask[rows]).to(states.dtype)
        return vectors

    def own_mask(self, mask: Tensor) -> Tensor:
        """As `Prompt.own_mask`; with padding in front of a shorter prompt, distances to the source do not change."""
        own = super().own_mask(mask)
        for prompt, rows in self._rows:
            own[rows, : self.length - prompt.length] = 0
        return own


def common_pieces(tokenizer: PreTrainedTokenizerBase, count: int, seed: int, *, among: int) -> list[int]:
    """Draw the ids of `count` pieces `among` the most frequent ones, without replacement."""
    special = set(tokenizer.all_special_ids)
    ids = [index for index in range(min(among, len(tokenizer))) if index not in special]
    if len(ids) < count:
        raise UserError(f"prompt.length: {count} pieces wanted, but the vocabulary has only {len(ids)}")
    order = torch.randperm(len(ids), generator=stream(seed, "prompt"))[:count]
    return [ids[index] for index in order.tolist()]


def drawn(shapes: dict[str, tuple[int, ...]], seed: int, *, normal: bool = False) -> Tensors:
    """Random float32 tensors: uniform in ±1/√inputs, like torch's linear layers and their biases, or from N(0, 1)."""
    random, tensors = stream(seed, "prompt"), {}
    if normal:
        return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        bound = shapes[name.removesuffix("_bias")][-1] ** -0.5
        tensors[name] = torch.rand(shape, generator=random) * 2 * bound - bound
    return tensors


def dropped_out(prompt: Prompt, width: int, seed: int, examples: Sequence[int], update: int) -> Tensor | None:
    """Dropout's factors [B, P, D] for the vectors of an update's examples; None: the prompt has no dropout.

    They depend only on the example, the seed and the update, so that the result is the same for any micro-batch size
    and number of processes, and after resuming.
    """
    if not prompt.dropout:
        return None
    streams = (stream(seed, f"dropout {update}", example) for example in examples)
    drawn = torch.stack([torch.rand(prompt.length, width, generator=random) for random in streams])
    return (drawn >= prompt.dropout) / (1 - prompt.dropout)


def pooled(states: Tensor, lengths: Tensor, pool: str) -> Tensor:
    """One state [B, D] per example, pooled from its `lengths` [B] real states: the first, the last or their mean."""
    if pool == "first":
        return states[:, 0]
    if pool == "last":
        return states[torch.arange(len(states), device=states.device), lengths - 1]
    return average_pooled(states, lengths, 1)[:, 0]


def average_pooled(states: Tensor, lengths: Tensor, outputs: int) -> Tensor:
    """Adaptive average pooling, as torch's, of each example's `lengths` [B] real states to [B, outputs, D]."""
    parts, counts = _parted(states, lengths, outputs)
    return (parts * counts[..., None]).sum(2) / counts.sum(2, keepdim=True)


def max_pooled(states: Tensor, lengths: Tensor, outputs: int) -> Tensor:
    """Adaptive max pooling, as torch's, of each example's `lengths` [B] real states to [B, outputs, D]."""
    parts, counts = _parted(states, lengths, outputs)
    return parts.masked_fill(~counts[..., None], -torch.inf).amax(2)


def _parted(states: Tensor, lengths: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """The states in each output's window [B, outputs, W, D], and which of them count [B, outputs, W].

    Windows are no wider than necessary, so that this takes little more memory than the states themselves.
    """
    number = torch.arange(outputs, device=states.device)
    starts, ends = number * lengths[:, None] // outputs, -(-(number + 1) * lengths[:, None] // outputs)
    widest = states.shape[1] // outputs + 2
    indices = starts[..., None] + torch.arange(widest, device=states.device)
    rows = torch.arange(len(states), device=states.device)[:, None, None]
    return states[rows, indices.minimum(ends[..., None] - 1)], indices < ends[..., None]
