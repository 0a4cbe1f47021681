"""What the lines of metrics.jsonl say: whether losses rose or an expansion lost the prompt; and TensorBoard shows them.

TensorBoard shows every line once, although a resumed run drops the lines after its last state and writes them again: it
gets the lines that are kept again in a new file, and forgets the old one's.
"""

import hashlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fpt.config.run_config import RunConfig
from fpt.errors import UserError, reason

MetricsLine = dict[str, Any]

WATCHED, LAST = 60, 10  # the first updates of a stage, in which its loss should not rise, and the last of these
RISE = 0.5  # nats by which the mean of the last may be above the first, as losses of single batches differ
BEFORE, AFTER = 8, 3  # updates on each side of an expansion whose losses are compared
# A loss is worse than before by so many standard deviations of single updates', and by so many nats at least, as losses
# that hardly differ deviate by nothing.
SPREAD, NATS = 3, 0.1


def risen_in(stage: int, lines: Sequence[MetricsLine]) -> tuple[float, float] | None:
    """The losses at both ends of a stage's first updates, from the lines of metrics.jsonl, if they have risen.

    None: they have not, or not all of these updates are done.
    """
    losses = _of(stage, lines)[:WATCHED]
    first, last = losses[0], mean(losses[-LAST:])
    return (first, last) if len(losses) == WATCHED and last > first + RISE else None


def lost_at(stage: int, lines: Sequence[MetricsLine]) -> dict[str, float] | None:
    """The mean loss `before` and `after` the expansion to a stage, from the lines of metrics.jsonl, if it is worse.

    None: it is not, or the stage before was too short to tell, or this one has not gone on for long enough.
    """
    last, first = _of(stage - 1, lines)[-BEFORE:], _of(stage, lines)[:AFTER]
    if len(last) < BEFORE or len(first) < AFTER:
        return None
    before, after = mean(last), mean(first)
    is_lost = after > before + max(SPREAD * stdev(last), NATS)
    return {"before": before, "after": after} if is_lost else None


def _of(stage: int, lines: Sequence[MetricsLine]) -> list[float]:
    return [line["loss"] for line in lines if line["stage"] == stage and "loss" in line]


def expansion_lost(stage: int, lost: dict[str, float]) -> str:
    """A lost expansion in words for the user."""
    return (
        f"the expansion to stage {stage} lost what the prompt had learned: loss {lost['before']:.2f} before,"
        f" {lost['after']:.2f} after; this schedule may not suit this model (schedule=pt has no expansions)"
    )


def is_tracked(tracking: str) -> bool:
    """Return whether TensorBoard shows a run with this `tracking=`; refuse what is not installed."""
    needed = {"none": [], "wandb": ["tensorboard", "wandb"]}.get(tracking, ["tensorboard"])
    missing = [name for name in needed if find_spec(name) is None]
    if missing and tracking != "auto":
        raise UserError(
            f"tracking={tracking}: {missing[0]} is not installed; pip install 'fpt[{tracking}]', or leave it out"
        )
    return bool(needed) and not missing


def open_tracker(config: RunConfig, kept: Sequence[MetricsLine], say: Callable[[str], None]) -> "Tracker | None":
    """Have TensorBoard show a run, if it is to, and send it the lines that a resumed run keeps."""
    return Tracker(config, kept, say) if is_tracked(config.tracking) else None


def _follow_by_wandb(folder: Path) -> Any:
    """Have Weights & Biases send along what is written for TensorBoard, to one run for each folder."""
    import wandb
    from wandb.integration.tensorboard import patch

    identity = hashlib.sha256(f"{platform.node()}{folder.resolve()}".encode()).hexdigest()[:12]
    patch(root_logdir=str(folder.resolve()))
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", "fpt"),
        name=folder.name,
        id=identity,
        resume="allow",
        dir=folder,
        settings=wandb.Settings(silent=True, console="off"),
    )


class Tracker:
    """Sends lines of metrics.jsonl to TensorBoard; if that fails, it says so once, and the run goes on without."""

    def __init__(self, config: RunConfig, kept: Sequence[MetricsLine], say: Callable[[str], None]) -> None:
        """Open a new event file, and send it the lines that a resumed run keeps."""
        self._say, self._has_failed = say, False
        try:
            self._wandb = _follow_by_wandb(config.folder) if config.tracking == "wandb" else None
            from torch.utils.tensorboard import SummaryWriter

            self._writer: Any = SummaryWriter(str(config.folder.resolve() / "tensorboard"), purge_step=0, flush_secs=10)
            seconds = kept[-1].get("seconds", 0) if kept else 0
            self._began = time.time() - seconds  # so that relative times leave out pauses
            for line in kept:
                self._write(line)
        except Exception as error:  # of all types
            raise UserError(f"tracking={config.tracking}: cannot be started ({reason(error)})") from None

    def log(self, line: MetricsLine) -> None:
        """Take a line of metrics.jsonl."""
        self._try(lambda: self._write(line))

    def close(self) -> None:
        """End the tracking."""
        self._try(lambda: self._writer.close())
        if self._wandb:
            self._try(self._wandb.finish)

    def _write(self, line: MetricsLine) -> None:
        split, at = line.get("split", "train"), self._began + line.get("seconds", 0)
        for name, value in line.items():
            if name not in ("split", "update"):
                self._writer.add_scalar(f"{split}/{name}", value, line["update"], at)

    def _try(self, call: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            call()
        except Exception as error:  # of all types
            self._has_failed = True
            self._say(f"TensorBoard failed ({reason(error)}); the run goes on without; metrics.jsonl has all")
