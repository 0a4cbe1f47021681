"""Write aside, then rename: a file is whole under its name, or as it was before."""

import os
from pathlib import Path


def replace_file(file: Path, data: bytes) -> None:
    """Write a file aside and put it in the place of what was there; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.part")
    with aside.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(file)
