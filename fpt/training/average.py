"""The running mean over updates' prompts, which a step that overshoots moves less than the prompt itself."""

from copy import deepcopy

import torch

from fpt.prompts.modules import Prompt, Tensors


class Average:
    """An exponential moving average that keeps a share `weight` of itself at each update; with 0 there is none.

    Polyak and Juditsky 1992 average uniformly; a prompt moves too far for that. The mean begins as the prompt does.

    Attributes:
        kept: the prompt that is scored and kept: the mean where there is one, else what is learned.
    """

    def __init__(self, prompt: Prompt, weight: float, mean: Tensors | None) -> None:
        """Continue from a mean, or begin with the prompt as it is."""
        self._prompt, self._weight = prompt, weight
        self.kept = deepcopy(prompt) if weight else prompt
        if weight and mean is not None:
            self.kept.learn(mean)

    @torch.no_grad()
    def update(self) -> None:
        """Include the prompt as an update has left it."""
        if self._weight:
            for name, tensor in self.kept.tensors.items():
                tensor.lerp_(self._prompt.tensors[name], 1 - self._weight)

    def copy(self) -> Tensors | None:
        """A copy of the mean on the CPU, by name; None: there is none."""
        return self.kept.learned() if self._weight else None
