"""Ends a command early, by a signal or an error, with one line that says why and with an exit status.

The first SIGTERM or SIGINT waits until a training run has saved its state, a second one does not.
"""

import ctypes
import errno
import json
import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import FrameType

from fpt import __version__
from fpt.devices import processes
from fpt.errors import UserError, reason

GOES_ON = "the same command goes on from what is saved, or starts over where nothing is"
RESUMING_VERBS = {"train", "compare"}
LINGER = 5  # seconds to wait for the launcher, which ends this process sooner if it sees that another one has failed
SYSTEM_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EPIPE)
SAME = 2.0  # seconds within which a second signal counts as the first: a terminal and a launcher both send it


class Failed(Exception):  # noqa: N818 - like KeyboardInterrupt, it names what happened
    """Ends the command early for a reason other than the user's input; `status` is its exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Interrupted(BaseException):
    """Raised when `signal` stops the run; after a first signal in training, its state has been saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class _Waiting:
    number: int | None = None
    since = 0.0
    deferred = False


def _handle(number: int, _: FrameType | None) -> None:
    now = time.monotonic()
    if _Waiting.number is None:
        _Waiting.number, _Waiting.since = number, now
        if not _Waiting.deferred:
            raise Interrupted(number)
    elif now - _Waiting.since > SAME:
        raise Interrupted(number)


@contextmanager
def heard() -> Iterator[None]:
    """A context in which SIGTERM and SIGINT raise `Interrupted`."""
    _Waiting.number = None
    before = {number: signal.signal(number, _handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """A context in which the first signal is only noted, for `requested`."""
    _Waiting.deferred = True
    try:
        yield
    finally:
        _Waiting.deferred = False


def requested() -> bool:
    """Return whether a signal has arrived."""
    return _Waiting.number is not None


def stop() -> None:
    """Raise `Interrupted`, even if the signal has so far reached only another process."""
    raise Interrupted(_Waiting.number or signal.SIGTERM)


@contextmanager
def one_of_several() -> Iterator[None]:
    """Make a worker say what stopped it and exit at once; a process that works alone is left as it is."""
    if not processes.is_worker():
        yield
        return
    if sys.platform == "linux":  # have the kernel send this process SIGTERM when its launcher is killed
        set_death_signal = 1  # PR_SET_PDEATHSIG, in linux/prctl.h
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
    try:
        with heard():
            yield
    except BaseException as error:
        status = tell(_loss_of_others(error) or error)
        sys.stdout.flush()
        os._exit(status)  # skips cleanup, which would wait for processes that may be gone


def tell(error: BaseException, words: Sequence[str] | None = None) -> int:
    """Say in one line what ended a command, and return its exit status.

    `words` is the command line; None means this process's own. If torchrun started the process, the line is written to
    its error file: torchrun reports the process that failed first.
    """
    words = sys.argv[1:] if words is None else words
    line, status = _last_word(error, words)
    verb = next((word for word in words if not word.startswith("-")), None)
    if status != 2 and verb in RESUMING_VERBS and GOES_ON not in line:  # a launcher repeats what its process said
        line = f"{line}; {GOES_ON}"
    if rank := os.environ.get("RANK"):
        line = f"rank {rank}: {line}"
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        Path(file).write_text(json.dumps({"message": line, "timestamp": int(time.time())}))
    else:
        print(f"fpt: {line}", file=sys.stderr)
    return status


def _last_word(error: BaseException, words: Sequence[str]) -> tuple[str, int]:
    match error:
        case UserError():
            return str(error), 2
        case Failed():
            return str(error), error.status
        case Interrupted():
            return str(error), 128 + error.signal
        case _ if _was_interrupted(error):
            return "interrupted", 128 + signal.SIGINT
        case OSError() if error.errno in SYSTEM_FAILURES:
            return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror}", 1
        case Exception():
            return f"failed ({reason(error)}); details for a bug report are {_details(error, words)}", 1
    raise error


def _was_interrupted(error: BaseException | None) -> bool:
    """Return whether Ctrl-C caused an error: libraries turn it into other errors while they are imported."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _details(error: Exception, words: Sequence[str]) -> str:
    """Write the traceback of a bug to a file, or to standard error if no file can be written; returns where it is."""
    text = "".join([f"fpt {__version__}: {shlex.join(words)}\n", *traceback.format_exception(error)])
    try:
        with NamedTemporaryFile(prefix="fpt-", suffix=".txt", delete=False) as file:
            file.write(text.encode(errors="backslashreplace"))
    except OSError:
        print(text, file=sys.stderr)
        return "above"
    return f"in {file.name}"


def _loss_of_others(error: BaseException) -> Failed | None:
    """Describe an error that came from other processes ending, after giving the launcher time to see why they did."""
    if not isinstance(error, Exception) or isinstance(error, UserError | Failed):
        return None
    from torch.distributed import DistError  # imported here, so that errors while importing torch are reported too

    text = str(error).lower()
    if not (isinstance(error, DistError) or "by peer" in text or "timed out" in text):
        return None
    time.sleep(LINGER)
    timed_out = "gave up waiting for another process (engine.timeout)"
    return Failed(f"{timed_out if 'timed out' in text else 'lost the other processes'}: {reason(error)}", 1)
