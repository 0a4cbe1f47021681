"""SIGTERM and SIGINT, which wait until the state of a training run is saved; a second one does not wait."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME = 2.0  # seconds within which a second signal is an echo: a terminal and a launcher both send it


class Interrupted(BaseException):
    """Raised when `signal` has stopped the run, after its state was saved."""

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
    """Have both signals raise `Interrupted`."""
    _Waiting.number = None
    before = {number: signal.signal(number, _handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Only note the first signal, for `requested`."""
    _Waiting.deferred = True
    try:
        yield
    finally:
        _Waiting.deferred = False


def requested() -> bool:
    """Return whether a signal has come."""
    return _Waiting.number is not None


def stop() -> None:
    """Raise `Interrupted`, also where the signal has so far reached another process alone."""
    raise Interrupted(_Waiting.number or signal.SIGTERM)
