"""Whether the states below a late prompt are kept, where, and what that takes in every stage: decided before training.

Below the prompt nothing learns, so an example's states are the same whenever a stage comes back to it; an expansion
that puts other blocks below the prompt makes them new ones.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from fpt.backbones.shapes import Selection, Stack
from fpt.config.schema import RunConfig
from fpt.data.encoded import Encoded, KeptStates
from fpt.devices import distributed
from fpt.errors import UserError
from fpt.prompts.kept_states import StatesBelow
from fpt.prompts.kinds import kind_of
from fpt.prompts.prompted import PromptedModel
from fpt.units import amount
from stages.planning import memory as fit
from stages.prepare import Materials
from stages.schedule import Schedule, Stage
from stages.selection import around

MEMORY, DISK = 0.25, 0.5  # the shares of what is free that `auto` takes


@dataclass(frozen=True)
class StageStates:
    """What a stage does about the states below the prompt.

    Attributes:
        blocks: how many of its encoder blocks lie below the prompt.
        does: compute (before its first update), reuse (those of the stage before), or off (with every update anew).
    """

    blocks: int
    does: str


@dataclass(frozen=True)
class Caching:
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
    def told(self) -> str:
        """For people."""
        if self.where == "off" or self.bytes is None:
            return f"states below the prompt are computed with every update: {self.reason}"
        if self.where == "memory":
            return f"states below the prompt are kept in memory, {amount(self.bytes)}B in each process: {self.reason}"
        files = "one file" if self.files == 1 else f"{self.files} files"
        total = amount(self.bytes * self.files)
        return f"states below the prompt are kept on disk, {total}B in {files}, for the next run too: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, with what people are told."""
        return {**asdict(self), "told": self.told}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Caching":
        """What `to_json` made plain."""
        stages = tuple(StageStates(**stage) for stage in values["stages"])
        return cls(values["where"], values["reason"], values["examples"], values["bytes"], stages)


def decide(config: RunConfig, schedule: Schedule, *, examples: int | None, tokens: int, d_model: int) -> Caching | None:
    """What every stage does; None for a soft prompt, below which there is nothing.

    Args:
        config: of the run.
        schedule: its stages.
        examples: how many there are to train on; None: that is not known.
        tokens: of all their sources.
        d_model: numbers in a state.
    """
    kind, full = kind_of(config.prompt), schedule.full.encoder
    if kind.is_input:
        return None
    layer = kind.position(full.blocks)
    below = [_below(stage, full, layer) for stage in schedule.stages]
    size = None if examples is None else tokens * d_model * getattr(torch, config.engine.dtype).itemsize
    if config.prompt.cache == "off":
        return _off("prompt.cache=off as given", below, examples, size)
    if layer == 0:
        return _off("nothing lies below the prompt", below, examples, size)
    if examples is None or size is None:
        return _off("how many examples there are is known when the data are read", below, examples, size)
    if config.prompt.cache != "auto":
        stages = _stages(below, [True] * len(below))
        return Caching(config.prompt.cache, f"prompt.cache={config.prompt.cache} as given", examples, size, stages)
    stages = _stages(below, [stage.updates * config.train.batch_size > examples for stage in schedule.stages])
    found = Caching("disk", "", examples, size, stages)
    if not found.files:
        return _off(f"no stage comes back to any of {examples:,} examples", below, examples, size)
    for where, share in (("memory", MEMORY), ("disk", DISK)):
        found = replace(found, where=where)
        needed, (free, held) = _needed(config, found), _room(config, where)
        if needed <= min(free, share * (free + held)):
            return replace(found, reason=f"{amount(free)}B are free")
    return _off(f"{amount(_needed(config, found))}B are more than auto takes of memory or disk", below, examples, size)


def decide_for_run(materials: Materials, update: int, before: dict[str, Any] | None) -> Caching | None:
    """The same for a run, whose data are read.

    What was decided `before`, as its plan.json has it, holds for the stages that `update` has left behind; and with
    `auto` for the others, or a run that goes on would compute something else than one that was never stopped.

    Raises:
        UserError: the memory or the disk that was asked for by name has no room for the states.
    """
    config, train, schedule = materials.config, materials.train, materials.schedule
    tokens, d_model = len(train.sources.ids), materials.backbone.config.d_model
    now = decide(config, schedule, examples=len(train), tokens=tokens, d_model=d_model)
    then = Caching.from_json(before) if before else None
    if now is None or then is None:
        _check_room(config, now)
        return now
    if config.prompt.cache == "auto":
        return then
    pairs = zip(schedule.stages, then.stages, now.stages, strict=True)
    return replace(now, stages=tuple(old if update >= stage.end else new for stage, old, new in pairs))


def beside(config: RunConfig, caching: Caching | None) -> RunConfig:
    """The configuration with what is left of a CPU's memory beside states that are kept in it."""
    on_cpu = config.engine.device == "cpu" or not torch.cuda.is_available()
    if caching is None or caching.bytes is None or caching.where != "memory" or not on_cpu:
        return config
    left = max(1, fit.device_memory(config.engine) - caching.bytes)
    return replace(config, engine=replace(config.engine, device_memory=f"{left}B"))


class Keeper:
    """Gives every stage its training data, with the states below the prompt where they are kept."""

    def __init__(self, materials: Materials, caching: Caching | None) -> None:
        """Of a run; what was decided holds."""
        self._materials, self.caching = materials, caching
        self._held: tuple[str, KeptStates] | None = None

    def data(self, stage: Stage, chosen: Selection, model: PromptedModel) -> Encoded:
        """The training data of a stage, whose `model` is the part of the backbone that was `chosen`.

        Raises:
            UserError: there is no room for the states.
        """
        if self.caching is None or self.caching.stages[stage.index - 1].does == "off":
            self._held = None
            return self._materials.train
        about = self._about(chosen)
        name = json.dumps(about)
        if self._held is None or self._held[0] != name:
            self._held = None  # the last stage's go before these are made
            self._held = name, self._states(about, model, self.caching.where)
        return replace(self._materials.train, below=self._held[1])

    def _states(self, about: dict[str, Any], model: PromptedModel, where: str) -> KeptStates:
        materials = self._materials
        config, engine, with_bar = materials.config, materials.engine, materials.progress.with_bar
        states = StatesBelow(model, materials.train, config.train.batch_size, engine, with_bar)
        return states.in_memory() if where == "memory" else states.in_file(_folder(config), about)

    def _about(self, chosen: Selection) -> dict[str, Any]:
        """What the states are of, but for the data."""
        kept, layer = chosen.encoder, self._materials.layer
        blocks = [block for block in kept.blocks if block < layer]
        neurons = None if kept.neurons is None else kept.neurons[: len(blocks)]
        return {
            "model": self._materials.backbone.fingerprint,
            "task": self._materials.task.name,
            "blocks": blocks,
            "neurons": hashlib.sha256(json.dumps(neurons).encode()).hexdigest(),
        }


Below = tuple[tuple[int, ...], int]  # what a stage keeps below the prompt: blocks, and neurons in each


def _below(stage: Stage, full: Stack, layer: int) -> Below:
    """Which neurons these are is the same for all stages with as many."""
    kept = around(stage.shape.encoder.blocks, full.blocks, layer)
    return tuple(block for block in kept if block < layer), stage.shape.encoder.neurons


def _stages(below: list[Below], wanted: list[bool]) -> tuple[StageStates, ...]:
    """What is wanted is computed, unless the stage before has it."""
    rows, held = [], None
    for is_wanted, lower in zip(wanted, below, strict=True):
        does = "reuse" if lower == held else "compute" if is_wanted else "off"
        held = None if does == "off" else lower
        rows.append(StageStates(len(lower[0]), does))
    return tuple(rows)


def _off(reason: str, below: list[Below], examples: int | None, size: int | None) -> Caching:
    return Caching("off", reason, examples, size, _stages(below, [False] * len(below)))


def _check_room(config: RunConfig, caching: Caching | None) -> None:
    """Refuse what cannot be, before anything is computed."""
    if caching is None or caching.where == "off":
        return
    needed, free = _needed(config, caching), sum(_room(config, caching.where))
    if needed > free:
        other = "disk" if caching.where == "memory" else "memory"
        raise UserError(
            f"prompt.cache={caching.where}: the states below the prompt take {amount(needed)}B, and {amount(free)}B is"
            f" free; prompt.cache={other} may have room, and with prompt.cache=off the same command goes on without"
        )


def _needed(config: RunConfig, caching: Caching) -> int:
    """Bytes: in memory one stage's at a time in every process of a machine, on disk those of all."""
    assert caching.bytes is not None
    times = max(config.engine.processes, distributed.here()[1]) if caching.where == "memory" else caching.files
    return caching.bytes * times


def _room(config: RunConfig, where: str) -> tuple[int, int]:
    """Bytes that are free, and those that states hold already, which may be these very ones."""
    if where == "memory":
        return int(psutil.virtual_memory().available), 0
    folder = _folder(config).absolute()
    held = sum(file.stat().st_size for file in folder.glob("*.npy"))
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free, held


def _folder(config: RunConfig) -> Path:
    return Path(config.cache_dir).expanduser() / "states"
