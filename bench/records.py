"""What benches keep of finished runs: bench/results has a file for each bench, and a line of JSON in it for each run.

A run takes minutes and a table hundreds of them, so that they outlive the machine: the same command on another goes on
with what is missing. A run that was made with other words than a bench asks for now counts as missing.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.runs import read, run_missing
from fpt.runs.files import replace_file
from stages.several import Point

RESULTS = Path(__file__).parent / "results"
KEPT = ("metric", "baseline", "majority", "untrained", "flops", "flops_pt", "flops_importance", "seconds", "versions")
Record = dict[str, Any]
Runs = Mapping[str, Sequence[str]]  # the words of `fpt train`, by the run's name


def read_rows(file: Path) -> list[Record]:
    """The objects in a file of JSON lines; none where there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


class Look(NamedTuple):
    """A validation: after which update, in which stage of how many, with what spent, and what it showed."""

    update: int
    stage: int
    flops: int
    score: float


class Records:
    """Those of one bench."""

    def __init__(self, name: str) -> None:
        """Read what there is."""
        self._file, self._folder = RESULTS / f"{name}.jsonl", Path("runs") / name
        self._records = {record["name"]: record for record in read_rows(self._file)}

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def __getitem__(self, name: str) -> Record:
        return self._records[name]

    def has(self, name: str, words: Sequence[str]) -> bool:
        """Whether there is a run of that name which was made with these words."""
        return name in self and self[name]["words"] == list(words)

    def forget(self, name: str) -> None:
        """Have a run count as missing."""
        self._records.pop(name, None)

    def make(self, runs: Runs, jobs: int, more: Callable[[Path], Mapping[str, Any]] = lambda _: {}) -> None:
        """Do the runs that are missing, `jobs` at a time and in order; `more` of a run's folder is kept of it too."""
        missing = {name: words for name, words in runs.items() if not self.has(name, words)}
        names = {self._folder / f"{name}-{_digest(words)}": name for name, words in missing.items()}

        def keep(folder: Path) -> None:
            name = names[folder]
            self._records[name] = {"name": name, "words": list(missing[name]), **_read(folder), **more(folder)}
            lines = (json.dumps(record) for _, record in sorted(self._records.items()))
            RESULTS.mkdir(exist_ok=True)
            replace_file(self._file, "".join(f"{line}\n" for line in lines).encode())

        run_missing({folder: missing[name] for folder, name in names.items()}, jobs, keep)

    def looks(self, name: str) -> list[Look]:
        """A run's validations."""
        return [Look(*look) for look in self[name]["looks"]]

    def curve(self, name: str) -> list[Point]:
        """Those of its last stage."""
        stages = self[name]["stages"]
        return [Point(look.flops, look.score) for look in self.looks(name) if look.stage == stages]


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:6]


def _read(folder: Path) -> Record:
    result = read(folder)
    name = result["metric"]["name"]
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    looks = [[line["update"], line["stage"], line["flops"], line[name]] for line in lines if "split" in line]
    return {**{key: result[key] for key in KEPT}, "stages": len(result["stages"]), "looks": looks}
