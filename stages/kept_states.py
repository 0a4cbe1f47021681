"""Decides whether states that the prompt does not change are kept, and where; computes them and hands them to stages.

They are the hidden states below a late prompt, or a source's keys and values where the prompt stands behind it. An
example has the same ones every time a stage comes back to it, until an expansion changes the blocks that they come
from. Computing them once takes under a hundredth of a run, so they are not kept for the next run.

Letters: D model, N tokens read of all examples together.
"""

import math
import mmap
import os
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpt.backbones.shapes import Selection
from fpt.config.run_config import RunConfig
from fpt.data.batches import batches_by_length, in_turn
from fpt.data.encoded import Encoded, KeptStates
from fpt.devices import distributed
from fpt.devices.device import states_precision
from fpt.devices.engine import Engine
from fpt.devices.processes import counted
from fpt.errors import UserError
from fpt.pricing.flops import Price
from fpt.pricing.memory import is_for_card
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import WithBar
from fpt.units import amount
from stages.schedule import Schedule, Stage

SHARE = {"memory": 0.25, "disk": 0.5}  # the share of free memory or disk that `auto` may take
# On a GPU `auto` caches states only where copying them is faster than computing them: bytes per second from a process's
# memory or from a disk, FLOPs per second of a fast GPU under T5. A slower GPU gains more, and can be told to cache.
COPIED = {"memory": 10 * 10**9, "disk": 2 * 10**9}
COMPUTED = 4 * 10**14
SENT = 2**24  # how many numbers the processes exchange at once


@dataclass(frozen=True)
class StatesPlan:
    """What a run does about the states that its prompt does not change.

    Attributes:
        where: memory, disk or off.
        reason: why, in words for the user.
        bytes: what the states take at most in each process; None if that is not known before the data are read.
        stages: for each stage compute (before its first update), reuse (those of the stage before), or off (computed
            again with every update).
    """

    where: str
    reason: str
    bytes: int | None
    stages: tuple[str, ...]

    @property
    def in_memory(self) -> int:
        """Bytes that the states take in each process's memory."""
        return (self.bytes or 0) if self.where == "memory" else 0

    @property
    def sentence(self) -> str:
        """The plan in words for the user."""
        if self.where == "off" or self.bytes is None:
            return f"states that the prompt does not change are computed with every update: {self.reason}"
        place = {"memory": "in memory", "disk": "on disk"}[self.where]
        size = f"{amount(self.bytes)}B for each process"
        return f"states that the prompt does not change are kept {place}, {size}: {self.reason}"


def decide(
    config: RunConfig, schedule: Schedule, *, examples: int | None, tokens: int, cost: Price
) -> StatesPlan | None:
    """Decide what every stage does about states that the prompt does not change; None for one before the source.

    Args:
        config: the run's configuration, in which neither precision nor device is auto.
        schedule: the run's stages.
        examples: the number of training examples; None if it is not known yet.
        tokens: how many tokens are read of all training examples together.
        cost: the model's price.
    """
    if schedule.fixed is None:
        return None
    asked, width = config.prompt.cache, cost.kept_width(schedule.last.shape, config.prompt)
    below = [(schedule.unchanged(stage), stage.shape.source.neurons) for stage in schedule.stages]
    itemsize = getattr(torch, states_precision(config.engine)).itemsize
    size = None if examples is None else tokens * width * itemsize
    off = StatesPlan("off", "", size, _stages(below, [False] * len(below)))
    if asked == "off":
        return replace(off, reason="prompt.cache=off as given")
    if schedule.fixed == 0:
        return replace(off, reason="nothing lies below the prompt")
    if examples is None or size is None:
        return replace(off, reason="how many examples there are is known when the data are read")
    if asked != "auto":
        return StatesPlan(asked, f"prompt.cache={asked} as given", size, _stages(below, [True] * len(below)))
    stages = _stages(below, [stage.updates * config.train.batch_size > examples for stage in schedule.stages])
    if "compute" not in stages:
        return replace(off, reason=f"no stage comes back to any of {examples:,} examples")
    flops = tokens * cost.below(schedule.full, batch=1, source=1, target=0, blocks=schedule.fixed)
    is_on_gpu, needed = is_for_card(config.engine), size * counted(config.engine).here
    for where, share in SHARE.items():
        if is_on_gpu and size / COPIED[where] > flops / COMPUTED:
            return replace(off, reason=f"a card computes them sooner than they are copied from {where}")
        if needed <= share * (free := _free(config, where)):
            return StatesPlan(where, f"{amount(free)}B are free", size, stages)
    return replace(off, reason=f"{amount(needed)}B are more than auto takes of memory or disk")


def going_on(config: RunConfig, schedule: Schedule, now: StatesPlan, before: StatesPlan, update: int) -> StatesPlan:
    """The plan of a run resumed after `update` updates, from the plan it had `before` and the plan made `now`.

    Stages that are over keep what was decided `before`. With `auto` so do the others: otherwise a resumed run would
    compute something else than one that was never stopped.
    """
    if config.prompt.cache == "auto":
        return before
    pairs = zip(schedule.stages, before.stages, now.stages, strict=True)
    return replace(now, stages=tuple(old if update >= stage.end else new for stage, old, new in pairs))


def check_room(config: RunConfig, plan: StatesPlan | None) -> None:
    """Refuse a cache that was asked for by name and does not fit, before anything is computed."""
    if plan is None or plan.bytes is None or config.prompt.cache != plan.where or plan.where == "off":
        return
    needed, free = plan.bytes * counted(config.engine).here, _free(config, plan.where)
    if needed > free:
        other = "disk" if plan.where == "memory" else "memory"
        raise UserError(
            f"prompt.cache={plan.where}: the states to keep take {amount(needed)}B, and {amount(free)}B is"
            f" free; prompt.cache={other} may have room, and with prompt.cache=off the same command goes on without"
        )


def _free(config: RunConfig, where: str) -> int:
    """Bytes of memory, or of the disk that cache_dir is on, that are free."""
    if where == "memory":
        return int(psutil.virtual_memory().available)
    folder = _folder(config)
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def _folder(config: RunConfig) -> Path:
    return Path(config.cache_dir).expanduser().absolute()


def _stages(below: list[tuple[int, int]], wanted: list[bool]) -> tuple[str, ...]:
    """For every stage, whether its states are computed, taken over from the stage before, or not kept.

    `below` are the numbers of the blocks that states are kept of and of their neurons, which determine what is chosen.
    """
    rows, held = [], None
    for is_wanted, lower in zip(wanted, below, strict=True):
        rows.append("reuse" if lower == held else "compute" if is_wanted else "off")
        held = None if rows[-1] == "off" else lower
    return tuple(rows)


Selected = tuple[tuple[int, ...], tuple[tuple[int, ...], ...] | None]


@dataclass(frozen=True)
class StatesBelow:
    """Computes the states to keep for all examples; the processes share the work and exchange the results."""

    model: PromptedModel
    data: Encoded
    batch_size: int
    engine: Engine
    with_bar: WithBar

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of all states together [N, D]."""
        return int(self.starts[-1]), self.model.reader.kept_width

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each example's states begin, and where the last ones end.

        An example has a state for every source token and, below a causal model's prompt, for every target token read.
        """
        return self.data.joined_starts if self.model.reader.keeps_target else self.data.sources.starts

    def in_memory(self) -> KeptStates:
        """The states in this process's own memory."""
        return self._computed(torch.zeros(self.shape, dtype=self.engine.states_dtype))

    def on_disk(self, folder: Path) -> KeptStates:
        """The states in an unnamed file, which the system deletes when they are released or the process ends."""
        size = math.prod(self.shape) * self.engine.states_dtype.itemsize
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder) as file:
                file.truncate(size)
                if hasattr(os, "posix_fallocate"):  # not on macOS; without it, writing to a full disk crashes
                    os.posix_fallocate(file.fileno(), 0, size)
                mapped = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise UserError(
                f"prompt.cache=disk: {amount(size)}B of states cannot be kept in {folder} ({error.strerror});"
                " the same command with prompt.cache=off goes on without, or give another cache_dir"
            ) from None
        return self._computed(torch.frombuffer(mapped, dtype=self.engine.states_dtype).view(self.shape))

    def _computed(self, rows: Tensor) -> KeptStates:
        """Fill `rows` (zeros at first) with the states of all tokens except padding."""
        batches = batches_by_length(self.data, self.batch_size)
        own = in_turn(batches, distributed.rank(), distributed.size())
        for indices in self.with_bar(own, "states to keep"):
            if not indices and not self.model.in_step:
                continue
            states = self.model.below(self.data.batch(indices or batches[0]).to(self.engine.device)).cpu()
            for index, padded in zip(indices, states, strict=False):
                start, end = self.starts[index], self.starts[index + 1]
                rows[start:end] = padded[: end - start]
        distributed.barrier()  # the exchange below would time out on a slow process
        # Every state is nonzero in one process only, so adding the bits as integers leaves them as they are.
        for part in torch.split(rows.view(torch.int32).view(-1), SENT):
            distributed.all_reduce_sum_([part])
        return KeptStates(rows, self.starts)


class StateKeeper:
    """Gives every stage its training data, with states that the prompt does not change where the plan keeps them.

    The states of one stage are held at a time; a stage that needs the same ones takes them over.
    """

    def __init__(self, config: RunConfig, plan: StatesPlan | None, block: int) -> None:
        """`block` is the number of the backbone's blocks that states are kept of."""
        self._plan, self._block, self._folder = plan, block, _folder(config)
        self._held: tuple[Selected, KeptStates] | None = None

    def data(self, stage: Stage, selection: Selection, below: StatesBelow) -> Encoded:
        """The examples that a stage trains on; `below` computes the states of its model where none are held yet."""
        if self._plan is None or self._plan.stages[stage.index - 1] == "off":
            self._held = None
            return below.data
        wanted = selected_below(selection, self._block)
        if self._held is None or self._held[0] != wanted:
            self._held = None  # frees the last stage's states before new ones are made
            in_memory = self._plan.where == "memory"
            self._held = wanted, below.in_memory() if in_memory else below.on_disk(self._folder)
        return replace(below.data, below=self._held[1])


def selected_below(selection: Selection, block: int) -> Selected:
    """The kept blocks below a block, and the neurons of each; None if all neurons are kept."""
    blocks = tuple(kept for kept in selection.source.blocks if kept < block)
    neurons = selection.source.neurons
    return blocks, None if neurons is None else neurons[: len(blocks)]
