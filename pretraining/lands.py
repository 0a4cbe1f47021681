"""Write the generated tasks' files that `fpt` reads: those that it ships, or with `task.land=N` another land's.

`python -m pretraining.lands [N …]`; without a number plain reading and land 0, the shipped ones.
"""

import argparse
import gzip
import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from fpt.runs.files import new_folder, replace_file
from fpt.tasks.origins import generated_folder
from pretraining.world_files import FILES, files

SHIPPED = (None, 0)  # plain reading, and a land
CHECKSUMS = Path(__file__).parent / "world" / "sha256.json"  # of the shipped files before they are compressed


def write(land: int | None) -> dict[str, str]:
    """Write all tasks' files, compressed, of a land or of plain reading; the SHA-256 of what is in each."""
    place, digests = generated_folder(land), {}
    with new_folder(place) as part:
        for task in FILES:
            for name, content in files(task, land=land):
                file = f"{task}/{name}.gz"
                replace_file(part / file, gzip.compress(content, mtime=0))
                digests[f"{place.name}/{file}"] = hashlib.sha256(content).hexdigest()
        shutil.rmtree(place, ignore_errors=True)
    return digests


def write_missing(lands: Iterable[int]) -> None:
    """Write those lands' files that are not there."""
    for land in lands:
        if not generated_folder(land).is_dir():
            write(land)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pretraining.lands", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("lands", type=int, nargs="*", metavar="N", help="lands (default: what fpt ships)")
    lands = parser.parse_args(arguments).lands
    if min(lands, default=0) < 0:
        parser.error("a number cannot be negative")
    for land in lands:
        write(land)
    if not lands:
        digests = {file: digest for land in SHIPPED for file, digest in write(land).items()}
        replace_file(CHECKSUMS, f"{json.dumps(digests, indent=2)}\n".encode())


if __name__ == "__main__":
    main()
