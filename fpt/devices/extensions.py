"""What DeepSpeed builds when it is first used; a build that is killed leaves a lock, on which every later run waits."""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from torch.utils import cpp_extension

from fpt.errors import UserError

BUILT = ("deepspeed_shm_comm", "async_io", "pin_memory")  # for sums on a CPU, for NVMe, for offloading
OLD = 300.0  # seconds; a lock as old as that is no build's on another machine that shares the folder


def check_locks() -> None:
    """Go on when nothing is in the way of a build; what a process of this machine builds, DeepSpeed itself waits for.

    Raises:
        UserError: a build was killed and has left its lock.
    """
    waits = False
    while (lock := next(_unheld_locks(), None)) is not None:
        if _age(lock) >= OLD:
            raise UserError(
                f"{lock}: a build of DeepSpeed's was killed and has left it, and every run would wait for it for ever;"
                " remove this file"
            )
        if not waits:
            print(f"waiting for {lock}: another machine may be building there", file=sys.stderr)
        waits = True
        time.sleep(1)


def abandoned_locks() -> list[Path]:
    """Locks that builds have left."""
    return [lock for lock in _unheld_locks() if _age(lock) >= OLD]


def _unheld_locks() -> Iterator[Path]:
    """Locks that no process of this machine has open, as the one that builds has."""
    for name in BUILT:
        with suppress(OSError):  # where the folder cannot be made nothing is built
            lock = Path(cpp_extension._get_build_directory(name, verbose=False)).resolve() / "lock"
            if lock.exists() and not any(_has_open(process, lock) for process in psutil.process_iter()):
                yield lock


def _has_open(process: psutil.Process, file: Path) -> bool:
    try:
        return any(opened.path == str(file) for opened in process.open_files())
    except psutil.Error:  # it has ended, or is another user's, who has a folder of their own
        return False


def _age(lock: Path) -> float:
    """Seconds since the lock was taken; 0 where it is gone."""
    try:
        return time.time() - lock.stat().st_mtime
    except FileNotFoundError:
        return 0.0
