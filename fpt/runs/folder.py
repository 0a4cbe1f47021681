"""What makes a folder a run's: its files, each with its SHA-256 in the ledger, and a lock for who writes to it.

The ledger, checksums.json, holds each file's hash, followed by the hash of the file that it replaces (null if there was
none). It is written before the file, so that a kill at any moment leaves the file with one of these two hashes; which
one is found out when the folder is next opened.
"""

import fcntl
import hashlib
import json
from itertools import count
from pathlib import Path
from typing import IO, Any

from fpt.errors import UserError
from fpt.runs.files import check_writable, inside

Ledger = dict[str, list[str | None]]  # the hashes that each file may have; None: it may be missing

LEDGER = "checksums.json"
LOCK = ".lock"
METRICS = "metrics.jsonl"
STATE = "state.safetensors"  # in a stage's folder
AGAIN = "start over with resume=never"


def read_ledger(path: Path) -> Ledger:
    """Read a run folder's ledger, empty if there is none; refuse one with names that lead out of the folder."""
    file = path / LEDGER
    try:
        ledger = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError):
        ledger = None
    if not isinstance(ledger, dict) or not all(isinstance(hashes, list) and hashes for hashes in ledger.values()):
        raise UserError(f"{file}: is damaged; {AGAIN}")
    for name in ledger:
        inside(path, name, read_in=file)
    return ledger


def as_found(path: Path, ledger: Ledger) -> Ledger:
    """Resolve entries with two possible hashes, left by a kill, to the one that the file has; refuse damaged files."""
    found: Ledger = {}
    for name, hashes in ledger.items():
        check(path / name, hashes)
        if digest := _digest(path / name):
            found[name] = [digest]
    return found


def check(file: Path, hashes: list[str | None], size: int | None = None) -> None:
    """Refuse a file whose first `size` bytes have none of these hashes."""
    if problem := problem_of(file, hashes, size):
        raise UserError(f"{file}: {problem}; {AGAIN}")


def problem_of(file: Path, hashes: list[str | None], size: int | None = None) -> str | None:
    """Say why a file whose first `size` bytes have these recorded hashes cannot be trusted; None if it can."""
    if file.is_dir():
        return "is a folder in a file's place"
    digest = _digest(file, size)
    if digest in hashes:
        return None
    return "is damaged, not what was written" if digest else "is missing"


def _digest(file: Path, size: int | None = None) -> str | None:
    """The SHA-256 of a file's first `size` bytes; None if there is no file."""
    try:
        return hashlib.sha256(file.read_bytes()[:size]).hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def check_metrics(path: Path, mark: dict[str, Any]) -> None:
    """Refuse a run whose metrics.jsonl is missing or damaged before the mark, its length and hash at a saved state."""
    check(path / METRICS, [mark["sha256"]], mark["bytes"])


def described(state: bytes) -> dict[str, Any]:
    """Read a state file's metadata without torch; `metrics` is its mark in metrics.jsonl."""
    header = json.loads(state[8 : 8 + int.from_bytes(state[:8], "little")])
    return dict(json.loads(header["__metadata__"]["state"]))


def check_usable(path: Path, *, starts_over: bool) -> None:
    """Refuse a folder that a run could not use, or, if it starts over, could not set aside; leaves nothing behind."""
    refuse = _refuse_no_run if starts_over else refuse_foreign
    refuse(path)
    if (path / LOCK).exists():
        locked(path).close()
    check_writable(path, f"run.dir={path}")


def set_aside(path: Path) -> Path | None:
    """Rename a run folder to <name>.old-N, so that a new run can take its place; returns where it is now."""
    path = path.resolve()
    if not _contents(path):
        return None
    _refuse_no_run(path)
    locked(path).close()
    number = next(n for n in count(1) if not path.with_name(f"{path.name}.old-{n}").exists())
    return path.rename(path.with_name(f"{path.name}.old-{number}"))


def refuse_foreign(path: Path) -> None:
    """Refuse a folder with files but no ledger: it is not a run's, or not a complete one's."""
    others = _contents(path)
    if others and LEDGER not in others:
        listed = ", ".join(sorted(others)[:4])
        way_out = f", or {AGAIN}" if "config.yaml" in others else ""
        raise UserError(f"run.dir={path}: has files ({listed}) but no {LEDGER}; give another run.dir{way_out}")


def _refuse_no_run(path: Path) -> None:
    if _contents(path) and not any((path / name).is_file() for name in (LEDGER, "config.yaml")):
        raise UserError(f"run.dir={path}: is not a run, so resume=never leaves it alone; give another run.dir")


def _contents(path: Path) -> list[str]:
    """The names in a folder, except hidden ones."""
    return [item.name for item in path.iterdir() if item.name[0] != "."] if path.is_dir() else []


def locked(path: Path) -> IO[str]:
    """Make the folder if need be, and lock it until the file returned is closed; refuse one that is in use."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK).open("w")
    except OSError as error:
        raise UserError(f"run.dir={path}: cannot be written ({error.strerror})") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"run.dir={path}: another process is at work in this folder") from None
    except OSError as error:
        raise UserError(f"run.dir={path}: cannot be locked ({error.strerror})") from None
    return lock
