"""Whether the embedded backbone's files are those that its recipe made: `python -m fpt.backbones.tiny.checksums`.

The recipe records the hash of every file that a model is opened from; with `--write` this command does.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from fpt.backbones.tiny import FOLDER
from fpt.errors import reason
from fpt.runs.folder import problem_of

RECORD = "sha256.json"
FILES = ("config.json", "model.safetensors", "spiece.model", "tokenizer_config.json")


def write(folder: Path) -> None:
    """Record the hashes of the files as they are."""
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    (folder / RECORD).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")


def problems(folder: Path = FOLDER) -> dict[str, str]:
    """What is wrong, by file; empty where every hash holds."""
    try:
        recorded = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        checked = {name: problem_of(folder / name, [recorded[name]]) for name in FILES}
    except (OSError, ValueError, TypeError, KeyError) as error:
        return {RECORD: f"cannot be read ({reason(error)})"}
    return {name: problem for name, problem in checked.items() if problem}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status is 1 where a hash does not hold."""
    parser = argparse.ArgumentParser(prog="python -m fpt.backbones.tiny.checksums", description=__doc__)
    parser.add_argument("--write", action="store_true", help="record the files as they are")
    if parser.parse_args(arguments).write:
        write(FOLDER)
    for name, problem in problems().items():
        print(f"{FOLDER / name}: {problem}")
    return int(bool(problems()))


if __name__ == "__main__":
    raise SystemExit(main())
