"""The door: run one command, and say in one line whatever ends it early."""

import io
import os
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
        if isinstance(error, BrokenPipeError):  # nobody reads the output any more; what is left of it is thrown away
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        from fpt.devices import ending

        return ending.tell(error, words)


def _open_streams() -> None:
    """Have closed standard streams lead nowhere, and write UTF-8 under every locale."""
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:  # or the next file that is opened would be that stream
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # from what became a pipe after Python had opened it as a file
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
