"""The run folder: every file written aside and renamed, every file checked against its recorded SHA-256.

A ledger, checksums.json, holds every file's hash and, behind it, the one it replaced (null: there was no file). It is
written before the file is, so that a kill at any moment leaves each file at one of its two hashes; which one is settled
when the folder is next opened.
"""

import fcntl
import hashlib
import json
from itertools import count
from pathlib import Path
from typing import IO, Any

from fpt.errors import UserError
from fpt.runs.atomic import naming, replace_file, try_writing
from fpt.runs.inside import inside

Ledger = dict[str, list[str | None]]  # by name, the hashes that a file may have; None: it may be missing
Mark = dict[str, Any]  # how much of metrics.jsonl belongs to a state, and its hash

LEDGER = "checksums.json"
LOCK = ".lock"
METRICS = "metrics.jsonl"
STATE = "state.safetensors"  # of a stage, in its folder


class RunFolder:
    """A folder whose files are whole or not there, and known by their hash."""

    def __init__(self, path: Path) -> None:
        """Take the folder, made if need be, for this process alone."""
        self.path = path
        _refuse_foreign(path)
        self._lock = _locked(path)
        try:
            self._recorded = read_ledger(path)
            for name in (*self._recorded, METRICS):
                _check_place(path, name)
        except UserError:
            self._lock.close()
            raise
        self._ledger = settled(path, self._recorded)
        self._metrics: IO[bytes] | None = None
        self._metrics_hash = hashlib.sha256()

    def close(self) -> None:
        """Let go of the folder; from here on a file that is missing is missing."""
        if self._ledger != self._recorded:
            self._write_ledger()
        if self._metrics:
            self._metrics.close()
        self._lock.close()

    def __contains__(self, name: str) -> bool:
        return name in self._ledger

    def write(self, name: str, data: bytes) -> None:
        """Replace a file at once."""
        digest, file = hashlib.sha256(data).hexdigest(), inside(self.path, name, read_in=self.path)
        self._ledger[name] = [digest, self._ledger.get(name, [None])[0]]
        self._write_ledger()
        replace_file(file, data)
        self._ledger[name] = [digest]  # on disk with the next write, or when the folder is closed

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        if problem := self.problem(name):
            raise UserError(f"{self.path / name}: {problem}")
        return (self.path / name).read_bytes()

    def problem(self, name: str) -> str | None:
        """Why a recorded file cannot be trusted, or None."""
        return problem_of(self.path / name, self._ledger[name][:1])

    def names(self) -> list[str]:
        """Every recorded file, in the order of their first writing."""
        return list(self._ledger)

    def forget(self, name: str) -> None:
        """Remove a file and its record."""
        self._ledger[name].append(None)  # from here on its absence is as good as its presence
        self._write_ledger()
        (self.path / name).unlink(missing_ok=True)
        del self._ledger[name]
        self._write_ledger()

    def metrics_problem(self, mark: Mark) -> str | None:
        """Why the marked part of metrics.jsonl cannot be trusted, or None."""
        return metrics_problem(self.path, mark)

    def forget_metrics(self) -> Mark:
        """Empty metrics.jsonl, whose lines are lost; returns the mark of that."""
        replace_file(self.path / METRICS, b"")
        return {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}

    def open_metrics(self, mark: Mark | None) -> list[dict[str, Any]]:
        """Go on with metrics.jsonl after the marked part of it, or anew; returns the lines that are kept."""
        file = self.path / METRICS
        kept = file.read_bytes()[: mark["bytes"]] if mark else b""
        replace_file(file, kept)
        self._metrics = file.open("ab")
        self._metrics_hash = hashlib.sha256(kept)
        return [json.loads(line) for line in kept.splitlines()]

    def log(self, values: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        assert self._metrics is not None
        line = (json.dumps(values) + "\n").encode()
        with naming(self.path / METRICS):
            self._metrics.write(line)
            self._metrics.flush()
        self._metrics_hash.update(line)

    def metrics_mark(self) -> Mark:
        """How much of metrics.jsonl has been written, and its hash."""
        assert self._metrics is not None
        return {"bytes": self._metrics.tell(), "sha256": self._metrics_hash.hexdigest()}

    def _write_ledger(self) -> None:
        replace_file(self.path / LEDGER, (json.dumps(self._ledger, indent=1) + "\n").encode())
        self._recorded = dict(self._ledger)


def read_ledger(path: Path) -> Ledger:
    """The hashes of a run folder's files, each of which is in the folder; none where there is no ledger."""
    file = path / LEDGER
    try:
        ledger = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError):
        ledger = None
    if not isinstance(ledger, dict) or not all(isinstance(hashes, list) and hashes for hashes in ledger.values()):
        raise UserError(f"{file}: is damaged. Start over with resume=never")
    for name in ledger:
        inside(path, name, read_in=file)
    return ledger


def settled(path: Path, ledger: Ledger) -> Ledger:
    """The ledger with the one hash of each file that a kill, or a writer at work, left between two."""
    found = {}
    for name, hashes in ledger.items():
        digest = _digest(path / name)
        if digest in hashes:
            hashes = [digest]
        if hashes != [None]:
            found[name] = hashes
    return found


def _check_place(path: Path, name: str) -> None:
    """Refuse a folder where a file of the run belongs, or a file where a folder does: they may be somebody's."""
    file = path / name
    for place in (file, *file.parents[: len(Path(name).parts) - 1]):
        if place.exists() and place.is_dir() != (place != file):
            kind = "a folder, and a file" if place == file else "a file, and a folder"
            raise UserError(f"{place}: is {kind} of the run belongs there; move it away, then resume=repair goes on")


def problem_of(file: Path, hashes: list[str | None]) -> str | None:
    """Why a file with these recorded hashes cannot be trusted, or None."""
    if file.is_dir():
        return "is a folder in a file's place"
    digest = _digest(file)
    if digest is None:
        return "is missing"
    return None if digest in hashes else "is damaged: it is not what was written"


def trusted(file: Path, hashes: list[str | None]) -> bytes | None:
    """A file's bytes, if they have one of these hashes."""
    data = file.read_bytes() if file.is_file() else None
    return data if data is not None and hashlib.sha256(data).hexdigest() in hashes else None


def metrics_problem(path: Path, mark: Mark) -> str | None:
    """Why the marked part of a run's metrics.jsonl cannot be trusted, or None."""
    file = path / METRICS
    if not file.is_file():
        return "is missing"
    kept = file.read_bytes()[: mark["bytes"]]
    return None if hashlib.sha256(kept).hexdigest() == mark["sha256"] else "is damaged: it is not what was written"


def described(state: bytes) -> dict[str, Any]:
    """What a state file says besides its tensors, its mark in metrics.jsonl as `metrics`; torch is not needed for it.

    Raises:
        ValueError, LookupError, TypeError: it is no state's.
    """
    header = json.loads(state[8 : 8 + int.from_bytes(state[:8], "little")])
    return dict(json.loads(header["__metadata__"]["state"]))


def check(path: Path, *, starts_over: bool) -> None:
    """Refuse a folder that could not be taken, without taking or leaving anything."""
    if starts_over:
        _refuse_no_run(path)
    else:
        _refuse_foreign(path)
    if (path / LOCK).exists():
        _locked(path).close()
    try:
        try_writing(path)
    except OSError as error:
        raise _not_writable(path, error) from None


def set_aside(path: Path) -> Path | None:
    """Rename an existing run folder to <name>.old-N, so that a new run can take its place."""
    path = path.resolve()
    if not _contents(path):
        return None
    _refuse_no_run(path)
    _locked(path).close()
    number = next(n for n in count(1) if not path.with_name(f"{path.name}.old-{n}").exists())
    return path.rename(path.with_name(f"{path.name}.old-{number}"))


def _contents(path: Path) -> list[str]:
    """What is in a folder, but for hidden files."""
    return [item.name for item in path.iterdir() if item.name[0] != "."] if path.is_dir() else []


def _refuse_foreign(path: Path) -> None:
    """A folder with files but without a ledger is not a run's, or not a whole one's."""
    others = _contents(path)
    if others and LEDGER not in others:
        listed = ", ".join(sorted(others)[:4])
        way_out = " or start over with resume=never" if "config.yaml" in others else ""
        raise UserError(f"run.dir={path}: has files ({listed}) but no {LEDGER}; give another run.dir{way_out}")


def _refuse_no_run(path: Path) -> None:
    """What is set aside must be a run's."""
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


def _digest(file: Path) -> str | None:
    """A file's SHA-256; None where there is none."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
