"""The run folder, opened for writing: the main process reads and writes, and the others get its answers."""

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from fpt.devices.distributed import broadcast_from_main, is_main
from fpt.errors import UserError
from fpt.runs.files import inside, naming, replace_file
from fpt.runs.folder import LEDGER, METRICS, Ledger, as_found, check, locked, read_ledger, refuse_foreign
from fpt.runs.metrics import MetricsLine, Tracker
from fpt.runs.run import json_object


class SharedFolder:
    """A run's folder, written to by one run at a time; all its processes call the same methods in the same order."""

    def __init__(self, path: Path) -> None:
        """Lock the folder, made if need be; refuse one that is not a run's, is damaged, or is in use."""
        self.path = path
        self._ledger: Ledger = {}
        self._opened = ExitStack()
        self._metrics: IO[bytes] | None = None
        self._metrics_hash = hashlib.sha256()
        self._tracker: Tracker | None = None
        broadcast_from_main(self._open)

    def _open(self) -> None:
        refuse_foreign(self.path)
        self._opened.enter_context(locked(self.path))
        try:
            self._recorded = read_ledger(self.path)
            self._ledger = as_found(self.path, self._recorded)
        except UserError:
            self._opened.close()
            raise

    def close(self) -> None:
        """End the tracking, write the ledger if it has changed, and unlock the folder."""
        if self._tracker is not None:
            self._tracker.close()
        if is_main() and self._ledger != self._recorded:
            self._write_ledger()
        self._opened.close()

    def __contains__(self, name: str) -> bool:
        return broadcast_from_main(lambda: name in self._ledger)

    def read(self, name: str) -> bytes:
        """Return a file's bytes; refuse a file that is missing or damaged."""
        return broadcast_from_main(lambda: self._read(name))

    def _read(self, name: str) -> bytes:
        check(self.path / name, self._ledger[name])
        return (self.path / name).read_bytes()

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file."""
        return json_object(self.path / name, self.read(name))

    def write(self, name: str, data: bytes) -> None:
        """Replace a file atomically, and record its hash."""
        if not is_main():
            return
        digest, file = hashlib.sha256(data).hexdigest(), inside(self.path, name, read_in=self.path)
        self._ledger[name] = [digest, self._ledger.get(name, [None])[0]]
        self._write_ledger()
        replace_file(file, data)
        self._ledger[name] = [digest]  # reaches the disk with the next write, or when the folder is closed

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file atomically."""
        self.write(name, (json.dumps(value, indent=2) + "\n").encode())

    def open_metrics(
        self, mark: dict[str, Any] | None, open_tracker: Callable[[list[MetricsLine]], Tracker | None]
    ) -> None:
        """Truncate metrics.jsonl to the mark (without one, to nothing), and open the tracker with the lines kept."""

        def open_both() -> None:
            file = self.path / METRICS
            kept = file.read_bytes()[: mark["bytes"]] if mark else b""
            replace_file(file, kept)
            self._metrics = self._opened.enter_context(file.open("ab"))
            self._metrics_hash = hashlib.sha256(kept)
            self._tracker = open_tracker(self._lines())

        broadcast_from_main(open_both)

    def metrics(self) -> list[MetricsLine]:
        """Return the lines of metrics.jsonl."""
        return broadcast_from_main(self._lines)

    def _lines(self) -> list[MetricsLine]:
        return [json.loads(line) for line in (self.path / METRICS).read_bytes().splitlines()]

    def log(self, values: MetricsLine) -> None:
        """Append a line to metrics.jsonl, and send it to the tracker."""
        if self._metrics is None:
            return
        line = (json.dumps(values) + "\n").encode()
        with naming(self.path / METRICS):
            self._metrics.write(line)
            self._metrics.flush()
        self._metrics_hash.update(line)
        if self._tracker is not None:
            self._tracker.log(values)

    def metrics_mark(self) -> dict[str, Any]:
        """Return the length of metrics.jsonl so far, and its hash; an empty mapping in all but the main process."""
        if self._metrics is None:
            return {}
        return {"bytes": self._metrics.tell(), "sha256": self._metrics_hash.hexdigest()}

    def _write_ledger(self) -> None:
        replace_file(self.path / LEDGER, (json.dumps(self._ledger, indent=1) + "\n").encode())
        self._recorded = dict(self._ledger)
