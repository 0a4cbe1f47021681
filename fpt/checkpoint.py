"""The run folder: every file written aside and renamed, every file checked against its recorded SHA-256.

A ledger, checksums.json, holds the hash of every file. A new hash is added to it before the file is replaced, so
that a kill at any moment leaves each file at one of its recorded hashes.
"""

import fcntl
import hashlib
import json
import os
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any

from safetensors.torch import load, save
from torch import Tensor

from fpt.errors import UserError

LEDGER = "checksums.json"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class TrainState:
    """All that training needs to go on; data order and learning rate are functions of the update.

    Attributes:
        update: optimizer updates done since the start of the run.
        prompt: [P, D], float32.
        optimizer: packed state of the optimizer.
        seconds: spent in this stage, validation included.
        score: the stage's last validation score.
        best_score, best_update, best_prompt: of the full model's stage.
        stale: validations since the best.
        done: whether the stage is over.
    """

    update: int
    prompt: Tensor
    optimizer: dict[str, Tensor | float | int] = field(default_factory=dict)
    seconds: float = 0.0
    score: float | None = None
    best_score: float | None = None
    best_update: int | None = None
    best_prompt: Tensor | None = None
    stale: int = 0
    done: bool = False


def dump_state(state: TrainState, metrics: dict[str, Any]) -> bytes:
    """A state as one safetensors file; `metrics` marks how much of metrics.jsonl belongs to it."""
    tensors = {"prompt": state.prompt}
    if state.best_prompt is not None:
        tensors["best_prompt"] = state.best_prompt
    plain: dict[str, Any] = {}
    for name, value in state.optimizer.items():
        if isinstance(value, Tensor):
            tensors[f"optimizer.{name}"] = value
        else:
            plain[name] = value
    names = ("update", "seconds", "score", "best_score", "best_update", "stale", "done")
    values = {name: getattr(state, name) for name in names}
    meta = json.dumps({"values": values, "optimizer": plain, "metrics": metrics})
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"state": meta})


def load_state(data: bytes) -> tuple[TrainState, dict[str, Any]]:
    """What `dump_state` wrote."""
    tensors = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    meta = json.loads(header["__metadata__"]["state"])
    optimizer = {name[10:]: tensor for name, tensor in tensors.items() if name.startswith("optimizer.")}
    state = TrainState(
        prompt=tensors["prompt"],
        best_prompt=tensors.get("best_prompt"),
        optimizer={**optimizer, **meta["optimizer"]},
        **meta["values"],
    )
    return state, meta["metrics"]


def dump_prompt(prompt: Tensor, **about: str) -> bytes:
    """A prompt [P, D] as a safetensors file with one tensor, `prompt`."""
    return save({"prompt": prompt.contiguous()}, {"format": "pt", **about})


class RunFolder:
    """A folder whose files are whole or not there, and known by their hash."""

    def __init__(self, path: Path) -> None:
        """Take the folder, made if need be, for this process alone.

        Raises:
            UserError: it cannot be made, holds something else, its ledger is damaged, or another process has it.
        """
        self.path = path
        self._lock = _locked(path)
        self._ledger = self._read_ledger()
        self._metrics: IO[bytes] | None = None
        self._metrics_hash = hashlib.sha256()
        self._metrics_size = 0

    def close(self) -> None:
        """Let go of the folder."""
        if self._metrics:
            self._metrics.close()
        self._lock.close()

    def __contains__(self, name: str) -> bool:
        return name in self._ledger

    def write(self, name: str, data: bytes) -> None:
        """Replace a file at once."""
        digest = hashlib.sha256(data).hexdigest()
        self._ledger[name] = list(dict.fromkeys([digest, *self._ledger.get(name, [])[:1]]))
        self._write_ledger()
        _replace(self.path / name, data)

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file at once."""
        self.write(name, (json.dumps(value, indent=2) + "\n").encode())

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            UserError: it is missing or not what was written.
        """
        problem = self.problem(name)
        if problem:
            raise UserError(f"{self.path / name}: {problem}")
        return (self.path / name).read_bytes()

    def problem(self, name: str) -> str | None:
        """Why a recorded file cannot be trusted, or None."""
        try:
            data = (self.path / name).read_bytes()
        except FileNotFoundError:
            return "is missing"
        if hashlib.sha256(data).hexdigest() not in self._ledger[name]:
            return "is damaged: its SHA-256 is not the one recorded when it was written"
        return None

    def names(self) -> list[str]:
        """Every recorded file, in the order of their first writing."""
        return list(self._ledger)

    def forget(self, name: str) -> None:
        """Remove a file and its record."""
        (self.path / name).unlink(missing_ok=True)
        self._ledger.pop(name, None)
        self._write_ledger()

    def metrics_problem(self, mark: dict[str, Any]) -> str | None:
        """Why the marked part of metrics.jsonl cannot be trusted, or None."""
        file = self.path / METRICS
        if not file.is_file():
            return "is missing"
        kept = file.read_bytes()[: mark["bytes"]]
        return None if hashlib.sha256(kept).hexdigest() == mark["sha256"] else "is damaged: it is not what was written"

    def open_metrics(self, mark: dict[str, Any] | None) -> None:
        """Go on with metrics.jsonl after the marked part of it, or anew."""
        file = self.path / METRICS
        kept = file.read_bytes()[: mark["bytes"]] if mark else b""
        _replace(file, kept)
        self._metrics = file.open("ab")
        self._metrics_hash, self._metrics_size = hashlib.sha256(kept), len(kept)

    def log(self, record: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        assert self._metrics is not None
        line = (json.dumps(record) + "\n").encode()
        self._metrics.write(line)
        self._metrics.flush()
        self._metrics_hash.update(line)
        self._metrics_size += len(line)

    def metrics_mark(self) -> dict[str, Any]:
        """How much of metrics.jsonl has been written, and its hash."""
        return {"bytes": self._metrics_size, "sha256": self._metrics_hash.hexdigest()}

    def _read_ledger(self) -> dict[str, list[str]]:
        file = self.path / LEDGER
        others = [item.name for item in self.path.iterdir() if not item.name.startswith(".")]
        if not file.is_file():
            if others:
                raise UserError(
                    f"run.dir={self.path}: the folder has files ({', '.join(sorted(others)[:4])}) but no {LEDGER}:"
                    " it is not a run, or its ledger is lost. Give another run.dir, or start over with resume=never"
                )
            return {}
        try:
            ledger: dict[str, list[str]] = json.loads(file.read_text())
            assert all(isinstance(value, list) for value in ledger.values())
        except (ValueError, AssertionError, AttributeError):
            raise UserError(f"{file}: is damaged. Start over with resume=never") from None
        return ledger

    def _write_ledger(self) -> None:
        _replace(self.path / LEDGER, (json.dumps(self._ledger, indent=1) + "\n").encode())


def set_aside(path: Path) -> Path | None:
    """Rename an existing run folder to <name>.old-N, so that a new run can take its place.

    Raises:
        UserError: the folder holds something that is not a run, or another process is at work in it.
    """
    if not path.is_dir() or not any(path.iterdir()):
        return None
    if not any((path / name).is_file() for name in (LEDGER, "config.yaml")):
        raise UserError(
            f"run.dir={path}: the folder is not a run, so resume=never leaves it alone; give another run.dir"
        )
    _locked(path).close()
    number = next(n for n in count(1) if not path.with_name(f"{path.name}.old-{n}").exists())
    return path.rename(path.with_name(f"{path.name}.old-{number}"))


def _locked(path: Path) -> IO[str]:
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise UserError(f"run.dir={path}: cannot be written ({error.strerror})") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(f"run.dir={path}: another process is at work in this folder") from None
    return lock


def _replace(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.part")
    with aside.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(file)
