"""Writes files and folders atomically: each is written under another name and then renamed."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def replace_file(file: Path, data: bytes) -> None:
    """Replace a file's content by these bytes, and make its folder if need be."""
    with replaced_file(file) as stream:
        stream.write(data)


@contextmanager
def replaced_file(file: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file next to `file`, which replaces it at the end and is removed after an error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    try:
        with naming(file), part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except BaseException:  # a signal's error too, which is not an Exception
        part.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, which is renamed to `folder` at the end, or removed after an error."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # left by a kill
    part.mkdir(parents=True)
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
    """Make errors of the disk name a path: streams' errors name none, and libraries in Rust raise their own types."""
    try:
        yield
    except Exception as error:
        told = re.search(r"\(os error (\d+)\)", str(error))
        number = getattr(error, "errno", None) or (told and int(told[1]))
        if not number or getattr(error, "filename", None):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def try_writing(folder: Path) -> None:
    """Make a folder and a file in it, and remove both again; raises an OSError if either cannot be made."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()
