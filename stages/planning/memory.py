"""Finds how much device memory a run's stages take, and with which engine and micro-batch they fit."""

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig
from fpt.devices.processes import counted
from fpt.pricing.flops import Price
from fpt.pricing.memory import Need, is_for_card, need, weights
from fpt.units import amount, bytes_of
from stages.schedule import Schedule, Stage

ROOM = 0.9  # the share of a device's memory that a plan may fill
RESERVE = 2**30  # bytes of a GPU left for what is not counted: communication buffers, the kernels' workspaces
PACKED = ("int8", "nf4")


@dataclass(frozen=True)
class Device:
    """The memory of one GPU, or a machine's free memory, which its processes share.

    Attributes:
        bytes: how much memory there is.
        is_shared: whether the machine's processes share it.
        taken: bytes that each process uses for things other than the model and its activations.
    """

    bytes: int
    is_shared: bool
    taken: int = 0

    def of_each(self, processes: int) -> int:
        """Bytes that each of the machine's processes may use."""
        return max(1, (self.bytes // processes if self.is_shared else self.bytes) - self.taken)


def device_of(engine: EngineConfig, *, kept: int = 0) -> Device:
    """The device that `engine.device_memory` describes, or this machine's; `engine.device` must not be auto.

    Cached states leave a stage less memory only if the device is the CPU: they are kept in the machine's memory.
    """
    taken = 0 if is_for_card(engine) else kept
    if engine.device_memory is not None:
        return Device(bytes_of(engine.device_memory), is_shared=False, taken=taken)
    if not is_for_card(engine):
        return Device(int(psutil.virtual_memory().available), is_shared=True, taken=taken)
    if not torch.cuda.is_available():
        give = "give the memory of the one that is meant, as in engine.device_memory=80GiB"
        raise engine.error("device", f"there is no card here to plan for; {give}")
    free, _ = torch.cuda.mem_get_info(engine.device if ":" in engine.device else 0)
    return Device(max(free - RESERVE, 0), is_shared=False)


@dataclass(frozen=True)
class Fit:
    """How the largest stage runs under one configuration.

    Attributes:
        micro_batch: examples per forward pass of a process.
        checkpointing: whether blocks are computed again in the backward pass.
        total: bytes that it takes.
        least: bytes that it takes with the fewest examples at once: one, unless the micro-batch is given.
        fits: whether the total leaves a tenth of the device's memory free.
    """

    micro_batch: int
    checkpointing: bool
    total: int
    least: int
    fits: bool


@dataclass(frozen=True)
class Memory:
    """What the stages of a schedule take on a device, under one configuration or another.

    `lengths` are those of the longest source, without the prompt, and of the longest target. The configurations that
    its methods take have a precision and a device other than auto.
    """

    price: Price
    schedule: Schedule
    device: Device
    lengths: tuple[int, int]

    def need(self, config: RunConfig, stage: Stage, micro_batch: int, *, checkpointing: bool) -> Need:
        """One stage's bytes: weights, activations, and the rest."""
        source, target = self.lengths
        sizes, below = (micro_batch, source + config.prompt.length, target), self.schedule.below(stage)
        prompt = config.prompt
        return need(
            self.price, stage.shape, config.engine, sizes, prompt=prompt, below=below, checkpointing=checkpointing
        )

    def stage(self, config: RunConfig, stage: Stage, fit: Fit) -> dict[str, Any]:
        """One stage's bytes under the names of StagePlan."""
        plain, less = (self.need(config, stage, fit.micro_batch, checkpointing=is_on) for is_on in (False, True))
        total, engine = (less if fit.checkpointing else plain).total, config.engine
        return {
            "weight_bytes": self.price.packed_weights(stage.shape, engine.dtype, engine.quantize)[0],
            "weights": plain.weights,
            "activations": plain.activations,
            "activations_checkpointed": less.activations,
            "rest": plain.rest,
            "total": total,
            "fits": self.has_room(config, total),
        }

    def fit(self, config: RunConfig) -> Fit:
        """How the largest stage runs: checkpointed if asked for or, on a GPU, if it fits only with checkpointing."""
        most, fewest = most_at_once(config), fewest_at_once(config)
        checkpointing = bool(config.train.activation_checkpointing)
        if config.train.activation_checkpointing is None and is_for_card(config.engine):
            without, with_it = (self.total(config, fewest, checkpointing=is_on) for is_on in (False, True))
            checkpointing = self.has_room(config, with_it) and not self.has_room(config, without)

        def total(size: int) -> int:
            return self.total(config, size, checkpointing=checkpointing)

        larger = range(fewest + 1, most + 1)
        micro_batch = fewest + bisect_left(larger, True, key=lambda size: not self.has_room(config, total(size)))
        bytes_ = total(micro_batch)
        return Fit(micro_batch, checkpointing, bytes_, total(fewest), self.has_room(config, bytes_))

    def total(self, config: RunConfig, micro_batch: int, *, checkpointing: bool) -> int:
        """Bytes of the largest stage."""
        return self.need(config, self.schedule.last, micro_batch, checkpointing=checkpointing).total

    def has_room(self, config: RunConfig, total: int) -> bool:
        """Whether `total` bytes fit and leave a tenth of the device's memory free."""
        return total <= ROOM * self.device.of_each(counted(config.engine).here)

    def holds_weights(self, config: RunConfig) -> bool:
        """Whether the largest stage's frozen model alone fits."""
        return self.has_room(config, weights(self.price, self.schedule.last.shape, config.engine))

    def engine(self, config: RunConfig) -> tuple[EngineConfig, str]:
        """The engine that engine=auto stands for, and why: torch if that fits, or if sharding would save no memory."""
        engine = config.engine
        if engine.name != "auto":
            return engine, f"engine={engine.name} as given"
        if engine.quantize != "none":
            return replace(engine, name="torch"), f"engine=torch for engine.quantize={engine.quantize}"
        if engine.offload != "none":
            return replace(engine, name="deepspeed"), f"engine=deepspeed for engine.offload={engine.offload}"
        plain, shared = (replace(config, engine=replace(engine, name=name)) for name in ("torch", "deepspeed"))
        whole, of = self.fit(plain), f"{amount(self.device.of_each(counted(engine).here))}B of memory"
        if whole.fits:
            return plain.engine, f"engine=torch: the largest stage takes {amount(whole.least)}B of {of}"
        parts = self.fit(shared)
        sizes = f"{amount(whole.least)}B of {of}, shared out {amount(parts.least)}B"
        reason = f"with engine=torch the largest stage takes {sizes}"
        if parts.least >= whole.least:
            return plain.engine, f"engine=torch: {reason}; fpt plan says what would make it fit"
        more = "" if parts.fits else "; engine.offload=cpu takes less"
        return shared.engine, f"engine=deepspeed: {reason}{more}"

    def why_checkpointing(self, config: RunConfig, fit: Fit) -> list[str]:
        """In words for the user, why activation checkpointing is on although nobody asked for it."""
        if config.train.activation_checkpointing is not None or not fit.checkpointing:
            return []
        without = amount(self.total(config, fewest_at_once(config), checkpointing=False))
        least = "one example" if is_auto(config) else f"train.micro_batch={fit.micro_batch}"
        other = ""
        for quantize in reversed(PACKED) if config.engine.name == "torch" else ():
            packed = self.fit(replace(config, engine=replace(config.engine, quantize=quantize)))
            if packed.fits and not packed.checkpointing:
                other = f"; with engine.quantize={quantize}, for a little of the score, it need not be"
        return [f"activation checkpointing is on: without it {least} takes {without}B{other}"]


def is_auto(config: RunConfig) -> bool:
    """Whether the micro-batch is to be as large as fits: if auto is given, or on a GPU if nothing is given."""
    micro_batch = config.train.micro_batch
    return micro_batch == "auto" or (micro_batch is None and is_for_card(config.engine))


def fewest_at_once(config: RunConfig) -> int:
    """The smallest micro-batch that may be chosen."""
    return 1 if is_auto(config) else most_at_once(config)


def most_at_once(config: RunConfig) -> int:
    """The largest micro-batch: a process's share of the batch, or the given micro-batch if that is smaller."""
    share = -(-config.train.batch_size // counted(config.engine).all)
    micro_batch = config.train.micro_batch
    return min(micro_batch, share) if isinstance(micro_batch, int) else share
