"""The running mean over updates' prompts, which a step that overshoots moves less than the prompt itself."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fpt.prompts.modules import Prompt, Tensors


class Average:
    """An exponential moving average that keeps a share `weight` of itself at each update; with 0 there is none.

    Polyak and Juditsky 1992 average uniformly; a prompt moves too far for that. The mean begins as the prompt does.
    """

    def __init__(self, prompt: Prompt, weight: float, mean: Tensors | None) -> None:
        """Continue from a mean, or begin with the prompt as it is."""
        self._prompt, self._weight = prompt, weight
        begun = prompt.tensors if mean is None else mean
        self._mean = {
            name: begun[name].detach().to(tensor.device, copy=True) for name, tensor in prompt.tensors.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Include the prompt as an update has left it."""
        if self._weight:
            for name, tensor in self._prompt.tensors.items():
                self._mean[name].lerp_(tensor, 1 - self._weight)

    def copy(self) -> Tensors | None:
        """A copy of the mean on the CPU, by name; None: there is none."""
        return {name: mean.to("cpu", copy=True) for name, mean in self._mean.items()} if self._weight else None

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the prompt's tensors hold the mean."""
        if not self._weight:
            yield
            return
        with torch.no_grad():
            learned = {name: tensor.clone() for name, tensor in self._prompt.tensors.items()}
            self._put(self._mean)
            try:
                yield
            finally:
                self._put(learned)

    def _put(self, tensors: Tensors) -> None:
        for name, tensor in self._prompt.tensors.items():
            tensor.copy_(tensors[name])
