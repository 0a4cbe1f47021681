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
from itertools import count
from typing import Any

from fpt.config.literal import leaves
from fpt.config.run_config import RunConfig
from fpt.errors import UserError, reason
from fpt.runs.files import replace_file

MetricsLine = dict[str, Any]  # a line of metrics.jsonl
Log = Callable[[MetricsLine], None]
Close = Callable[[], None]


def chosen(tracking: str) -> str:
    """Return the tracker that `tracking=` means on this machine, or `none`; refuse one that is not installed."""
    if tracking == "auto":
        return "tensorboard" if find_spec("tensorboard") else "none"
    if tracking != "none" and find_spec(tracking) is None:
        raise UserError(
            f"tracking={tracking}: is not installed; pip install 'fpt[{tracking}]', or tracking=none does without"
        )
    return tracking


class Tracker:
    """Sends lines to a tracker, which is dropped with a one-line message if it fails: metrics.jsonl has everything."""

    def __init__(self, name: str, log: Log, close: Close, say: Callable[[str], None]) -> None:
        self._name, self._log, self._close, self._say = name, log, close, say
        self._has_failed = False

    def log(self, line: MetricsLine) -> None:
        """Take a line of metrics.jsonl."""
        self._try(lambda: self._log(line))

    def close(self) -> None:
        """End the tracking."""
        self._try(self._close)

    def _try(self, call: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            call()
        except Exception as error:  # trackers raise errors of all types
            self._has_failed = True
            self._say(
                f"tracking={self._name}: failed ({reason(error)}); the run goes on without; metrics.jsonl has all"
            )


def open_tracker(config: RunConfig, kept: Sequence[MetricsLine], say: Callable[[str], None]) -> Tracker | None:
    """Open the run's tracker, if it has one, and send it the lines that a resumed run keeps."""
    name = chosen(config.tracking)
    if name == "none":
        return None
    try:
        log, close = _tensorboard(config, kept) if name == "tensorboard" else _wandb(config)
        for line in kept:
            log(line)
    except Exception as error:  # trackers raise errors of all types
        raise UserError(f"tracking={name}: cannot be started ({reason(error)}); tracking=none does without") from None
    return Tracker(name, log, close, say)


def scalars(line: MetricsLine) -> dict[str, float]:
    """Name a line's numbers as trackers show them: train/loss, train/flops, validation/accuracy."""
    split = line.get("split", "train")
    return {f"{split}/{name}": value for name, value in line.items() if name not in ("split", "update")}


def _tensorboard(config: RunConfig, kept: Sequence[MetricsLine]) -> tuple[Log, Close]:
    """Open a new event file, because of which TensorBoard forgets what was written before."""
    from torch.utils.tensorboard import SummaryWriter

    seconds = kept[-1].get("seconds", 0) if kept else 0
    began = time.time() - seconds  # so that relative times leave out pauses
    writer = SummaryWriter(str(config.folder / "tensorboard"), purge_step=0, flush_secs=10)

    def log(line: MetricsLine) -> None:
        for tag, value in scalars(line).items():
            writer.add_scalar(tag, value, line["update"], began + line.get("seconds", 0))

    return log, writer.close


def _wandb(config: RunConfig) -> tuple[Log, Close]:
    """Open a run in the project `fpt` or WANDB_PROJECT, with its files in the run folder; each line is a step."""
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
    run.define_metric("*", step_metric="update")
    had, numbers = run.step, count()

    def log(line: MetricsLine) -> None:
        if next(numbers) >= had:  # the earlier ones are there from before the run was resumed
            run.log({**scalars(line), "update": line["update"]})

    return log, run.finish
