"""Seconds for comparisons: wall clock, or this process's CPU seconds where it computes on one thread.

On an idle machine the two are the same for one thread; on one that is shared, CPU seconds do not count the others.
"""

import time

import torch


def now() -> float:
    """Seconds since some moment."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def name() -> str:
    """Which of the two is read."""
    return "CPU seconds of the one thread" if torch.get_num_threads() == 1 else "wall clock"
