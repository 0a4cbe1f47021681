"""Write aside, then rename: a file or a folder is whole under its name, or what was there before."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def replace_file(file: Path, data: bytes) -> None:
    """Write a file aside and put it in the place of what was there; its folder is made."""
    with replaced_file(file) as stream:
        stream.write(data)


@contextmanager
def replaced_file(file: Path, *, aside: str | None = None) -> Iterator[IO[bytes]]:
    """Within, a file beside another is written; after, it takes the other's place, and after an error it is gone.

    `aside` is its name where several processes may write the same.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(aside or f".{file.name}.part")
    try:
        with naming(file), part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except BaseException:  # a signal is none of Exception
        part.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Within, a path beside a folder, to be made and filled; after, it is the folder, and after an error it is gone."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # left by a kill
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(folder):
            yield part
            for file in part.rglob("*"):
                if file.is_file():
                    with file.open("rb") as stream:
                        os.fsync(stream.fileno())
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within, a disk's error names what was written: a stream's names nothing, and Rust's libraries have their own."""
    try:
        yield
    except Exception as error:
        told = re.search(r"\(os error (\d+)\)", str(error))
        number = getattr(error, "errno", None) or (told and int(told[1]))
        if not number or getattr(error, "filename", None):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def try_writing(folder: Path) -> None:
    """Make a folder and a file in it, and leave nothing of what was not there.

    Raises:
        OSError: it cannot be done.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()
