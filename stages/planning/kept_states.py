"""Are the states below a late prompt kept, where, and what does every stage do about them? Decided before training.

Below the prompt nothing learns, so an example's states are the same whenever a stage comes back to it; an expansion
that puts other blocks below the prompt makes them new ones.
"""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from fpt.backbones.shapes import Stack
from fpt.config.run_config import RunConfig
from fpt.devices.device import named
from fpt.devices.precision import name_of
from fpt.devices.processes import counted
from fpt.errors import UserError
from fpt.pricing.flops import Price, price_of
from fpt.prompts.kinds import kind_of
from fpt.units import amount
from stages.inputs import Inputs
from stages.schedule import Schedule, Stage
from stages.selection import around

MEMORY, DISK = 0.25, 0.5  # the shares of what is free that `auto` takes
# On a card `auto` keeps what is copied there sooner than computed: bytes a second from a process's memory or from a
# disk, FLOPs a second of a fast card under T5. A slower card gains more, and can be told to keep them.
COPIED = {"memory": 10 * 10**9, "disk": 2 * 10**9}
COMPUTED = 4 * 10**14


@dataclass(frozen=True)
class StageStates:
    """What a stage does about the states below the prompt.

    Attributes:
        blocks: how many of its blocks lie below the prompt.
        does: compute (before its first update), reuse (those of the stage before), or off (with every update anew).
    """

    blocks: int
    does: str


@dataclass(frozen=True)
class KeptStatesPlan:
    """The same of all stages.

    Attributes:
        where: memory, disk or off.
        reason: why, for people.
        examples: whose states are kept; None: not known before the data are read.
        bytes: what they take at most, in a file or in each process's memory; None likewise.
        stages: in order.
    """

    where: str
    reason: str
    examples: int | None
    bytes: int | None
    stages: tuple[StageStates, ...]

    @property
    def files(self) -> int:
        """How many files the stages leave on disk."""
        return sum(stage.does == "compute" for stage in self.stages)

    @property
    def in_memory(self) -> int:
        """Bytes that they take in each process's memory."""
        return (self.bytes or 0) if self.where == "memory" else 0

    @property
    def sentence(self) -> str:
        """For people."""
        if self.where == "off" or self.bytes is None:
            return f"states below the prompt are computed with every update: {self.reason}"
        if self.where == "memory":
            return f"states below the prompt are kept in memory, {amount(self.bytes)}B in each process: {self.reason}"
        files = "one file" if self.files == 1 else f"{self.files} files"
        total = amount(self.bytes * self.files)
        return f"states below the prompt are kept on disk, {total}B in {files}, for the next run too: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the sentence for people."""
        return {**asdict(self), "told": self.sentence}


def decide(
    config: RunConfig, schedule: Schedule, *, examples: int | None, tokens: int, cost: Price
) -> KeptStatesPlan | None:
    """What every stage does; None for a soft prompt, below which there is nothing.

    Args:
        config: of the run.
        schedule: its stages.
        examples: how many there are to train on; None: that is not known.
        tokens: of all that is read of them.
        cost: of the model.
    """
    kind, full = kind_of(config.prompt), schedule.full.source
    if kind.is_input:
        return None
    layer = kind.position(full.blocks)
    below = [_below(stage, full, layer) for stage in schedule.stages]
    size = None if examples is None else tokens * cost.d_model * getattr(torch, name_of(config.engine)).itemsize
    if config.prompt.cache == "off":
        return _off("prompt.cache=off as given", below, examples, size)
    if layer == 0:
        return _off("nothing lies below the prompt", below, examples, size)
    if examples is None or size is None:
        return _off("how many examples there are is known when the data are read", below, examples, size)
    if config.prompt.cache != "auto":
        stages = _stages(below, [True] * len(below))
        return KeptStatesPlan(
            config.prompt.cache, f"prompt.cache={config.prompt.cache} as given", examples, size, stages
        )
    stages = _stages(below, [stage.updates * config.train.batch_size > examples for stage in schedule.stages])
    plan = KeptStatesPlan("disk", "", examples, size, stages)
    if not plan.files:
        return _off(f"no stage comes back to any of {examples:,} examples", below, examples, size)
    flops = tokens * cost.below(schedule.full, batch=1, source=1, target=0, blocks=layer)
    is_card = named(config.engine.device).type == "cuda"
    for where, share in (("memory", MEMORY), ("disk", DISK)):
        if is_card and size / COPIED[where] > flops / COMPUTED:
            return _off(f"a card computes them sooner than they are copied from {where}", below, examples, size)
        plan = replace(plan, where=where)
        needed, (free, held) = _needed(config, plan), _room(config, where)
        if needed <= min(free, share * (free + held)):
            return replace(plan, reason=f"{amount(free)}B are free")
    return _off(f"{amount(_needed(config, plan))}B are more than auto takes of memory or disk", below, examples, size)


def decide_for_run(
    config: RunConfig, schedule: Schedule, inputs: Inputs, update: int, before: KeptStatesPlan | None
) -> KeptStatesPlan | None:
    """The same for a run, whose data are read.

    What was decided `before` holds for the stages that `update` has left behind; and with `auto` for the others, or a
    run that goes on would compute something else than one that was never stopped.
    """
    family, cost = inputs.backbone.family, price_of(inputs.backbone.config)
    tokens = sum(family.positions(source, max(target, 1)) for source, target in inputs.train.lengths)
    now = decide(config, schedule, examples=len(inputs.train), tokens=tokens, cost=cost)
    if now is None or before is None:
        _check_room(config, now)
        return now
    if config.prompt.cache == "auto":
        return before
    pairs = zip(schedule.stages, before.stages, now.stages, strict=True)
    return replace(now, stages=tuple(old if update >= stage.end else new for stage, old, new in pairs))


Below = tuple[tuple[int, ...], int]  # what a stage keeps below the prompt: blocks, and neurons in each


def _below(stage: Stage, full: Stack, layer: int) -> Below:
    """Which neurons these are is the same for all stages with as many."""
    kept = around(stage.shape.source.blocks, full.blocks, layer)
    return tuple(block for block in kept if block < layer), stage.shape.source.neurons


def _stages(below: list[Below], wanted: list[bool]) -> tuple[StageStates, ...]:
    """What is wanted is computed, unless the stage before has it."""
    rows, held = [], None
    for is_wanted, lower in zip(wanted, below, strict=True):
        does = "reuse" if lower == held else "compute" if is_wanted else "off"
        held = None if does == "off" else lower
        rows.append(StageStates(len(lower[0]), does))
    return tuple(rows)


def _off(reason: str, below: list[Below], examples: int | None, size: int | None) -> KeptStatesPlan:
    return KeptStatesPlan("off", reason, examples, size, _stages(below, [False] * len(below)))


def _check_room(config: RunConfig, plan: KeptStatesPlan | None) -> None:
    """Refuse what cannot be, before anything is computed."""
    if plan is None or plan.where == "off":
        return
    needed, free = _needed(config, plan), sum(_room(config, plan.where))
    if needed > free:
        other = "disk" if plan.where == "memory" else "memory"
        raise UserError(
            f"prompt.cache={plan.where}: the states below the prompt take {amount(needed)}B, and {amount(free)}B is"
            f" free; prompt.cache={other} may have room, and with prompt.cache=off the same command goes on without"
        )


def _needed(config: RunConfig, plan: KeptStatesPlan) -> int:
    """Bytes: in memory one stage's at a time in every process of a machine, on disk those of all."""
    assert plan.bytes is not None
    times = counted(config.engine).here if plan.where == "memory" else plan.files
    return plan.bytes * times


def _room(config: RunConfig, where: str) -> tuple[int, int]:
    """Bytes that are free, and those that states hold already, which may be these very ones."""
    if where == "memory":
        return int(psutil.virtual_memory().available), 0
    folder = folder_of(config).absolute()
    held = sum(file.stat().st_size for file in folder.glob("*.npy"))
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free, held


def folder_of(config: RunConfig) -> Path:
    """Where the files are."""
    return Path(config.cache_dir).expanduser() / "states"
