"""The running mean over updates' prompts, which steps that overshoot move less than the prompt itself."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fpt.prompts.modules import Prompt, Tensors


class Average:
    """An exponential moving average, of which `weight` stays at each update.

    Polyak and Juditsky 1992 average uniformly; a prompt moves too far for that. It begins with the prompt's start.
    With a weight of 0 there is none, and each update's prompt stands for itself.
    """

    def __init__(self, prompt: Prompt, weight: float, mean: Tensors | None) -> None:
        """Go on from a mean, or begin with the prompt as it is."""
        self._prompt, self._weight = prompt, weight
        begun = prompt.tensors if mean is None else mean
        self._mean = {
            name: begun[name].detach().to(tensor.device, copy=True) for name, tensor in prompt.tensors.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the prompt that an update left."""
        if self._weight:
            for name, tensor in self._prompt.tensors.items():
                self._mean[name].lerp_(tensor, 1 - self._weight)

    def copy(self) -> Tensors | None:
        """A copy of the mean, by name, off the device; None: there is none."""
        return {name: mean.to("cpu", copy=True) for name, mean in self._mean.items()} if self._weight else None

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the mean is in the prompt's place."""
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
