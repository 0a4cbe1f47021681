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

from fpt.backbones.family import Selection, Stack, around
from fpt.config import RunConfig
from fpt.console import amount
from fpt.data import Encoded, States
from fpt.errors import UserError
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.states import Filler
from stages.prepare import Materials
from stages.schedule import Schedule, Stage

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
        bytes: what they take, in a file or in each process's memory, at most; of 1,000 examples where their number is
            not known.
        stages: in order.
    """

    where: str
    reason: str
    examples: int | None
    bytes: int
    stages: tuple[StageStates, ...]

    @property
    def number(self) -> int:
        """How many stages compute states of their own."""
        return sum(stage.does == "compute" for stage in self.stages)

    @property
    def told(self) -> str:
        """For people."""
        if self.where == "off":
            return f"states below the prompt are computed with every update: {self.reason}"
        place = "in memory" if self.where == "memory" else "on disk"
        return f"states below the prompt are kept {place}, {amount(self.bytes)}B for each stage: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Size:
    """How much there is to keep: examples (None: not known), and bytes of them, of 1,000 where that is not known."""

    examples: int | None
    bytes: int


def plan(config: RunConfig, schedule: Schedule, size: Size) -> Caching | None:
    """What every stage does; None for a soft prompt, below which there is nothing."""
    if config.prompt.kind == "soft":
        return None
    layer, full = config.prompt.position(schedule.full.encoder.blocks), schedule.full.encoder
    below = [_below(stage, full, layer) for stage in schedule.stages]
    where, reason, is_kept = _decide(config, schedule, size, layer, len(set(below)))
    rows, held = [], None
    for kept, lower in zip(is_kept, below, strict=True):
        does = "off" if not kept else "reuse" if lower == held else "compute"
        held = lower if kept else None
        rows.append(StageStates(len(lower[0]), does))
    return Caching(where, reason, size.examples, size.bytes, tuple(rows))


def size_of(config: RunConfig, *, examples: int | None, tokens: int, d_model: int) -> Size:
    """What the states of so many source tokens take."""
    return Size(examples, tokens * d_model * getattr(torch, config.engine.dtype).itemsize)


def plan_of(materials: Materials) -> Caching | None:
    """The plan of a run, whose data are read.

    Raises:
        UserError: the memory or the disk that was asked for by name has no room for the states.
    """
    config, train = materials.config, materials.train
    tokens, d_model = len(train.sources.ids), materials.backbone.config.d_model
    caching = plan(config, materials.schedule, size_of(config, examples=len(train), tokens=tokens, d_model=d_model))
    _check_room(config, caching)
    return caching


class Keeper:
    """Gives every stage its training data, with the states below the prompt where they are kept."""

    def __init__(self, materials: Materials, caching: Caching | None) -> None:
        """Of a run; what was planned holds."""
        self._materials, self.caching = materials, caching
        self._held: tuple[str, States] | None = None

    def data(self, stage: Stage, chosen: Selection, model: PromptedModel) -> Encoded:
        """The training data of a stage, whose `model` is the part of the backbone that was `chosen`.

        Raises:
            UserError: there is no room for the states.
        """
        train, about = self._materials.train, self._about(chosen)
        if self.caching is None or self.caching.stages[stage.index - 1].does == "off":
            self._held = None
            return train
        name = json.dumps(about)
        if self._held is None or self._held[0] != name:
            self._held = None  # the last stage's go before these are made
            self._held = name, self._states(about, model, self.caching.where)
        return replace(train, below=self._held[1])

    def _states(self, about: dict[str, Any], model: PromptedModel, where: str) -> States:
        materials = self._materials
        config, engine, watch = materials.config, materials.engine, materials.tracker.watch
        filler = Filler(model, materials.train, config.train.eval_batch, engine, watch)
        if where == "memory":
            return filler.in_memory()
        return filler.in_file(Path(config.cache_dir).expanduser() / "states", about)

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


def _check_room(config: RunConfig, caching: Caching | None) -> None:
    """Refuse what cannot be, before anything is computed."""
    if caching is None or config.prompt.cache not in ("memory", "disk"):
        return
    needed, free = _needed(config, caching.where, caching.bytes, caching.number), _free(config, caching.where)
    if needed > free:
        other = "disk" if caching.where == "memory" else "memory"
        raise UserError(
            f"prompt.cache={caching.where}: the states below the prompt take {amount(needed)}B, and {amount(free)}B is"
            f" free; prompt.cache={other} may have room, and with prompt.cache=off the same command goes on without"
        )


def _below(stage: Stage, full: Stack, layer: int) -> tuple[tuple[int, ...], int]:
    """What a stage keeps below the prompt: blocks, and neurons in each. Which neurons those are is the same for all."""
    kept = around(stage.shape.encoder.blocks, full.blocks, layer)
    return tuple(block for block in kept if block < layer), stage.shape.encoder.neurons


def _decide(config: RunConfig, schedule: Schedule, size: Size, layer: int, number: int) -> tuple[str, str, list[bool]]:
    """Where, why, and for which stages; `number` of them have states of their own."""
    asked, none = config.prompt.cache, [False] * len(schedule.stages)
    if asked == "off":
        return "off", "prompt.cache=off as given", none
    if layer == 0:
        return "off", "nothing lies below the prompt", none
    if size.examples is None:
        return "off", "priced without: how many examples there are is known when the data are read", none
    if asked != "auto":
        return asked, f"prompt.cache={asked} as given", [True] * len(none)
    repeats = [stage.updates * config.train.batch_size > size.examples for stage in schedule.stages]
    if not any(repeats):
        return "off", f"no stage comes back to any of {size.examples:,} examples", none
    for where, share in (("memory", MEMORY), ("disk", DISK)):
        needed, free = _needed(config, where, size.bytes, number), _free(config, where)
        if needed <= share * free:
            return where, f"{amount(needed)}B of {amount(free)}B free", repeats
    return "off", f"{amount(size.bytes)}B are more than the shares of memory and disk that auto takes", none


def _needed(config: RunConfig, where: str, size: int, number: int) -> int:
    """Bytes: in every process's memory those of one stage at a time, on disk those of all."""
    return size * (config.engine.processes if where == "memory" else number)


def _free(config: RunConfig, where: str) -> int:
    if where == "memory":
        return int(psutil.virtual_memory().available)
    folder = Path(config.cache_dir).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
