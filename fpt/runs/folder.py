"""The run folder: every file is written atomically, and checked against its recorded SHA-256.

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
from fpt.runs.atomic import naming, replace_file, try_writing
from fpt.runs.foreign import inside

Ledger = dict[str, list[str | None]]  # the hashes that each file may have; None: it may be missing
Mark = dict[str, Any]  # the length and hash of metrics.jsonl when a state was saved

LEDGER = "checksums.json"
LOCK = ".lock"
METRICS = "metrics.jsonl"
STATE = "state.safetensors"  # in a stage's folder
AGAIN = "start over with resume=never"


class RunFolder:
    """A run's folder, opened for writing by one process at a time; its files are recorded with their hashes."""

    def __init__(self, path: Path) -> None:
        """Lock the folder, made if need be; refuse one that is not a run's, is damaged, or is in use."""
        self.path = path
        _refuse_foreign(path)
        self._lock = _locked(path)
        try:
            self._recorded = read_ledger(path)
            self._ledger = _as_found(path, self._recorded)
        except UserError:
            self._lock.close()
            raise
        self._metrics: IO[bytes] | None = None
        self._metrics_hash = hashlib.sha256()

    def close(self) -> None:
        """Write the ledger if it has changed, and unlock the folder."""
        if self._ledger != self._recorded:
            self._write_ledger()
        if self._metrics:
            self._metrics.close()
        self._lock.close()

    def __contains__(self, name: str) -> bool:
        return name in self._ledger

    def write(self, name: str, data: bytes) -> None:
        """Replace a file atomically, and record its hash."""
        digest, file = hashlib.sha256(data).hexdigest(), inside(self.path, name, read_in=self.path)
        self._ledger[name] = [digest, self._ledger.get(name, [None])[0]]
        self._write_ledger()
        replace_file(file, data)
        self._ledger[name] = [digest]  # reaches the disk with the next write, or when the folder is closed

    def read(self, name: str) -> bytes:
        """Return a file's bytes; refuse a file that is missing or damaged."""
        _check(self.path / name, self._ledger[name])
        return (self.path / name).read_bytes()

    def open_metrics(self, mark: Mark | None) -> list[dict[str, Any]]:
        """Truncate metrics.jsonl to the mark (without one, to nothing); returns the lines that are kept."""
        file = self.path / METRICS
        kept = file.read_bytes()[: mark["bytes"]] if mark else b""
        replace_file(file, kept)
        self._metrics = file.open("ab")
        self._metrics_hash = hashlib.sha256(kept)
        return self.metrics()

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl."""
        return [json.loads(line) for line in (self.path / METRICS).read_bytes().splitlines()]

    def log(self, values: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        assert self._metrics is not None
        line = (json.dumps(values) + "\n").encode()
        with naming(self.path / METRICS):
            self._metrics.write(line)
            self._metrics.flush()
        self._metrics_hash.update(line)

    def metrics_mark(self) -> Mark:
        """Return the length of metrics.jsonl so far, and its hash."""
        assert self._metrics is not None
        return {"bytes": self._metrics.tell(), "sha256": self._metrics_hash.hexdigest()}

    def _write_ledger(self) -> None:
        replace_file(self.path / LEDGER, (json.dumps(self._ledger, indent=1) + "\n").encode())
        self._recorded = dict(self._ledger)


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


def _as_found(path: Path, ledger: Ledger) -> Ledger:
    """Resolve entries with two possible hashes, left by a kill, to the one that the file has; refuse damaged files."""
    found: Ledger = {}
    for name, hashes in ledger.items():
        _check(path / name, hashes)
        if digest := _digest(path / name):
            found[name] = [digest]
    return found


def _check(file: Path, hashes: list[str | None], size: int | None = None) -> None:
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


def check_metrics(path: Path, mark: Mark) -> None:
    """Refuse a run whose metrics.jsonl is missing or damaged before the mark."""
    _check(path / METRICS, [mark["sha256"]], mark["bytes"])


def described(state: bytes) -> dict[str, Any]:
    """Read a state file's metadata without torch; `metrics` is its mark in metrics.jsonl."""
    header = json.loads(state[8 : 8 + int.from_bytes(state[:8], "little")])
    return dict(json.loads(header["__metadata__"]["state"]))


def check_usable(path: Path, *, starts_over: bool) -> None:
    """Refuse a folder that a run could not use, or, if it starts over, could not set aside; leaves nothing behind."""
    refuse = _refuse_no_run if starts_over else _refuse_foreign
    refuse(path)
    if (path / LOCK).exists():
        _locked(path).close()
    try:
        try_writing(path)
    except OSError as error:
        raise _not_writable(path, error) from None


def set_aside(path: Path) -> Path | None:
    """Rename a run folder to <name>.old-N, so that a new run can take its place; returns where it is now."""
    path = path.resolve()
    if not _contents(path):
        return None
    _refuse_no_run(path)
    _locked(path).close()
    number = next(n for n in count(1) if not path.with_name(f"{path.name}.old-{n}").exists())
    return path.rename(path.with_name(f"{path.name}.old-{number}"))


def _contents(path: Path) -> list[str]:
    """The names in a folder, except hidden ones."""
    return [item.name for item in path.iterdir() if item.name[0] != "."] if path.is_dir() else []


def _refuse_foreign(path: Path) -> None:
    """Refuse a folder with files but no ledger: it is not a run's, or not a complete one's."""
    others = _contents(path)
    if others and LEDGER not in others:
        listed = ", ".join(sorted(others)[:4])
        way_out = f", or {AGAIN}" if "config.yaml" in others else ""
        raise UserError(f"run.dir={path}: has files ({listed}) but no {LEDGER}; give another run.dir{way_out}")


def _refuse_no_run(path: Path) -> None:
    """Refuse to set aside a folder that is not a run's."""
    if _contents(path) and not any((path / name).is_file() for name in (LEDGER, "config.yaml")):
        raise UserError(
            f"run.dir={path}: the folder is not a run, so resume=never leaves it alone; give another run.dir"
        )


def _not_writable(path: Path, error: OSError) -> UserError:
    return UserError(f"run.dir={path}: cannot be written ({error.strerror})")


def _locked(path: Path) -> IO[str]:
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK).open("w")
    except OSError as error:
        raise _not_writable(path, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"run.dir={path}: another process is at work in this folder") from None
    except OSError as error:
        raise UserError(f"run.dir={path}: cannot be locked ({error.strerror})") from None
    return lock


def _digest(file: Path, size: int | None = None) -> str | None:
    """The SHA-256 of a file's first `size` bytes; None if there is no file."""
    try:
        return hashlib.sha256(file.read_bytes()[:size]).hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
