"""Counts what a run's stages take, in FLOPs and device memory, and finds the engine and micro-batch that fit."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import psutil
import torch

from fpt.backbones.family_table import Reading
from fpt.backbones.shapes import Shape
from fpt.config.mixture import tasks_of
from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig, PromptConfig
from fpt.data.batches import UpdateOrder, batches_by_length, micro_batches
from fpt.data.encoded import Encoded
from fpt.devices import distributed
from fpt.devices.processes import counted
from fpt.pricing.flops import SOFT, Price
from fpt.pricing.memory import Need, is_for_card, need
from fpt.prompts.kinds import kind_of
from fpt.tasks.catalogue import most_examples, rules_of
from fpt.units import amount, bytes_of
from stages.inputs import Inputs
from stages.schedule import Schedule, Stage

# The size of one micro-batch: (examples, source length with the prompt, target length).
Size = tuple[int, int, int]
ROOM = 0.9  # the share of a device's memory that a plan may fill
RESERVE = 2**30  # bytes of a GPU left for what is not counted: communication buffers, the kernels' workspaces


@dataclass(frozen=True)
class Work:
    """The batches and positions that a run computes, of which its FLOPs are counted."""

    update: Callable[[int, int], Iterable[Size]]  # an update's micro-batches, from its number and the micro-batch size
    scoring: Iterable[Size] = ()  # the batches on which neurons are scored, if any are
    # The batches in which the states that the prompt does not change are computed for all examples.
    unchanged: Callable[[], Iterable[Size]] = tuple
    examples: int | None = None  # the number of training examples; None if it is not known
    tokens: int = 0  # how many are read of all training examples together
    longest: tuple[int, int] = (0, 0)  # the longest source, without the prompt, and the longest target


def work_at_limits(config: RunConfig, schedule: Schedule, reads: Reading, examples: int | None) -> Work:
    """The work of a run in which every text is as long as the task's limits allow."""
    source, target = longest = config.task.source_length, config.task.target_length
    whole, scored = source + config.prompt.length, config.num_scored
    is_scored, number = bool(schedule.scored()), examples or 0
    return Work(
        lambda *_: [(config.train.batch_size, whole, target)],
        scoring=[(min(scored, number or scored), whole, target)] if is_scored else [],
        unchanged=lambda: [(number, whole, target)],
        examples=examples,
        tokens=number * reads.positions(source, 1 if kind_of(config.prompt).is_behind else target),
        longest=longest,
    )


def work_on(config: RunConfig, schedule: Schedule, inputs: Inputs) -> Work:
    """The work of a run on exactly the batches that training will see."""
    is_behind = kind_of(config.prompt).is_behind
    train, positions, processes = inputs.train, inputs.backbone.family.row.reads.positions, distributed.size()
    order = UpdateOrder(train, batch_size=config.train.batch_size, seed=config.seed, bucket=config.train.bucket)

    def sizes(data: Encoded, batches: Iterable[list[int]]) -> list[Size]:
        padded = (data.padded_size(indices) for indices in batches if indices)
        return [(batch, config.prompt.length + source, target) for batch, source, target in padded]

    def of_update(update: int, micro_batch: int) -> list[Size]:
        indices = order.indices(update)
        parts = (micro_batches(indices, micro_batch, process=own, processes=processes) for own in range(processes))
        return sizes(train, chain.from_iterable(parts))

    scored: list[Size] = []
    if schedule.scored():
        sample = inputs.to_score(config)
        scored = sizes(sample, batches_by_length(sample, config.train.eval_batch))
    return Work(
        of_update,
        scored,
        lambda: sizes(train, batches_by_length(train, config.train.batch_size)),
        examples=len(train),
        tokens=sum(positions(source, 1 if is_behind else max(target, 1)) for source, target in train.lengths),
        longest=inputs.longest,
    )


@dataclass(frozen=True)
class Costs:
    """Prices a schedule's stages with a given prompt; where the prompt enters is in the schedule.

    `micro_batch` matters for work on real batches, where each micro-batch is padded to its own longest text.
    """

    schedule: Schedule
    price: Price
    work: Work
    micro_batch: int = 1
    prompt: PromptConfig = SOFT

    def stage(self, stage: Stage, states: str = "off") -> dict[str, Any]:
        """A stage's size and FLOPs under the names of StagePlan; `states` is its entry in `StatesPlan.stages`."""
        price, below, full = self.price, self.schedule.below(stage), self.schedule.full
        every = (self.work.update(update, self.micro_batch) for update in range(stage.first_update, stage.end))
        batches = Counter(chain.from_iterable(every))
        updates = _total(price.update, stage.shape, batches, below=below, prompt=self.prompt, is_kept=states != "off")
        kept = Counter(self.work.unchanged() if states == "compute" else ())
        making = _total(price.fixed, stage.shape, kept, below=below, prompt=self.prompt)
        whole = _total(price.update, full, batches)
        return {
            "name": stage.name,
            **stage.sizes,
            "parameters": price.parameters(stage.shape),
            "blocks_below": self.schedule.unchanged(stage),
            "first_update": stage.first_update,
            "updates": stage.updates,
            "flops_per_update": updates // stage.updates,
            "flops": updates + making,
            "flops_states": making,
            "flops_full": whole,
            "flops_ratio": (updates + making) / whole,
        }

    def scoring(self) -> int:
        """FLOPs of the forward passes that score neurons."""
        batches, below = Counter(self.work.scoring), self.schedule.block
        return _total(self.price.forward, self.schedule.full, batches, below=below, prompt=self.prompt)


def _total(cost: Callable[..., int], shape: Shape, batches: Counter[Size], **more: Any) -> int:
    """FLOPs of all batches together, each size counted as often as it occurs."""
    return sum(
        times * batch * cost(shape, source=source, target=target, **more)
        for (batch, source, target), times in batches.items()
    )


def of_validation(config: RunConfig, schedule: Schedule, price: Price, flops: int) -> dict[str, Any] | None:
    """What validations cost at the length limits, next to training's `flops`; None: the number of examples is unknown.

    `times` is how many validations training has. If they are on a sample, the best prompt and the last one are scored
    on all examples after it. `examples` are all outputs, `flops` theirs, and `share` those of all the run's FLOPs. On a
    CPU what the prompt does not change is computed once in a stage. The device may not be auto.
    """
    if not (total := most_examples(config)[1]):
        return None
    source, target = config.task.source_length + config.prompt.length, config.task.target_length
    if price.reads.chooses(config.task.answer):
        number = max(len(rules_of(own.task).labels) for own in tasks_of(config).values())
        # A source is read once; its labels follow side by side, and have their first tokens from one place if causal.
        target = 1 + number * (target - 1) if price.reads.reads_target else number * target
    looked = min(total, (config.train.eval_examples or total) * len(tasks_of(config)))
    times = {stage: _times(stage, schedule, config) for stage in schedule.stages}
    outputs = {stage: looked * number for stage, number in times.items()}
    if looked < total:
        outputs[schedule.last] += 2 * total
    is_kept = kind_of(config.prompt).is_behind or not price.reads.reads_target  # see `kept_states.for_validations`
    is_kept = is_kept and config.prompt.cache != "off" and not is_for_card(config.engine)
    sizes: dict[str, Any] = {"source": source, "target": target, "prompt": config.prompt}
    spent = 0
    for stage, number in outputs.items():
        again = looked * max(0, times[stage] - 1) if is_kept else 0
        each, kept = (cost(stage.shape, below=schedule.below(stage), **sizes) for cost in (price.forward, price.fixed))
        spent += number * each - again * kept
    share = spent / (spent + flops)
    return {"times": sum(times.values()), "examples": sum(outputs.values()), "flops": spent, "share": share}


def _times(stage: Stage, schedule: Schedule, config: RunConfig) -> int:
    """How often a stage is validated: every eval_every updates, and at its end."""
    if stage is not schedule.last and not config.train.eval_partial:
        return 0
    every = config.train.eval_every
    return stage.end // every - stage.first_update // every + (stage.end % every > 0)


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
