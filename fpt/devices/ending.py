"""What ended the program early, in one line and an exit status, told to the user or to the launcher of several."""

import ctypes
import errno
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fpt.devices import interrupts
from fpt.errors import UserError, reason

GOES_ON = "the same command goes on from what is saved, or starts over where nothing is"
LINGER = 5  # seconds; a launcher ends a process that lingers much sooner, when it has seen another one fail
OF_THE_SYSTEM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EPIPE)


class Failed(Exception):  # noqa: N818 - like KeyboardInterrupt, it names what happened
    """The command has ended early, by no fault of the user's input; `status` is the shell's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def one_of_several() -> Iterator[None]:
    """Within, this process works with others; what ends it early it tells, and ends at once."""
    if sys.platform == "linux":  # have the system stop this process, as by SIGTERM, when its launcher is killed
        set_death_signal = 1  # PR_SET_PDEATHSIG, in linux/prctl.h
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
    try:
        with interrupts.heard():
            yield
    except BaseException as error:
        status = tell(error if _last_word(error) else _unexpected(error))
        sys.stdout.flush()
        os._exit(status)  # without tidying up, which would wait for processes that may be gone


def tell(error: BaseException) -> int:
    """Say in one line what ended the program, and return its exit status; what nobody expects is raised again.

    Where torchrun started the process, torchrun is told, which names the process that failed first.
    """
    said = _last_word(error)
    if said is None:
        raise error
    line, status = said
    if rank := os.environ.get("RANK"):
        line = f"rank {rank}: {line}"
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        Path(file).write_text(json.dumps({"message": line, "timestamp": int(time.time())}))
    else:
        print(f"fpt: {line}", file=sys.stderr)
    return status


def _last_word(error: BaseException) -> tuple[str, int] | None:
    """What is said of an error that a user can understand, and the exit status; None for a fault of ours."""
    match error:
        case UserError():
            return str(error), 2
        case Failed():
            return str(error), error.status
        case interrupts.Interrupted():
            return f"{error}; {GOES_ON}", 128 + error.signal
        case KeyboardInterrupt():
            return "interrupted", 128 + signal.SIGINT
        case OSError() if error.errno in OF_THE_SYSTEM:
            return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror}; {GOES_ON}", 1
    return None


def _unexpected(error: BaseException) -> Failed:
    """A fault of ours, with its traceback; or, after a moment for its launcher to see why, the loss of the others."""
    from torch.distributed import DistError  # here, so that a fault while torch is imported is told too

    text = str(error).lower()
    if isinstance(error, DistError) or "by peer" in text or "timed out" in text:
        time.sleep(LINGER)
        timed_out = "gave up waiting for another process (engine.timeout)"
        what = timed_out if "timed out" in text else "lost the other processes"
    else:
        traceback.print_exception(error)
        what = "failed"
    return Failed(f"{what}: {reason(error)}; {GOES_ON}", 1)
