"""Checks the locks of DeepSpeed's extension builds: every later run would wait for one that a killed build left."""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from torch.utils import cpp_extension

from fpt.errors import UserError

BUILT = ("pin_memory",)  # the extension that offloading builds
OLD = 300.0  # seconds; a build on another machine that shares the folder takes less time


def check_locks() -> None:
    """Wait for builds on other machines, and refuse a lock that a killed build has left."""
    is_told = False
    while lock_and_age := next(_unheld_locks(), None):
        lock, age = lock_and_age
        if age >= OLD:
            raise UserError(
                f"{lock}: a build of DeepSpeed's was killed and has left it, and every run would wait for it for ever;"
                " remove this file"
            )
        if not is_told:
            print(f"waiting for {lock}: another machine may be building there", file=sys.stderr)
        is_told = True
        time.sleep(1)


def abandoned_locks() -> list[Path]:
    """List the locks that killed builds have left."""
    return [lock for lock, age in _unheld_locks() if age >= OLD]


def _unheld_locks() -> Iterator[tuple[Path, float]]:
    """Yield the locks that no process on this machine has open, as a builder would, and their age in seconds."""
    for name in BUILT:
        with suppress(OSError):  # the folder cannot be made, or the lock is gone
            lock = Path(cpp_extension._get_build_directory(name, verbose=False)).resolve() / "lock"
            age = time.time() - lock.stat().st_mtime
            # Other users' open files cannot be seen, but their builds use folders of their own.
            files = [process.info["open_files"] or () for process in psutil.process_iter(["open_files"])]
            if str(lock) not in {file.path for opened in files for file in opened}:
                yield lock, age
