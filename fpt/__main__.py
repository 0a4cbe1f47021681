"""The door: run one command, and say in one line whatever ends it early."""

import io
import os
import select
import sys
from collections.abc import Sequence
from contextlib import suppress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 input cannot be used, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _open_streams()
        from fpt.cli.command import run  # here, so that Ctrl-C during the import is one line too

        status = run(words)
        sys.stdout.flush()
        return status
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            return 0
        from fpt.devices import ending

        return ending.tell(error, words)


def _open_streams() -> None:
    """Have closed standard streams lead nowhere, and write UTF-8 under every locale."""
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)  # or the next file that is opened would be that stream
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # from what became a pipe after Python had opened it as a file
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _is_unread() -> bool:
    """Whether standard output is a pipe that nobody reads any more; what is left for it is thrown away."""
    (stdout := select.poll()).register(1, 0)
    if stdout.poll(0):  # an error, or that the other end is closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
