"""Checks on files that others wrote: what kind of file one really is, and that names in it stay in their folder."""

from pathlib import Path, PurePosixPath

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
    if not isinstance(name, str) or not name.isprintable() or not _stays(name):
        raise UserError(f"{read_in}: names {name!r:.100}, which is no file of that folder; nothing was touched")
    path = folder / name
    if not links and not _resolved(path).is_relative_to(folder.resolve()):
        raise UserError(f"{read_in}: names {name!r:.100}, which a link leads out of {folder}; nothing was touched")
    return path


def _stays(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not {"/", "//", ".."} & {*parts} and all(len(part.encode()) <= LONGEST for part in parts)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return Path("/")
