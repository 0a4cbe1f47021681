"""Reads a run's folder: configuration, result, plan, metrics, predictions and prompts, checked for damage and form."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from yaml import YAMLError

from fpt.config import compose, literal, stored
from fpt.config.run_config import RunConfig
from fpt.config.schema import PromptConfig, place
from fpt.errors import UserError, reason
from fpt.runs.folder import AGAIN, METRICS, STATE, Ledger, check_metrics, described, problem_of, read_ledger

if TYPE_CHECKING:
    from torch import Tensor

RESULT = "result.json"
PLAN = "plan.json"
MEASURED = "measured.json"
INPUTS = "inputs.json"
STAGE = "stage.json"  # in a stage's folder
CONFIG = "config.yaml"
PREDICTIONS = "predictions.jsonl"
TEST_PREDICTIONS = "predictions.test.jsonl"
PROMPT = "prompt.safetensors"
UPDATES = "updates.json"  # in a stage's folder
SKIPPED = "skipped.txt"
LOOKS = 10  # how often to read a file that a running process may be replacing
# The keys that readers rely on; a dot leads into a mapping.
KEYS = {
    RESULT: ("task", "model", "schedule", "seed", "dtype", "metric.name", "metric.value", "metrics", "stages", "flops"),
    PLAN: ("stages",),
    MEASURED: ("untrained", "seconds"),
    INPUTS: ("model", "data", "prompt's start"),
    STAGE: ("index", "encoder_layers", "decoder_layers", "ffn", "decoder_ffn"),
}
# The prompt's keys that still matter once it is learned.
LEARNED = [item.name for item in fields(PromptConfig) if not item.metadata.get("learning")]


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """A context for reading a file, in which errors become one line: the file is not what fpt writes."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, SafetensorError, YAMLError):
        raise UserError(f"{file}: is not what fpt writes; start over with resume=never") from None


def configuration(file: Path, data: bytes) -> dict[str, Any]:
    """Parse a config.yaml into plain values; `${…}` in it is not resolved."""
    with reading(file):
        values = literal.parse(data.decode())
        for group in ("task", "model", "schedule"):
            getitem(values[group], "name")
        return dict(values)


def json_object(file: Path, data: bytes) -> dict[str, Any]:
    """Parse a JSON file's object, and check that it has the keys that readers rely on."""
    with reading(file):
        values = json.loads(data)
        for key in KEYS.get(file.name, ()):
            reduce(getitem, key.split("."), values)
        return dict(values)


def json_lines(file: Path, data: bytes) -> list[dict[str, Any]]:
    """Parse a file that has a JSON object in every line."""
    with reading(file):
        return [dict(json.loads(line)) for line in data.splitlines()]


@dataclass(frozen=True)
class RunStage:
    """A stage that was begun: its folder's name, as in 1-6x24-704x2816, and the content of its stage.json."""

    name: str
    values: dict[str, Any]

    def file(self, name: str) -> str:
        """Return the path of a stage's file within the run folder, as in the ledger."""
        return f"stages/{self.name}/{name}"


@dataclass(frozen=True)
class Run:
    """A run's folder, opened for reading; every file is checked against its recorded hash when it is read."""

    path: Path
    ledger: Ledger

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def is_finished(self) -> bool:
        """Whether the run has finished."""
        return RESULT in self.ledger

    def read(self, name: str) -> bytes:
        """Return a file's bytes; refuse a file that is not written yet, missing or damaged."""
        file, ledger = self.path / name, self.ledger
        if name not in ledger:
            raise UserError(f"{file}: is not there yet; the run has not come so far")
        for _ in range(LOOKS):
            data = file.read_bytes() if file.is_file() else None
            if data is not None and hashlib.sha256(data).hexdigest() in ledger.get(name, []):
                return data
            ledger = read_ledger(self.path)
        raise UserError(f"{file}: {problem_of(file, [])}; {AGAIN}")

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file."""
        return json_object(self.path / name, self.read(name))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The content of config.yaml as plain values."""
        return configuration(self.path / CONFIG, self.read(CONFIG))

    @cached_property
    def config(self) -> RunConfig:
        """The configuration for using the learned prompt: one process, and no settings of how it was learned."""
        settings = self.settings
        try:
            tree = stored.relocated(settings, self.path)
            for name in ("cache_dir", "tracking"):  # settings of earlier versions, and with words of theirs
                tree.pop(name, None)
            kept = {name: tree["engine"][name] for name in ("device", "dtype", "quantize") if name in tree["engine"]}
            tree["engine"] = {**kept, "name": "torch"}
            tree["prompt"] = {name: tree["prompt"][name] for name in LEARNED if name in tree["prompt"]}
            return compose.from_values(tree)
        except Exception as error:  # OmegaConf has many types
            raise UserError(f"{self.path / CONFIG}: is not a configuration of this fpt ({reason(error)})") from None

    @cached_property
    def result(self) -> dict[str, Any]:
        """The content of result.json, which only a finished run has."""
        if not self.is_finished:
            raise UserError(f"run={self.path}: this run is not finished; the same fpt train command goes on")
        return self.read_json(RESULT)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The content of plan.json."""
        return self.read_json(PLAN)

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, checked up to the last saved state; a line still being written is left out."""
        file = self.path / METRICS
        states = [name for stage in self.stages if (name := stage.file(STATE)) in self.ledger]
        if states:
            with reading(self.path / states[-1]):
                check_metrics(self.path, described(self.read(states[-1]))["metrics"])
        return json_lines(file, file.read_bytes().rpartition(b"\n")[0] if file.is_file() else b"")

    @cached_property
    def predictions(self) -> list[dict[str, Any]]:
        """The lines of predictions.jsonl."""
        return json_lines(self.path / PREDICTIONS, self.read(PREDICTIONS))

    @cached_property
    def stages(self) -> list[RunStage]:
        """The stages that were begun, in order."""
        files = [Path(name) for name in self.ledger if name.endswith(f"/{STAGE}")]
        stages = [RunStage(file.parent.name, self.read_json(str(file))) for file in files]
        return sorted(stages, key=lambda stage: int(stage.values["index"]))

    def stage(self, number: int) -> RunStage:
        """Return the stage with this number, counted from 1."""
        if not 1 <= number <= len(self.stages):
            raise UserError(f"stage={number}: {self.path} has stages 1 to {len(self.stages)}")
        return self.stages[number - 1]

    def prompt(self, stage: RunStage | None = None) -> "Tensor":
        """Return the run's best soft prompt [P, D], or the last one of a stage."""
        tensors = self.learned(stage)
        if list(tensors) != ["prompt"]:
            kind = f"{self.path}: holds a {self.config.prompt.kind} prompt"
            raise UserError(f"{kind}, which has no vectors to put before the input; `learned` has its tensors")
        return tensors["prompt"]

    def learned(self, stage: RunStage | None = None) -> "dict[str, Tensor]":
        """Return the tensors of the run's best prompt, soft or late, or of the last one of a stage."""
        from safetensors.torch import load  # imported here: most readers of runs do without torch

        file = stage.file(PROMPT) if stage else PROMPT
        with reading(self.path / file):
            return load(self.read(file))


def open_run(path: str | Path) -> Run:
    """Open a run's folder for reading."""
    folder = place(str(path), "run")
    if not folder.is_dir():
        raise UserError(f"run={path}: no such folder; a run's is runs/<task>-<model>-<schedule>-s<seed> or its run.dir")
    # A running process records a file in the ledger before it writes the file.
    ledger = {
        name: hashes for name, hashes in read_ledger(folder).items() if None not in hashes or (folder / name).exists()
    }
    if CONFIG not in ledger:
        raise UserError(f"run={path}: is not the folder of a run; that has a {CONFIG} and a checksums.json")
    return Run(folder, ledger)
