"""Sends a run's metrics to TensorBoard or Weights & Biases, besides metrics.jsonl.

A tracker shows every line of metrics.jsonl once, although a resumed run drops the lines after its last state and writes
them again. TensorBoard gets the lines that are kept again in a new file, and forgets the old one's. Weights & Biases
cannot delete anything, so it is asked how many lines it has and gets only later ones.
"""

import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fpt.config.literal import leaves
from fpt.config.run_config import RunConfig
from fpt.errors import UserError, reason
from fpt.runs.atomic import replace_file

MetricsLine = dict[str, Any]  # a line of metrics.jsonl


def chosen(tracking: str) -> str:
    """Return the tracker that `tracking=` means on this machine, or `none`; refuse one that is not installed."""
    if tracking == "auto":
        return "tensorboard" if find_spec("tensorboard") else "none"
    if tracking != "none" and find_spec(tracking) is None:
        raise UserError(
            f"tracking={tracking}: is not installed; pip install 'fpt[{tracking}]', or tracking=none does without"
        )
    return tracking


def open_sink(config: RunConfig, kept: Sequence[MetricsLine], say: Callable[[str], None]) -> "Harmless | None":
    """Open the run's tracker, if it has one, and send it the lines that a resumed run keeps."""
    name = chosen(config.tracking)
    if name == "none":
        return None
    try:
        if name == "tensorboard":
            seconds = kept[-1].get("seconds", 0) if kept else 0
            sink: TensorBoard | Wandb = TensorBoard(config.folder / "tensorboard", seconds=seconds)
        else:
            sink = Wandb(config)
        for line in kept:
            sink.log(line)
        return Harmless(name, sink, say)
    except Exception as error:  # trackers raise errors of all types
        raise UserError(f"tracking={name}: cannot be started ({reason(error)}); tracking=none does without") from None


def scalars(line: MetricsLine) -> dict[str, float]:
    """Name a line's numbers as trackers show them: train/loss, train/flops, validation/accuracy."""
    split = line.get("split", "train")
    return {f"{split}/{name}": value for name, value in line.items() if name not in ("split", "update")}


class Harmless:
    """A tracker that is dropped with a one-line message if it fails, since metrics.jsonl has everything."""

    def __init__(self, name: str, sink: "TensorBoard | Wandb", say: Callable[[str], None]) -> None:
        self._name, self._say = name, say
        self._sink: TensorBoard | Wandb | None = sink

    def log(self, line: MetricsLine) -> None:
        """Take a line of metrics.jsonl."""
        self._try(lambda sink: sink.log(line))

    def close(self) -> None:
        """End the tracking."""
        self._try(lambda sink: sink.close())

    def _try(self, call: "Callable[[TensorBoard | Wandb], None]") -> None:
        try:
            if self._sink is not None:
                call(self._sink)
        except Exception as error:  # trackers raise errors of all types
            self._sink = None
            self._say(
                f"tracking={self._name}: failed ({reason(error)}); the run goes on without; metrics.jsonl has all"
            )


class TensorBoard:
    """Writes the whole run anew when it resumes, and TensorBoard forgets what was written before."""

    def __init__(self, folder: Path, *, seconds: float) -> None:
        """Open a new event file in the folder; `seconds` is how long the run has computed so far."""
        from torch.utils.tensorboard import SummaryWriter

        self._began = time.time() - seconds  # so that relative times leave out pauses
        self._writer = SummaryWriter(str(folder), purge_step=0, flush_secs=10)

    def log(self, line: MetricsLine) -> None:
        """Take a line of metrics.jsonl."""
        for tag, value in scalars(line).items():
            self._writer.add_scalar(tag, value, line["update"], self._began + line.get("seconds", 0))

    def close(self) -> None:
        """End the tracking."""
        self._writer.close()


class Wandb:
    """Sends what Weights & Biases does not have yet: every line is one of its steps, also those of a resumed run."""

    def __init__(self, config: RunConfig) -> None:
        """Open a run in the project `fpt` or WANDB_PROJECT, with its files in the run folder."""
        import wandb

        folder = config.folder.resolve()
        name = folder / ".wandb-id"  # the id by which Weights & Biases recognises a resumed run
        if not name.is_file():
            replace_file(name, uuid.uuid4().hex[:12].encode())
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "fpt"),
            name=folder.name,
            id=name.read_text(),
            resume="allow",
            dir=folder,
            config=leaves(asdict(config)),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric="update")
        self._has, self._seen = self._run.step, 0  # numbers of lines: those it has from before, those seen here

    def log(self, line: MetricsLine) -> None:
        """Take a line of metrics.jsonl."""
        self._seen += 1
        if self._seen > self._has:
            self._run.log({**scalars(line), "update": line["update"]})

    def close(self) -> None:
        """End the tracking."""
        self._run.finish()
