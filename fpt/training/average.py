"""A running mean of the prompt over updates, which a step that overshoots moves less than the prompt itself."""

from copy import deepcopy

import torch

from fpt.prompts.modules import Prompt, Tensors


class Average:
    """An exponential moving average of the prompt with decay `weight`; with 0 there is none.

    Polyak and Juditsky 1992 average uniformly; a prompt moves too far for that. The mean starts at the initial prompt.

    Attributes:
        kept: the prompt that is validated and saved: the mean where there is one, else the learned prompt.
    """

    def __init__(self, prompt: Prompt, weight: float, mean: Tensors | None) -> None:
        """Continue from a saved mean, or start at the prompt as it is."""
        self._prompt, self._weight = prompt, weight
        self.kept = deepcopy(prompt) if weight else prompt
        if weight and mean is not None:
            self.kept.learn(mean)

    @torch.no_grad()
    def update(self) -> None:
        """Move the mean towards the prompt after an update."""
        if self._weight:
            for name, tensor in self.kept.tensors.items():
                tensor.lerp_(self._prompt.tensors[name], 1 - self._weight)

    def copy(self) -> Tensors | None:
        """A copy of the mean on the CPU, by name; None: there is none."""
        return self.kept.learned() if self._weight else None
