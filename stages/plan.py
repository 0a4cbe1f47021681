"""What every stage will cost, before anything is trained: shape, parameters, memory of weights, FLOPs."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fpt import distributed
from fpt.backbones import t5
from fpt.backbones.family import Shape, num_below
from fpt.backbones.source import config_values
from fpt.config import PromptConfig, RunConfig
from fpt.cost import SOFT, Price
from fpt.data import Encoded, Order, batches_by_length, micro_batches
from stages.prepare import Materials, importance_sample
from stages.schedule import Schedule

# An update's batches, micro-batch by micro-batch: (examples, source length with the prompt, target length).
Size = tuple[int, int, int]
Sizes = Callable[[int], Iterable[Size]]


@dataclass(frozen=True)
class StagePlan:
    """One stage's price; FLOPs in all, memory in bytes; the ratio is against the full model on the same batches."""

    name: str
    sizes: dict[str, int]
    first_update: int
    updates: int
    parameters: int
    weight_bytes: int
    flops_per_update: int
    flops: int
    flops_ratio: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, with result.json's names."""
        values = asdict(self)
        sizes = values.pop("sizes")
        return {"name": values.pop("name"), **sizes, **values}


@dataclass(frozen=True)
class Plan:
    """The stages' prices and the whole against vanilla prompt tuning on the same batches.

    `flops` counts the stages' updates and the forward passes that score neurons, not validation.
    """

    stages: list[StagePlan]
    updates: int
    flops_importance: int
    flops: int
    flops_pt: int
    flops_ratio: float

    def flops_before(self, update: int) -> int:
        """What the stages have spent when `update` updates are done."""
        return sum(row.flops_per_update * min(max(update - row.first_update, 0), row.updates) for row in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with result.json's names."""
        return {**asdict(self), "stages": [row.to_json() for row in self.stages]}


def price(
    schedule: Schedule, cost: Price, sizes: Sizes, *, dtype: str, importance: Iterable[Size], how: PromptConfig = SOFT
) -> Plan:
    """Price a schedule on the batches that `sizes` names; `importance` are those that score neurons, if any do.

    `how` says where the prompt enters; vanilla prompt tuning's is as long, and enters before the first block.
    """
    rows, vanilla = [], 0
    for stage in schedule.stages:
        counted = Counter(size for update in range(stage.first_update, stage.end) for size in sizes(update))
        flops = _total(cost, stage.shape, counted, _entry(how, stage.shape, schedule.full))
        full = _total(cost, schedule.full, counted, {})
        parameters = cost.parameters(stage.shape)
        rows.append(
            StagePlan(
                name=stage.name,
                sizes=stage.sizes,
                first_update=stage.first_update,
                updates=stage.updates,
                parameters=parameters,
                weight_bytes=parameters * getattr(torch, dtype).itemsize,
                flops_per_update=flops // stage.updates,
                flops=flops,
                flops_ratio=flops / full,
            )
        )
        vanilla += full
    entry = _entry(how, schedule.full, schedule.full)
    scoring = sum(
        cost.forward(schedule.full, batch=batch, source=source, target=target, **entry)
        for batch, source, target in importance
    )
    total = scoring + sum(row.flops for row in rows)
    return Plan(rows, schedule.updates, scoring, total, vanilla, total / vanilla)


def _entry(how: PromptConfig, shape: Shape, full: Shape) -> dict[str, Any]:
    """What the prompt is and where it enters a stage's model, in the price's words."""
    layer = how.position(full.encoder.blocks)
    return {"below": num_below(shape.encoder.blocks, full.encoder.blocks, layer), "how": how}


def _total(cost: Price, shape: Shape, counted: Counter[Size], entry: dict[str, Any]) -> int:
    return sum(
        times * cost.update(shape, batch=batch, source=source, target=target, **entry)
        for (batch, source, target), times in counted.items()
    )


def of_run(materials: Materials, schedule: Schedule) -> Plan:
    """The schedule priced on the very batches that training sees."""
    config = materials.config
    micro_batch = config.train.micro_batch
    assert not isinstance(micro_batch, str)
    order = Order(materials.train, batch_size=config.train.batch_size, seed=config.seed)

    def sizes(data: Encoded, batches: list[list[int]]) -> list[Size]:
        padded = (data.padded_size(indices) for indices in batches)
        return [(batch, config.prompt.length + source, target) for batch, source, target in padded]

    def of_all(update: int) -> Iterator[list[int]]:
        size, processes = config.train.micro_batch, distributed.size()
        assert not isinstance(size, str)
        for process in range(processes):
            yield from micro_batches(order.indices(update), size, process=process, processes=processes)

    scored: list[Size] = []
    if any(schedule.reduces_width().values()):
        sample = importance_sample(materials)
        scored = sizes(sample, batches_by_length(sample, config.train.eval_batch))
    return price(
        schedule,
        Price(materials.backbone.config),
        lambda update: sizes(materials.train, [part for part in of_all(update) if part]),
        dtype=config.engine.dtype,
        importance=scored,
        how=config.prompt,
    )


def nominal(config: RunConfig, schedule: Schedule) -> dict[str, Any]:
    """The plan of a configuration at its length limits, without weights or data, with result.json's names."""
    source, target = config.task.source_length + config.prompt.length, config.task.target_length
    scored = config.schedule.importance_examples if any(schedule.reduces_width().values()) else 0
    plan = price(
        schedule,
        Price(t5.read_config(*config_values(config.model))),
        lambda _: [(config.train.batch_size, source, target)],
        dtype=config.engine.dtype,
        importance=[(scored, source, target)],
        how=config.prompt,
    )
    return {
        "task": config.task.name,
        "model": config.model.name,
        "schedule": config.schedule.name,
        "batch_size": config.train.batch_size,
        "source_length": source,
        "target_length": target,
        **plan.to_json(),
    }
