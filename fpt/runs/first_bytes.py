"""What a file is where it is not what its name says: told by its first bytes."""

from pathlib import Path

_OTHERS = {
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
    """What a file is that is neither text nor tensors, and what to do; None: nothing is known against it.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        start = stream.read(32)
    if not start:
        return "is empty"
    return next((said for first, said in _OTHERS.items() if start.lower().startswith(first.lower())), None)
