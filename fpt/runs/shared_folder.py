"""The run folder as every process sees it: the main process reads and writes, and the others get its answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fpt.devices import distributed
from fpt.runs.folder import RunFolder
from fpt.runs.records import json_object
from fpt.runs.trackers import Harmless, MetricsLine


class SharedFolder:
    """Gives all processes the main process's `RunFolder`; all must call the same methods in the same order."""

    def __init__(self, path: Path, open_folder: Callable[[], RunFolder]) -> None:
        """Open the folder, in the main process alone."""
        self.path = path
        self._folder: RunFolder | None = None
        self._sink: Harmless | None = None

        def open_it() -> None:
            self._folder = open_folder()

        distributed.broadcast_from_main(open_it)

    def ask(self, question: Callable[[RunFolder], Any]) -> Any:
        """Call `question` with the folder in the main process, and return its answer in every process."""

        def answer() -> Any:
            assert self._folder is not None
            return question(self._folder)

        return distributed.broadcast_from_main(answer)

    def close(self) -> None:
        """Close the folder, and the tracker."""
        if self._sink is not None:
            self._sink.close()
        if self._folder is not None:
            self._folder.close()

    def __contains__(self, name: str) -> bool:
        return bool(self.ask(lambda folder: name in folder))

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        return self.ask(lambda folder: folder.read(name))

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file."""
        return json_object(self.path / name, self.read(name))

    def write(self, name: str, data: bytes) -> None:
        """Replace a file atomically."""
        if self._folder is not None:
            self._folder.write(name, data)

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file atomically."""
        self.write(name, (json.dumps(value, indent=2) + "\n").encode())

    def open_metrics(
        self, mark: dict[str, Any] | None, open_sink: Callable[[list[MetricsLine]], Harmless | None]
    ) -> None:
        """Truncate metrics.jsonl to the mark (without one, to nothing), and open the tracker with the lines kept."""

        def open_both(folder: RunFolder) -> None:
            self._sink = open_sink(folder.open_metrics(mark))

        self.ask(open_both)

    def log(self, line: MetricsLine) -> None:
        """Append a line to metrics.jsonl, and send it to the tracker."""
        if self._folder is not None:
            self._folder.log(line)
        if self._sink is not None:
            self._sink.log(line)

    def metrics_mark(self) -> dict[str, Any]:
        """Return the length and hash of metrics.jsonl so far; an empty mapping in all but the main process."""
        return {} if self._folder is None else self._folder.metrics_mark()
