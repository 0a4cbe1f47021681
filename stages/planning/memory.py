"""Finds how much device memory a run's stages take, and with which engine and micro-batch they fit."""

from bisect import bisect_left
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil
import torch

from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig
from fpt.devices.processes import counted
from fpt.pricing.flops import Price
from fpt.pricing.memory import Need, is_for_card, need
from fpt.units import amount, bytes_of
from stages.schedule import Schedule, Stage

ROOM = 0.9  # the share of a device's memory that a plan may fill
RESERVE = 2**30  # bytes of a GPU left for what is not counted: communication buffers, the kernels' workspaces


def device_memory(engine: EngineConfig) -> int:
    """Bytes of the device that `engine.device_memory` describes, or free on the one here; `device` must not be auto."""
    if engine.device_memory is not None:
        return bytes_of(engine.device_memory)
    if not is_for_card(engine):
        return int(psutil.virtual_memory().available)
    if not torch.cuda.is_available():
        give = "give the memory of the one that is meant, as in engine.device_memory=80GiB"
        raise engine.error("device", f"there is no card here to plan for; {give}")
    free, _ = torch.cuda.mem_get_info(engine.device if ":" in engine.device else 0)
    return int(free) - RESERVE


@dataclass(frozen=True)
class Memory:
    """What the stages of a schedule take on a device, under one configuration or another.

    The configurations that its methods take have a precision and a device other than auto.
    """

    price: Price
    schedule: Schedule
    bytes: int  # of the device
    kept: int  # bytes of states in each process's memory
    lengths: tuple[int, int]  # of the longest source, without the prompt, and of the longest target

    def need(self, config: RunConfig, stage: Stage, micro_batch: int, *, checkpointing: bool) -> Need:
        """One stage's bytes: weights, activations, and the rest."""
        source, target = self.lengths
        sizes, below = (micro_batch, source + config.prompt.length, target), self.schedule.below(stage)
        prompt = config.prompt
        return need(
            self.price, stage.shape, config.engine, sizes, prompt=prompt, below=below, checkpointing=checkpointing
        )

    def stage(self, config: RunConfig, stage: Stage, micro_batch: int, *, checkpointing: bool) -> dict[str, Any]:
        """One stage's bytes under the names of StagePlan."""
        needed, engine = self.need(config, stage, micro_batch, checkpointing=checkpointing), config.engine
        return {
            "weight_bytes": self.price.packed_weights(stage.shape, engine.dtype, engine.quantize)[0],
            **asdict(needed),
            "total": needed.total,
            "fits": self.has_room(config, needed.total),
        }

    def total(self, config: RunConfig, micro_batch: int, *, checkpointing: bool) -> int:
        """Bytes of the largest stage."""
        return self.need(config, self.schedule.last, micro_batch, checkpointing=checkpointing).total

    def has_room(self, config: RunConfig, total: int) -> bool:
        """Whether `total` bytes fit and leave a tenth of the device's memory free."""
        return total <= ROOM * self.of_each(config.engine)

    def of_each(self, engine: EngineConfig) -> int:
        """Bytes that a process may use: processes have a GPU each, and share a machine's memory, states included."""
        if is_for_card(engine):
            return max(1, self.bytes)
        processes = counted(engine).here if engine.device_memory is None else 1
        return max(1, self.bytes // processes - self.kept)

    def checkpoints(self, config: RunConfig) -> bool:
        """Whether blocks are computed again on the way back: if asked for or, on a GPU, if nothing fits without."""
        asked = config.train.activation_checkpointing
        if asked is not None or not is_for_card(config.engine):
            return bool(asked)
        return not self.has_room(config, self.total(config, choices(config)[0], checkpointing=False))

    def micro_batch(self, config: RunConfig, *, checkpointing: bool) -> int:
        """As many examples at once as may be and fit."""
        fewest, *larger = choices(config)

        def is_too_much(size: int) -> bool:
            return not self.has_room(config, self.total(config, size, checkpointing=checkpointing))

        return fewest + bisect_left(larger, True, key=is_too_much)

    def engine(self, config: RunConfig) -> tuple[EngineConfig, str]:
        """The engine that engine=auto stands for, and why: torch if that fits, or if there is nobody to share with."""
        engine = config.engine
        if engine.name != "auto":
            return engine, f"engine={engine.name} as given"
        if engine.quantize != "none":
            return replace(engine, name="torch"), f"engine=torch for engine.quantize={engine.quantize}"
        if engine.offload != "none":
            return replace(engine, name="deepspeed"), f"engine=deepspeed for engine.offload={engine.offload}"
        plain = replace(config, engine=replace(engine, name="torch"))
        takes = self.total(plain, choices(plain)[0], checkpointing=self.checkpoints(plain))
        said = f"the largest stage takes {amount(takes)}B of {amount(self.of_each(engine))}B of memory"
        if self.has_room(plain, takes) or counted(engine).all == 1:
            return plain.engine, f"engine=torch: {said}"
        return replace(engine, name="deepspeed"), f"engine=deepspeed: with engine=torch {said}"


def is_auto(config: RunConfig) -> bool:
    """Whether the micro-batch is to be as large as fits: if auto is given, or on a GPU if nothing is given."""
    micro_batch = config.train.micro_batch
    return micro_batch == "auto" or (micro_batch is None and is_for_card(config.engine))


def choices(config: RunConfig) -> range:
    """The micro-batches to choose from: up to a process's share of the batch, or the one that is given if smaller."""
    share = -(-config.train.batch_size // counted(config.engine).all)
    micro_batch = config.train.micro_batch
    most = min(micro_batch, share) if isinstance(micro_batch, int) else share
    return range(1 if is_auto(config) else most, most + 1)
