"""SIGTERM and SIGINT: while a prompt is trained they wait until its state is saved; a second one does not."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME = 2.0  # seconds within which a second signal is the first one's echo: a terminal and a launcher both send it


class Interrupted(BaseException):
    """The run was told to stop by `signal`; where a state was to be saved it is."""

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
    """Within, both signals end the run in order."""
    _Waiting.number = None
    before = {number: signal.signal(number, _handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Within, the first signal is only noted; `requested` tells."""
    _Waiting.deferred = True
    try:
        yield
    finally:
        _Waiting.deferred = False


def requested() -> bool:
    """Whether the run was told to stop."""
    return _Waiting.number is not None


def stop() -> None:
    """End the run now.

    Raises:
        Interrupted: always; where another process was told and this one not yet, as by SIGTERM.
    """
    raise Interrupted(_Waiting.number or signal.SIGTERM)
