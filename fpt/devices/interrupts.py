"""Handles SIGTERM and SIGINT: the first waits until a training run has saved its state, a second one does not."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME = 2.0  # seconds within which a second signal counts as the first: a terminal and a launcher both send it


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
    """A context in which both signals raise `Interrupted`."""
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
