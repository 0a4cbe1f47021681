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
from fpt.devices.processes import GOES_ON, LOGS, Failed, GaveUp
from fpt.errors import UserError, reason
from fpt.runs.atomic import replace_file


@contextmanager
def reporting(folder: Path, reports: Path | None) -> Iterator[None]:
    """Within, a process but the main one writes to the run's logs; what ends it early is left in `reports`.

    Started by another launcher than ours there are none, and the process says it itself: in one line, if it but lost
    or gave up waiting for another.
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
        message, status, end = _last_words(error, rank, log)
        if reports is None:
            if end in ("lost", "waited"):
                raise Failed(message, status) from None
            raise
        report = {"rank": rank, "time": time.time(), "message": message, "status": status, "end": end}
        report["starting"] = isinstance(error, GaveUp)
        replace_file(reports / f"rank-{rank}.json", json.dumps(report).encode())
        if status == 1 and end == "failed" and not isinstance(error, OSError):
            raise
        sys.stdout.flush()
        os._exit(status)  # at once: tidying up would wait for processes that may be gone


def _end_with_parent() -> None:
    """Have the system tell this process to stop, as by SIGTERM, when its launcher is killed; Linux alone can."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG, in linux/prctl.h
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def _last_words(error: BaseException, rank: int, log: Path) -> tuple[str, int, str]:
    """Message, exit status, and which end it is: failed, stopped, or only that another process was lost or waited for.

    Why the other one is not there is known to the launcher alone, if at all.
    """
    if isinstance(error, UserError):
        return str(error), 2, "failed"
    if isinstance(error, Interrupted):
        return f"{error}; {GOES_ON}", 128 + error.signal, "stopped"
    if isinstance(error, GaveUp):
        return str(error), error.status, "waited"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"rank {rank}: {where}{error.strerror}; {GOES_ON}", 1, "failed"
    from torch.distributed import DistError  # here, so that what goes wrong while torch is imported is reported too

    text = str(error).lower()
    end = "lost" if isinstance(error, DistError) or "by peer" in text else "failed"
    if any(word in text for word in ("timed out", *(["timeout"] if end == "lost" else []))):
        end = "waited"
    what = {"waited": "gave up waiting for another process", "lost": "lost the others", "failed": "failed"}[end]
    place = f" (see {log})" if rank else ""
    return f"rank {rank} {what}: {reason(error)}{place}; {GOES_ON}", 1, end
