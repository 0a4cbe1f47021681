"""Named random streams: one seed, and a generator of its own for each purpose.

Streams do not touch each other, so every schedule starts from the same prompt and sees the same data.
"""

import hashlib

import torch


def stream(seed: int, name: str, index: int = 0) -> torch.Generator:
    """A generator that depends on (seed, name, index) alone."""
    digest = hashlib.sha256(f"{seed}/{name}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def drawn(total: int, count: int, seed: int, name: str) -> list[int]:
    """`count` of the numbers below `total`, or all where there are fewer, ascending."""
    return sorted(torch.randperm(total, generator=stream(seed, name))[:count].tolist())
