"""Writes files and folders atomically, under another name first, and checks files and names that others wrote."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

from fpt.config.schema import LONGEST
from fpt.errors import UserError

FIRST_BYTES = {
    b"version https://git-lfs": "is a Git LFS pointer to the file, which git lfs pull fetches",
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"BZh": "is compressed with bzip2; unpack it first",
    b"\xfd7zXZ": "is compressed with xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it first",
    b"PK\x03\x04": "is a zip archive or a spreadsheet; unpack it, or save the sheet as CSV",
    b"PAR1": "is Parquet; its name must end in .parquet",
    b"<!DOCTYPE html": "is a web page; download the file itself",
    b"<html": "is a web page; download the file itself",
}


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


def check_writable(folder: Path, given: str, way_out: str = "") -> None:
    """Refuse a folder, `given` so, that cannot be made or in which no file can; nothing is left behind."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{given}: cannot be written ({error.strerror}){way_out}") from None
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()


def other_kind(file: Path) -> str | None:
    """Say what kind of file this is, and what to do, if its first bytes show that it holds neither text nor tensors."""
    with file.open("rb") as stream:
        start = stream.read(32)
    if not start:
        return "is empty"
    return next((kind for first, kind in FIRST_BYTES.items() if start.lower().startswith(first.lower())), None)


def inside(folder: Path, name: object, *, read_in: Path, links: bool = False) -> Path:
    """Return the path in a folder of a name that was read in `read_in`; refuse a name that leads out of the folder.

    With `links`, symbolic links may lead out of it; this is for files that are only read.
    """
    parts = PurePosixPath(name).parts if isinstance(name, str) and name.isprintable() else ()
    stays = parts and not {"/", "//", ".."} & {*parts} and all(len(part.encode()) <= LONGEST for part in parts)
    with suppress(OSError, RuntimeError):  # a loop of links
        path = folder / str(name)
        if stays and (links or path.resolve().is_relative_to(folder.resolve())):
            return path
    raise UserError(f"{read_in}: names {name!r:.100}, which is no file of {folder}; nothing was touched")
