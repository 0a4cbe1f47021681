"""Where a run's metrics go besides metrics.jsonl: TensorBoard, Weights & Biases or Trackio.

A tracker is told what metrics.jsonl has, once: a resumed run drops the lines after its last state and writes them
again. TensorBoard's file is made anew from the lines that are left. The others cannot take anything back, but say how
far they have come, and are told what comes after.

`accelerate.tracking` has the same three as thin wrappers, and nothing of this: ours would be needed around them.
"""

import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
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
    """Which tracker `tracking=` means here; none where there is nothing to do."""
    if tracking == "auto":
        return "tensorboard" if find_spec("tensorboard") else "none"
    if tracking != "none" and find_spec(tracking) is None:
        raise UserError(
            f"tracking={tracking}: is not installed; pip install 'fpt[{tracking}]', or tracking=none does without"
        )
    return tracking


def open_sink(config: RunConfig, kept: Sequence[MetricsLine], say: Callable[[str], None]) -> "Harmless | None":
    """The run's tracker if it has one, told of the lines that the run goes on from; once open it never stops a run."""
    name = chosen(config.tracking)
    if name == "none":
        return None
    try:
        if name == "tensorboard":
            seconds = kept[-1].get("seconds", 0) if kept else 0
            sink: TensorBoard | Updates = TensorBoard(config.folder / "tensorboard", seconds=seconds)
        else:
            sink = {"wandb": _wandb, "trackio": _trackio}[name](config)
        for line in kept:
            sink.log(line)
        return Harmless(name, sink, say)
    except Exception as error:  # of whatever the tracker's makers thought of
        raise UserError(f"tracking={name}: cannot be started ({reason(error)}); tracking=none does without") from None


def scalars(line: MetricsLine) -> dict[str, float]:
    """A line's numbers by name: train/loss, train/flops, validation/accuracy."""
    split = line.get("split", "train")
    return {f"{split}/{name}": value for name, value in line.items() if name not in ("split", "update")}


class Harmless:
    """A tracker that is given up when it fails, with one line: the run is worth more, and metrics.jsonl has it all."""

    def __init__(self, name: str, sink: "TensorBoard | Updates", say: Callable[[str], None]) -> None:
        self._name, self._say = name, say
        self._sink: TensorBoard | Updates | None = sink

    def log(self, line: MetricsLine) -> None:
        """Take one more line of metrics.jsonl."""
        self._try(lambda sink: sink.log(line))

    def close(self) -> None:
        """There are no more."""
        self._try(lambda sink: sink.close())

    def _try(self, call: "Callable[[TensorBoard | Updates], None]") -> None:
        try:
            if self._sink is not None:
                call(self._sink)
        except Exception as error:  # of whatever the tracker's makers thought of
            self._sink = None
            self._say(
                f"tracking={self._name}: failed ({reason(error)}); the run goes on without; metrics.jsonl has all"
            )


class TensorBoard:
    """An event file, one for the whole run; a running TensorBoard takes a new one for a restart.

    Written by the parts of TensorBoard that need neither TensorFlow, of which it imports what it finds, nor a thread:
    3,000 lines, each on disk at once, take 0.3 s, and 2.5 s and twice the bytes with torch's SummaryWriter.
    """

    def __init__(self, folder: Path, *, seconds: float) -> None:
        """Begin a new file, in place of those in the folder; the run has computed for so many seconds."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event = Event
        self._began = time.time() - seconds  # so that relative time is the run's, without the time between its parts
        folder.mkdir(exist_ok=True)
        for file in folder.glob("*tfevents*"):
            # A running TensorBoard may be reading it: from one that is gone it would not go on to the next.
            file.write_bytes(b"") if file.stat().st_size else file.unlink()
        self._stream = (folder / f"events.out.tfevents.{time.time_ns()}").open("wb")  # names are read in order
        self._writer = RecordWriter(self._stream)
        self._add(file_version="brain.Event:2", seconds=0)
        self._add(session_log={"status": "START"}, step=0, seconds=0)

    def log(self, line: MetricsLine) -> None:
        """Take one more."""
        values = [{"tag": tag, "simple_value": value} for tag, value in scalars(line).items()]
        self._add(summary={"value": values}, step=line["update"], seconds=line.get("seconds", 0))
        self._stream.flush()

    def close(self) -> None:
        """There are no more."""
        self._stream.close()

    def _add(self, *, seconds: float, **fields: Any) -> None:
        self._writer.write(self._event(wall_time=self._began + seconds, **fields).SerializeToString())


class Updates:
    """A tracker that is told an update's loss and validation together, and cannot take anything back.

    A last loss whose validation is still to come is kept back: the run that goes on from there tells both.
    """

    def __init__(self, send: Callable[[dict[str, float], int], None], finish: Callable[[], None], first: int) -> None:
        """Nothing before the update `first` is told, since the tracker has it."""
        self._send, self._finish, self._first = send, finish, first
        self._update, self._values = 0, dict[str, float]()

    def log(self, line: MetricsLine) -> None:
        """Take one more."""
        if line["update"] != self._update:
            self._tell()
            self._update, self._values = line["update"], {}
        self._values |= scalars(line)

    def close(self) -> None:
        """There are no more."""
        if any(name.startswith("validation/") for name in self._values):
            self._tell()
        self._finish()

    def _tell(self) -> None:
        if self._values and self._update >= self._first:
            self._send(self._values, self._update)


def _wandb(config: RunConfig) -> Updates:
    """A run of Weights & Biases in the project `fpt` or WANDB_PROJECT, its own files in the run folder."""
    import wandb

    folder = config.folder.resolve()
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "fpt"),
        name=folder.name,
        id=_id(folder / ".wandb-id"),
        resume="allow",
        dir=folder,
        config=leaves(asdict(config)),
        settings=wandb.Settings(silent=True, console="off"),
    )
    return Updates(lambda values, update: run.log(values, step=update), run.finish, first=run.step)


def _trackio(config: RunConfig) -> Updates:
    """A run of Trackio in the project `fpt` or TRACKIO_PROJECT, kept where its own settings say."""
    import trackio

    def finish() -> None:
        with redirect_stdout(sys.stderr):
            trackio.finish()

    folder = config.folder.resolve()
    with redirect_stdout(sys.stderr):  # standard output is for results
        run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "fpt"),
            name=f"{folder.name}-{_id(folder / '.trackio-id')}",  # it knows a run by its name alone
            resume="allow",
            config=leaves(asdict(config)),
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
    # No public name says how far a run has come.
    return Updates(lambda values, update: run.log(values, step=update), finish, first=run._next_step)


def _id(file: Path) -> str:
    """What a tracker knows the run by, kept in the run folder."""
    if not file.is_file():
        replace_file(file, uuid.uuid4().hex[:12].encode())
    return file.read_text()
