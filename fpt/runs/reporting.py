"""One process of several: all but the main one write to the run's logs, and each leaves word of what ended it early."""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fpt.devices.interrupts import Interrupted
from fpt.devices.processes import GOES_ON, LOGS
from fpt.errors import UserError, reason
from fpt.runs.atomic import replace_file


@contextmanager
def reporting(folder: Path, reports: Path | None) -> Iterator[None]:
    """Within, a process but the main one writes to the run's logs; what ends it early is left in `reports`.

    Started by another launcher than ours there are none, and the process says it itself.
    """
    rank = int(os.environ["RANK"])
    log = folder / LOGS / f"rank-{rank}.txt"
    if reports is not None:
        _end_with_parent()
    if rank:  # also what libraries in C write
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("a")
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        yield
    except BaseException as error:
        if reports is None:
            raise
        message, status, lost_others = _last_words(error, rank, log)
        waited = lost_others and "timed out" in str(error).lower()
        report = {"rank": rank, "time": time.time(), "message": message, "status": status}
        report |= {"lost_others": lost_others, "waited": waited}
        replace_file(reports / f"rank-{rank}.json", json.dumps(report).encode())
        if status == 1 and not lost_others and not isinstance(error, OSError):
            raise
        sys.stdout.flush()
        os._exit(status)  # at once: tidying up would wait for processes that may be gone


def _end_with_parent() -> None:
    """Have the system tell this process to stop, as by SIGTERM, when its launcher is killed; Linux alone can."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG, in linux/prctl.h
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def _last_words(error: BaseException, rank: int, log: Path) -> tuple[str, int, bool]:
    """Message, exit status, and whether it is but the loss of another process."""
    if isinstance(error, UserError):
        return str(error), 2, False
    if isinstance(error, Interrupted):
        return f"{error}; {GOES_ON}", 128 + error.signal, False
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"rank {rank}: {where}{error.strerror}; {GOES_ON}", 1, False
    from torch.distributed import DistError  # here, so that what goes wrong while torch is imported is reported too

    text = str(error).lower()
    lost = isinstance(error, DistError) or any(word in text for word in ("by peer", "timed out"))
    what = "lost the others" if lost else "failed"
    place = f" (see {log})" if rank else ""
    return f"rank {rank} {what}: {reason(error)}{place}; {GOES_ON}", 1, lost
