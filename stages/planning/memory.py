"""Whether a schedule fits into a device's memory: which engine and micro-batch that takes, and what else would help."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import psutil
import torch

from fpt.backbones.families import read_config
from fpt.backbones.location import config_values
from fpt.config.schema import EngineConfig, RunConfig
from fpt.data.encoded import Encoded
from fpt.errors import UserError
from fpt.pricing.memory import Memory, Need, is_sharded
from fpt.prompts.kinds import kind_of
from fpt.units import amount, bytes_of
from stages.schedule import Schedule, Stage
from stages.selection import num_below

ROOM = 0.9  # of a device's memory that a plan may fill
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
class MemoryPlan:
    """All stages on a device of `device_memory` bytes.

    Attributes:
        engine: torch or deepspeed.
        reason: why this engine.
        processes: over all machines.
        micro_batch: examples per forward pass of a process.
        activation_checkpointing: whether the run has it.
        device_memory: of one device; for a process on a CPU its share of what is free.
        stages: each one's bytes.
        fits: whether all stages do, with a tenth of the memory left.
        advice: the settings that would make them fit, None where nothing would or need.
        advised_bytes: the largest stage's total then.
    """

    engine: str
    reason: str
    processes: int
    micro_batch: int
    activation_checkpointing: bool
    device_memory: int
    stages: list[StageMemory]
    fits: bool
    advice: list[str] | None
    advised_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def longest(data: Encoded) -> Lengths:
    """The longest source and the longest target of the data."""
    return max(source for source, _ in data.lengths), max(target for _, target in data.lengths)


def choose_engine(config: RunConfig, schedule: Schedule, lengths: Lengths | None = None) -> tuple[EngineConfig, str]:
    """The engine that engine=auto stands for, and why: torch where it fits, or sharing wins nothing.

    Args:
        config: of the run.
        schedule: whose last stage is the largest.
        lengths: of the longest source and target; None: the task's limits.
    """
    engine = config.engine
    if engine.name != "auto":
        return engine, f"engine={engine.name} as given"
    deepspeed = replace(engine, name="deepspeed")
    if engine.offload != "none":
        return deepspeed, f"engine=deepspeed for engine.offload={engine.offload}"
    plain, shared = (replace(config, engine=replace(engine, name=name)) for name in ("torch", "deepspeed"))
    needs = _Needs(config, schedule, lengths)
    memory, whole = device_memory(engine), needs.least(plain)
    of = f"{amount(memory)}B of memory"
    if needs.fits(plain, whole):
        return plain.engine, f"engine=torch: the largest stage takes {amount(whole)}B of {of}"
    parts = needs.least(shared)
    reason = f"with engine=torch the largest stage takes {amount(whole)}B of {of}, shared out {amount(parts)}B"
    if parts >= whole:
        return plain.engine, f"engine=torch: {reason}; fpt plan says what would make it fit"
    if needs.fits(shared, parts):
        return deepspeed, f"engine=deepspeed: {reason}"
    return deepspeed, f"engine=deepspeed: {reason}; engine.offload=cpu takes less"


def with_engine(config: RunConfig, schedule: Schedule, lengths: Lengths | None = None) -> tuple[RunConfig, str]:
    """The configuration with engine=auto as the engine it stands for, and why that one."""
    engine, reason = choose_engine(config, schedule, lengths)
    return replace(config, engine=engine), reason


def with_micro_batch(config: RunConfig, schedule: Schedule, lengths: Lengths | None = None) -> RunConfig:
    """The configuration with train.micro_batch=auto as the largest number with which every stage fits.

    Raises:
        UserError: not even one example does.
    """
    if config.train.micro_batch != "auto":
        return config
    chosen = with_engine(config, schedule, lengths)[0]
    needs = _Needs(config, schedule, lengths)
    found = needs.largest(chosen)
    if found is None:
        advice, _ = _advice(needs, chosen)
        raise UserError(
            f"train.micro_batch=auto: one example takes {amount(needs.total(chosen, 1))}B on a device of"
            f" {amount(device_memory(chosen.engine))}B, of which a tenth is left free."
            f" {_way_out(advice)}"
        )
    return replace(config, train=replace(config.train, micro_batch=found))


def plan_memory(config: RunConfig, schedule: Schedule, lengths: Lengths | None = None) -> MemoryPlan:
    """What every stage takes on one device of the chosen engine, and what would help if that is too much."""
    chosen, reason = with_engine(config, schedule, lengths)
    needs = _Needs(config, schedule, lengths)
    memory = device_memory(chosen.engine)
    micro_batch = needs.micro_batch(chosen) or 1
    stages = [needs.stage(chosen, stage, micro_batch) for stage in schedule.stages]
    fits = all(stage.fits for stage in stages)
    advice, advised = (None, None) if fits else _advice(needs, chosen)
    return MemoryPlan(
        engine=chosen.engine.name,
        reason=reason,
        processes=_processes(chosen.engine),
        micro_batch=micro_batch,
        activation_checkpointing=chosen.train.activation_checkpointing,
        device_memory=memory,
        stages=stages,
        fits=fits,
        advice=advice,
        advised_bytes=advised,
    )


def device_memory(engine: EngineConfig) -> int:
    """Bytes of one device: as given, or what this machine has; on a CPU what is free, shared by the processes."""
    if engine.device_memory is not None:
        return bytes_of(engine.device_memory)
    if engine.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_properties(engine.device if ":" in engine.device else 0).total_memory
    return int(psutil.virtual_memory().available) // engine.processes


class _Needs:
    """What the stages of one run take, under one configuration or another."""

    def __init__(self, config: RunConfig, schedule: Schedule, lengths: Lengths | None) -> None:
        source, target = lengths or (config.task.source_length, config.task.target_length)
        self._source, self._target = source + config.prompt.length, target
        self._schedule, self._blocks = schedule, schedule.full.encoder.blocks
        self._memory = Memory(read_config(*config_values(config.model)))

    def need(self, config: RunConfig, stage: Stage, micro_batch: int, *, checkpointing: bool) -> Need:
        return self._memory.need(
            stage.shape,
            config.engine,
            batch=micro_batch,
            source=self._source,
            target=self._target,
            prompt=config.prompt,
            below=num_below(stage.shape.encoder.blocks, self._blocks, kind_of(config.prompt).position(self._blocks)),
            checkpointing=checkpointing,
        )

    def stage(self, config: RunConfig, stage: Stage, micro_batch: int) -> StageMemory:
        """One stage with and without checkpointing."""
        plain, less = (self.need(config, stage, micro_batch, checkpointing=is_on) for is_on in (False, True))
        total = (less if config.train.activation_checkpointing else plain).total
        fits = self.fits(config, total)
        return StageMemory(
            stage.name, plain.weights, plain.activations, less.activations, plain.rest, total=total, fits=fits
        )

    def weights(self, config: RunConfig) -> int:
        """Bytes of the largest stage's frozen model alone."""
        return self._memory.weights(self._schedule.last.shape, config.engine)

    def total(self, config: RunConfig, micro_batch: int) -> int:
        """Bytes of the largest stage."""
        checkpointing = config.train.activation_checkpointing
        return self.need(config, self._schedule.last, micro_batch, checkpointing=checkpointing).total

    def least(self, config: RunConfig) -> int:
        """The same with the micro-batch as given; auto can always be 1."""
        given = config.train.micro_batch
        return self.total(config, 1 if given == "auto" else _share(config))

    def fits(self, config: RunConfig, total: int) -> bool:
        return total <= ROOM * device_memory(config.engine)

    def micro_batch(self, config: RunConfig) -> int | None:
        """Examples per forward pass; None: auto, and not even one fits."""
        return self.largest(config) if config.train.micro_batch == "auto" else _share(config)

    def largest(self, config: RunConfig) -> int | None:
        """The largest micro-batch that fits, None if not even one example does."""
        low, high = 0, _share(config)
        if self.fits(config, self.total(config, high)):
            return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.fits(config, self.total(config, middle)) else (low, middle)
        return low or None


def _processes(engine: EngineConfig) -> int:
    return engine.processes * engine.nodes


def _share(config: RunConfig) -> int:
    """The most examples of a forward pass: a process's share of the batch, or the micro-batch if that is less."""
    share = -(-config.train.batch_size // _processes(config.engine))
    given = config.train.micro_batch
    return min(given, share) if isinstance(given, int) else share


def _advice(needs: _Needs, config: RunConfig) -> tuple[list[str] | None, int | None]:
    """The fewest settings that make the largest stage fit, the mildest first, and its total then."""
    for number in range(1, len(CHANGES) + 1):
        for changes in combinations(CHANGES, number):
            for words, changed in _changed(config, changes):
                if not needs.fits(changed, needs.weights(changed)):
                    continue
                micro_batch = needs.largest(changed) if "micro_batch" in changes else needs.micro_batch(changed)
                if micro_batch is None or not needs.fits(changed, total := needs.total(changed, micro_batch)):
                    continue
                return [*([f"train.micro_batch={micro_batch}"] if "micro_batch" in changes else []), *words], total
    return None, None


CHANGES = ("micro_batch", "checkpointing", "dtype", "deepspeed", "processes", "offload")  # the mildest first


def _changed(config: RunConfig, changes: tuple[str, ...]) -> Iterator[tuple[list[str], RunConfig]]:
    """Each way to make such changes together, with the words to type for it."""
    train, engine = config.train, config.engine
    is_sharded_then = "deepspeed" in changes or is_sharded(engine)
    idle = {
        "micro_batch": train.micro_batch == "auto",
        "checkpointing": train.activation_checkpointing,
        "dtype": engine.dtype == "bfloat16",
        "deepspeed": is_sharded(engine),
        "processes": not is_sharded_then,
        "offload": engine.offload != "none" or not is_sharded_then,
    }
    if any(idle[change] for change in changes):
        return
    powers = [2**power for power in range(1, 11) if 2**power > engine.processes]
    for processes in powers if "processes" in changes else [engine.processes]:
        settings: dict[str, tuple[list[str], dict[str, Any]]] = {
            "dtype": (["engine.dtype=bfloat16"], {"dtype": "bfloat16"}),
            "deepspeed": (["engine=deepspeed"], {"name": "deepspeed", "zero_stage": 3}),
            "processes": ([f"engine.processes={processes}"], {"processes": processes}),
            "offload": (["engine.offload=cpu"], {"offload": "cpu"}),
        }
        if engine.zero_stage != 3:
            settings["deepspeed"][0].append("engine.zero_stage=3")
        made = [settings[change] for change in changes if change in settings]
        words = ["train.activation_checkpointing=true"] if "checkpointing" in changes else []
        words += [word for names, _ in made for word in names]
        try:
            yield (
                words,
                replace(
                    config,
                    train=replace(train, activation_checkpointing=idle["checkpointing"] or "checkpointing" in changes),
                    engine=replace(engine, **{key: value for _, values in made for key, value in values.items()}),
                ),
            )
        except UserError:  # more processes than the batch has examples
            return


def _way_out(advice: list[str] | None) -> str:
    return f"{' '.join(advice)} fits" if advice else "No setting of fpt makes it fit; take a smaller model"
