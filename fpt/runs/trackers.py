"""Sends a run's metrics to TensorBoard or Weights & Biases, besides metrics.jsonl.

A tracker shows every line of metrics.jsonl once, although a resumed run drops the lines after its last state and writes
them again. TensorBoard's file is rewritten from the lines that are kept. Weights & Biases cannot delete anything, so it
is asked which update it has reached and gets only later ones.
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
            sink: TensorBoard | Updates = TensorBoard(config.folder / "tensorboard", seconds=seconds)
        else:
            sink = _wandb(config)
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

    def __init__(self, name: str, sink: "TensorBoard | Updates", say: Callable[[str], None]) -> None:
        self._name, self._say = name, say
        self._sink: TensorBoard | Updates | None = sink

    def log(self, line: MetricsLine) -> None:
        """Take a line of metrics.jsonl."""
        self._try(lambda sink: sink.log(line))

    def close(self) -> None:
        """End the tracking."""
        self._try(lambda sink: sink.close())

    def _try(self, call: "Callable[[TensorBoard | Updates], None]") -> None:
        try:
            if self._sink is not None:
                call(self._sink)
        except Exception as error:  # trackers raise errors of all types
            self._sink = None
            self._say(
                f"tracking={self._name}: failed ({reason(error)}); the run goes on without; metrics.jsonl has all"
            )


class TensorBoard:
    """One event file for the whole run, rewritten when the run resumes, which TensorBoard treats as a restart.

    It is written by TensorBoard's own record writer, which takes an eighth of the time of torch's SummaryWriter.
    """

    def __init__(self, folder: Path, *, seconds: float) -> None:
        """Replace the event files in the folder by a new one; `seconds` is how long the run has computed so far."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event = Event
        self._began = time.time() - seconds  # so that relative times leave out pauses
        folder.mkdir(exist_ok=True)
        for file in folder.glob("*tfevents*"):
            # Emptied, not removed: a running TensorBoard whose file is removed does not go on to the next one.
            file.write_bytes(b"") if file.stat().st_size else file.unlink()
        # TensorBoard reads its files in the order of their names.
        self._stream = (folder / f"events.out.tfevents.{time.time_ns()}").open("wb")
        self._writer = RecordWriter(self._stream)
        self._add(file_version="brain.Event:2", seconds=0)
        self._add(session_log={"status": "START"}, step=0, seconds=0)

    def log(self, line: MetricsLine) -> None:
        """Take a line of metrics.jsonl."""
        values = [{"tag": tag, "simple_value": value} for tag, value in scalars(line).items()]
        self._add(summary={"value": values}, step=line["update"], seconds=line.get("seconds", 0))
        self._stream.flush()

    def close(self) -> None:
        """End the tracking."""
        self._stream.close()

    def _add(self, *, seconds: float, **fields: Any) -> None:
        self._writer.write(self._event(wall_time=self._began + seconds, **fields).SerializeToString())


class Updates:
    """Sends an update's loss and validation together to a tracker from which nothing can be deleted.

    The last update is held back until its validation has come; otherwise the resumed run sends both.
    """

    def __init__(self, send: Callable[[dict[str, float], int], None], finish: Callable[[], None], first: int) -> None:
        """Prepare to send updates from `first` on; the tracker has the earlier ones."""
        self._send, self._finish, self._first = send, finish, first
        self._update, self._values = 0, dict[str, float]()

    def log(self, line: MetricsLine) -> None:
        """Take a line of metrics.jsonl."""
        if line["update"] != self._update:
            self._send_update()
            self._update, self._values = line["update"], {}
        self._values |= scalars(line)

    def close(self) -> None:
        """End the tracking."""
        if any(name.startswith("validation/") for name in self._values):
            self._send_update()
        self._finish()

    def _send_update(self) -> None:
        if self._values and self._update >= self._first:
            self._send(self._values, self._update)


def _wandb(config: RunConfig) -> Updates:
    """Open a run of Weights & Biases in the project `fpt` or WANDB_PROJECT, with its files in the run folder."""
    import wandb

    folder = config.folder.resolve()
    name = folder / ".wandb-id"  # the id by which Weights & Biases recognises a resumed run
    if not name.is_file():
        replace_file(name, uuid.uuid4().hex[:12].encode())
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "fpt"),
        name=folder.name,
        id=name.read_text(),
        resume="allow",
        dir=folder,
        config=leaves(asdict(config)),
        settings=wandb.Settings(silent=True, console="off"),
    )
    return Updates(lambda values, update: run.log(values, step=update), run.finish, first=run.step)
