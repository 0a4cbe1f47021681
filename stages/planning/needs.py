"""What do a run's stages take on a device, and what has the device?"""

from bisect import bisect_left
from dataclasses import dataclass

import psutil
import torch

from fpt.backbones.families import read_config
from fpt.backbones.location import config_values
from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig
from fpt.devices.processes import counted
from fpt.errors import UserError
from fpt.pricing.memory import Memory, Need, is_for_card
from fpt.prompts.kinds import kind_of
from fpt.units import bytes_of
from stages.schedule import Schedule, Stage
from stages.selection import num_below

ROOM = 0.9  # of a device's memory that a plan may fill
RESERVE = 2**30  # of a card's free memory, for what is not counted: messages between processes, kernels' own
Lengths = tuple[int, int]  # source without the prompt, target


@dataclass(frozen=True)
class StageMemory:
    """Bytes of one stage on one device at its peak; `total` is with checkpointing where the run has it."""

    name: str
    weights: int
    activations: int
    activations_checkpointed: int
    rest: int
    total: int
    fits: bool


@dataclass(frozen=True)
class Device:
    """The memory of one device, or what is free of a machine's, which its processes share.

    Attributes:
        bytes: of the device, or free.
        is_shared: whether the processes of the machine share them.
        taken: what each process keeps there besides the model and its activations.
    """

    bytes: int
    is_shared: bool
    taken: int = 0

    def of_each(self, processes: int) -> int:
        """What one of so many processes may have."""
        return max(1, (self.bytes // processes if self.is_shared else self.bytes) - self.taken)


def device_of(engine: EngineConfig, *, kept_in_memory: int = 0) -> Device:
    """The device as `engine.device_memory` gives it, or as it is on this machine.

    States that are kept in memory take from what a stage may have only where the device is the CPU.
    """
    is_cpu = not is_for_card(engine)
    taken = kept_in_memory if is_cpu else 0
    if engine.device_memory is not None:
        return Device(bytes_of(engine.device_memory), is_shared=False, taken=taken)
    if not is_cpu and not torch.cuda.is_available():
        raise UserError(
            f"engine.device={engine.device}: there is no card here to plan for; give the memory of the one that is"
            " meant, as in engine.device_memory=80GiB"
        )
    if is_cpu:
        return Device(int(psutil.virtual_memory().available), is_shared=True, taken=taken)
    free, _ = torch.cuda.mem_get_info(engine.device if ":" in engine.device else 0)
    return Device(max(free - RESERVE, 0), is_shared=False)


class Needs:
    """What the stages of one run take, under one configuration or another."""

    def __init__(self, config: RunConfig, schedule: Schedule, device: Device, lengths: Lengths | None) -> None:
        """Of a run on a device; `lengths` None: at the task's limits."""
        source, target = lengths or (config.task.source_length, config.task.target_length)
        self.device = device
        self._source, self._target = source + config.prompt.length, target
        self._schedule, self._blocks = schedule, schedule.full.source.blocks
        self._memory = Memory(read_config(*config_values(config.model)))

    def need(self, config: RunConfig, stage: Stage, micro_batch: int, *, checkpointing: bool) -> Need:
        """One stage's bytes by what they are for."""
        return self._memory.need(
            stage.shape,
            config.engine,
            batch=micro_batch,
            source=self._source,
            target=self._target,
            prompt=config.prompt,
            below=num_below(stage.shape.source.blocks, self._blocks, kind_of(config.prompt).position(self._blocks)),
            checkpointing=checkpointing,
        )

    def stage(self, config: RunConfig, stage: Stage, micro_batch: int) -> StageMemory:
        """One stage with and without checkpointing."""
        plain, less = (self.need(config, stage, micro_batch, checkpointing=is_on) for is_on in (False, True))
        total = (less if self.checkpointing(config) else plain).total
        fits = self.fits(config, total)
        return StageMemory(
            stage.name, plain.weights, plain.activations, less.activations, plain.rest, total=total, fits=fits
        )

    def weights(self, config: RunConfig) -> int:
        """Bytes of the largest stage's frozen model alone."""
        return self._memory.weights(self._schedule.last.shape, config.engine)

    def total(self, config: RunConfig, micro_batch: int) -> int:
        """Bytes of the largest stage."""
        checkpointing = self.checkpointing(config)
        return self.need(config, self._schedule.last, micro_batch, checkpointing=checkpointing).total

    def least(self, config: RunConfig) -> int:
        """The same with the micro-batch as given; auto can always be 1."""
        return self.total(config, _fewest_at_once(config))

    def without_checkpointing(self, config: RunConfig) -> int:
        """The same without activation checkpointing."""
        return self.need(config, self._schedule.last, _fewest_at_once(config), checkpointing=False).total

    def checkpointing(self, config: RunConfig) -> bool:
        """Whether blocks are computed again on the way back: as given, or on a card where it makes the difference."""
        asked = config.train.activation_checkpointing
        if asked is not None or not is_for_card(config.engine):
            return bool(asked)
        less = self.need(config, self._schedule.last, _fewest_at_once(config), checkpointing=True).total
        return self.fits(config, less) and not self.fits(config, self.without_checkpointing(config))

    def fits(self, config: RunConfig, total: int) -> bool:
        """Whether so many bytes do, with some room left."""
        return total <= ROOM * self.device.of_each(counted(config.engine).here)

    def micro_batch(self, config: RunConfig) -> int | None:
        """Examples per forward pass; None: auto, and not even one fits."""
        return self.largest(config) if is_auto(config) else most_at_once(config)

    def largest(self, config: RunConfig) -> int | None:
        """The largest micro-batch that fits, None if not even one example does."""
        sizes = range(1, most_at_once(config) + 1)
        return bisect_left(sizes, True, key=lambda size: not self.fits(config, self.total(config, size))) or None


def is_auto(config: RunConfig) -> bool:
    """Whether the micro-batch is as large as fits: as asked for, or where nothing is said and this is no CPU."""
    micro_batch = config.train.micro_batch
    return micro_batch == "auto" or (micro_batch is None and is_for_card(config.engine))


def _fewest_at_once(config: RunConfig) -> int:
    return 1 if is_auto(config) else most_at_once(config)


def most_at_once(config: RunConfig) -> int:
    """The most examples of a forward pass: a process's share of the batch, or the micro-batch if that is less."""
    share = -(-config.train.batch_size // counted(config.engine).all)
    micro_batch = config.train.micro_batch
    return min(micro_batch, share) if isinstance(micro_batch, int) else share
