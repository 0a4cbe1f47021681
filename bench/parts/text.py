"""A text under a prompt, and how well parts of a model predict it.

Letters: B batch, L positions, P prompt, D model, F neurons, N tokens, blocks in [brackets] are counted from 0.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fpt.backbones import calls
from fpt.data.encoded import Batch, Encoded
from fpt.prompts.prompted import PromptedModel
from stages.selection import most_important

AT_ONCE, RIDGE = 32, 1e-2
Pass = tuple[Batch, Tensor, Tensor, list[calls.Call]]  # a batch, its first states [B, P+L, D], padding mask, arguments
Kept = tuple[int, ...]


class Text:
    """A text that the stack which a soft prompt enters reads, with some of its blocks or neurons left out."""

    def __init__(self, name: str, model: PromptedModel, data: Encoded) -> None:
        """Read `data` with the whole model and its prompt."""
        self.name, self.model = name, model
        stack = next(iter(model.family.row.stacks))
        self.blocks: list[nn.Module] = model.family.blocks_of(model.body, stack)
        self.layers = model.family.activations_of(model.body, stack)
        batches = (data.batch(range(at, min(at + AT_ONCE, len(data)))) for at in range(0, len(data), AT_ONCE))
        self._passes = list(map(self._begun, batches))

    @torch.no_grad()
    def _begun(self, batch: Batch) -> Pass:
        ids, mask = self.model.inputs(batch)
        below = self.model.family.states_before(self.model.body, ids, mask, 0)
        states, mask = self.model.prompt.joined(below, mask, batch.mask)
        return batch, states, mask, self.model.family.arguments(self.model.body, states, mask)

    def loss(self, kept: Kept, bridge: nn.Module | None = None) -> tuple[float, Tensor]:
        """The loss per token with these blocks alone, and its gradient for the prompt [P, D].

        A bridge is put over the gap that the blocks leave.
        """
        start = next((place for place, block in enumerate(kept) if place != block), len(kept))
        length = self.model.prompt.length
        total, tokens, gradient = 0.0, 0, torch.zeros(length, self.model.width)
        for batch, states, mask, recorded in self._passes:
            first = states.clone().requires_grad_(length > 0)
            states = self._through(first, recorded, kept[:start])
            states = self._through(states if bridge is None else bridge(states), recorded, kept[start:])
            loss = self._lost(batch, states, mask)
            total, tokens = total + float(loss), tokens + len(batch.real)
            if length:
                gradient += torch.autograd.grad(loss, first)[0][:, :length].float().sum(0)
        return total / tokens, gradient

    @torch.no_grad()
    def without_each(self, kept: Kept, out: int = 1) -> list[float]:
        """The losses without `out` of the kept blocks in a row, beginning with each of them."""
        losses, tokens = [0.0] * (len(kept) - out + 1), 0
        for batch, states, mask, recorded in self._passes:
            tokens += len(batch.real)
            for start in range(len(losses)):
                losses[start] += float(self._lost(batch, self._through(states, recorded, kept[start + out :]), mask))
                states = self._through(states, recorded, kept[start : start + 1])
        return [loss / tokens for loss in losses]

    def _through(self, states: Tensor, recorded: list[calls.Call], kept: Sequence[int]) -> Tensor:
        return calls.run([self.blocks[block] for block in kept], [recorded[block] for block in kept], states)

    def _lost(self, batch: Batch, states: Tensor, mask: Tensor) -> Tensor:
        return self.model.loss(batch, self.model.family.normed(self.model.body, states), mask)

    # What is measured on the whole model.

    @cached_property
    @torch.no_grad()
    def states(self) -> list[Tensor]:
        """The states [N, D] before each block, and after the last one."""
        found: list[list[Tensor]] = [[] for _ in range(len(self.blocks) + 1)]
        for _, states, mask, recorded in self._passes:
            found[0].append(states[mask.bool()].float())
            for block in range(len(self.blocks)):
                states = self._through(states, recorded, [block])
                found[block + 1].append(states[mask.bool()].float())
        return [torch.cat(parts) for parts in found]

    @cached_property
    def influence(self) -> Tensor:
        """Of each block, one minus the cosine of its input and its output, averaged over tokens."""
        pairs = pairwise(self.states)
        return torch.stack([1 - torch.cosine_similarity(before, after, dim=-1).mean() for before, after in pairs])

    @cached_property
    @torch.no_grad()
    def activations(self) -> list[Tensor]:
        """Of each block, its neurons' activations [N, F]."""
        seen: list[list[Tensor]] = [[] for _ in self.layers]
        for _, states, mask, recorded in self._passes:
            real = mask.bool()

            def record(found: list[Tensor], real: Tensor = real) -> Callable[..., None]:
                return lambda _, inputs: found.append(inputs[0][real].float())

            with ExitStack() as hooks:
                for layer, found in zip(self.layers, seen, strict=True):
                    hooks.enter_context(layer.register_forward_pre_hook(record(found)))
                self._through(states, recorded, range(len(self.blocks)))
        return [torch.cat(parts) for parts in seen]

    def bridge(self, start: int, end: int) -> nn.Module:
        """The linear map (ridge regression) from the states before block `start` to those before block `end`."""
        before, after = self.states[start].double(), self.states[end].double()
        inputs = torch.cat([before, torch.ones(len(before), 1)], 1)
        products = inputs.T @ inputs
        penalty = torch.eye(len(products)) * RIDGE * products.diagonal()[:-1].mean()
        penalty[-1, -1] = 0
        solved = torch.linalg.solve(products + penalty, inputs.T @ (after - before))
        width = len(solved) - 1
        bridge = nn.Linear(width, width, dtype=self._passes[0][1].dtype).requires_grad_(False)
        bridge.weight.copy_(solved[:-1].T + torch.eye(width))
        bridge.bias.copy_(solved[-1])
        return bridge

    @contextmanager
    def narrow(self, width: float, *, by: str) -> Iterator[None]:
        """A context in which each block has only a share of its neurons: the most active ones, or those that vary most.

        The latter (An et al. 2024, arXiv 2312.11983) have the others' mean activation added.
        """
        hooks = ExitStack()
        for layer, seen in zip(self.layers, self.activations, strict=True):
            weights: Any = layer.weight
            is_active = by == "activity"
            scores = seen.abs().mean(0) if is_active else seen.std(0) * weights.float().norm(dim=0)
            off = torch.ones(len(scores), dtype=torch.bool)
            off[list(most_important(scores, round(width * len(scores))))] = False
            rest = torch.zeros(len(scores)) if is_active else seen.mean(0)

            def silence(_: nn.Module, inputs: Any, off: Tensor = off, rest: Tensor = rest) -> tuple[Tensor]:
                return (torch.where(off, rest.to(inputs[0].dtype), inputs[0]),)

            hooks.enter_context(layer.register_forward_pre_hook(silence))
        with hooks:
            yield
