"""Seconds for comparisons: wall clock, or this process's CPU seconds where it computes on one thread.

On an idle machine the two are the same for one thread; on one that is shared, CPU seconds do not count the others.
"""

import time

import torch


def now() -> float:
    """Seconds since some moment."""
    return time.process_time() if _counts_cpu() else time.perf_counter()


def name() -> str:
    """Which of the two is read."""
    return "CPU seconds of the one thread" if _counts_cpu() else "wall clock"


def _counts_cpu() -> bool:
    """A card computes beside the one thread."""
    return torch.get_num_threads() == 1 and not torch.cuda.is_available()
