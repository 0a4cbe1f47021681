"""Ways to choose the blocks of a part: each a function from a text and how many to keep to the blocks kept."""

from collections.abc import Callable
from functools import cache

import torch

from bench.parts.text import Kept, Text
from stages.selection import evenly, most_important, outer


def _late(text: Text, kept: int) -> Kept:
    return (*range(kept - 1), len(text.blocks) - 1)


def _gap(text: Text, kept: int) -> Kept:
    total = len(text.blocks)
    losses = text.without_each(tuple(range(total)), total - kept)
    start = losses.index(min(losses))
    return (*range(start), *range(start + total - kept, total))


def _alone(text: Text, kept: int) -> Kept:
    return most_important(torch.tensor(_without_each(text)), kept)


@cache
def _without_each(text: Text) -> list[float]:
    return text.without_each(tuple(range(len(text.blocks))))


@cache
def _by_loss(text: Text, kept: int) -> Kept:
    """What is left of one block more once the block is left out that leaves the lowest loss."""
    if kept == len(text.blocks):
        return tuple(range(kept))
    more = _by_loss(text, kept + 1)
    losses = text.without_each(more)
    left = losses.index(min(losses))
    return (*more[:left], *more[left + 1 :])


WAYS: dict[str, Callable[[Text, int], Kept]] = {
    "evenly": lambda text, kept: evenly(kept, len(text.blocks)),
    "late": _late,
    "outer": lambda text, kept: outer(kept, len(text.blocks)),
    "gap": _gap,
    "influence": lambda text, kept: most_important(text.influence, kept),
    "alone": _alone,
    "loss": _by_loss,
}
