"""What every stage will cost, before anything is trained: shape, parameters, memory of weights, FLOPs."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fpt.backbones import t5
from fpt.backbones.location import config_values
from fpt.backbones.shapes import Shape
from fpt.config.schema import PromptConfig, RunConfig
from fpt.data.batches import UpdateOrder, batches_by_length, micro_batches
from fpt.data.encoded import Encoded
from fpt.devices import distributed
from fpt.pricing.flops import SOFT, Price, price_of
from fpt.tasks.sizes import most_train_examples
from stages.planning.kept_states import Caching, decide
from stages.prepare import Materials, importance_sample
from stages.schedule import Schedule
from stages.selection import num_below

# An update's batches, micro-batch by micro-batch: (examples, source length with the prompt, target length).
Size = tuple[int, int, int]
Sizes = Callable[[int], Iterable[Size]]


@dataclass(frozen=True)
class StagePlan:
    """One stage's price; FLOPs in all, memory in bytes; the ratio is against the full model on the same batches.

    `flops_states` of the FLOPs are for the states below a late prompt, computed before the first update.
    """

    name: str
    sizes: dict[str, int]
    first_update: int
    updates: int
    parameters: int
    weight_bytes: int
    flops_per_update: int
    flops: int
    flops_ratio: float
    flops_states: int = 0

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
    trainable_parameters: int
    flops_importance: int
    flops: int
    flops_pt: int
    flops_ratio: float

    def flops_before(self, update: int) -> int:
        """What the stages have spent when `update` updates are done."""
        return sum(
            row.flops_states + row.flops_per_update * min(update - row.first_update, row.updates)
            for row in self.stages
            if update > row.first_update
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, with result.json's names."""
        return {**asdict(self), "stages": [row.to_json() for row in self.stages]}


def price(
    schedule: Schedule,
    cost: Price,
    sizes: Sizes,
    *,
    dtype: str,
    importance: Iterable[Size],
    how: PromptConfig = SOFT,
    caching: Caching | None = None,
    all_examples: Iterable[Size] = (),
) -> Plan:
    """Price a schedule.

    Args:
        schedule: the stages.
        cost: prices of their models.
        sizes: the batches of an update.
        dtype: of the weights.
        importance: the batches that score neurons, if any do.
        how: what the prompt is, and where it enters; vanilla prompt tuning's is as long, and enters before the first
            block.
        caching: what stages do about the states below it.
        all_examples: the batches in which such states are computed.
    """
    rows, vanilla, counted_all = [], 0, Counter(all_examples)
    does = [stage.does for stage in caching.stages] if caching else ["off"] * len(schedule.stages)
    for stage, done in zip(schedule.stages, does, strict=True):
        counted = Counter(size for update in range(stage.first_update, stage.end) for size in sizes(update))
        entry = _entry(how, stage.shape, schedule.full)
        updates = _total(cost, stage.shape, counted, {**entry, "is_kept": done != "off"})
        states = _states(cost, stage.shape, counted_all, entry) if done == "compute" else 0
        flops = updates + states
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
                flops_per_update=updates // stage.updates,
                flops=flops,
                flops_ratio=flops / full,
                flops_states=states,
            )
        )
        vanilla += full
    entry = _entry(how, schedule.full, schedule.full)
    scoring = sum(
        cost.forward(schedule.full, batch=batch, source=source, target=target, **entry)
        for batch, source, target in importance
    )
    total = scoring + sum(row.flops for row in rows)
    learned = how.num_learned(cost.d_model)
    return Plan(rows, schedule.updates, learned, scoring, total, vanilla, total / vanilla)


def _entry(how: PromptConfig, shape: Shape, full: Shape) -> dict[str, Any]:
    """What the prompt is and where it enters a stage's model, in the price's words."""
    layer = how.position(full.encoder.blocks)
    return {"below": num_below(shape.encoder.blocks, full.encoder.blocks, layer), "how": how}


def _states(cost: Price, shape: Shape, counted: Counter[Size], entry: dict[str, Any]) -> int:
    """FLOPs of the states below the prompt; as in `forward`, the prompt's positions are counted in the sizes."""
    return sum(
        times * cost.below(shape, batch=batch, source=source - entry["how"].length, blocks=entry["below"])
        for (batch, source, _), times in counted.items()
    )


def _total(cost: Price, shape: Shape, counted: Counter[Size], entry: dict[str, Any]) -> int:
    return sum(
        times * cost.update(shape, batch=batch, source=source, target=target, **entry)
        for (batch, source, target), times in counted.items()
    )


def price_run(materials: Materials, schedule: Schedule, caching: Caching | None) -> Plan:
    """The schedule priced on the very batches that training sees."""
    config = materials.config
    micro_batch = config.train.micro_batch
    assert not isinstance(micro_batch, str)
    order = UpdateOrder(materials.train, batch_size=config.train.batch_size, seed=config.seed)

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
    is_kept = caching is not None and caching.files > 0
    kept = batches_by_length(materials.train, config.train.batch_size) if is_kept else []
    return price(
        schedule,
        price_of(materials.backbone.config),
        lambda update: sizes(materials.train, [part for part in of_all(update) if part]),
        dtype=config.engine.dtype,
        importance=scored,
        how=config.prompt,
        caching=caching,
        all_examples=sizes(materials.train, kept),
    )


def nominal(config: RunConfig, schedule: Schedule) -> dict[str, Any]:
    """The plan of a configuration at its length limits, without weights or data, with result.json's names."""
    source, target = config.task.source_length + config.prompt.length, config.task.target_length
    backbone = t5.read_config(*config_values(config.model))
    examples = most_train_examples(config)
    scored = 0
    if any(schedule.reduces_width().values()):
        scored = min(config.schedule.importance_examples, examples or config.schedule.importance_examples)
    tokens = (examples or 0) * config.task.source_length
    caching = decide(config, schedule, examples=examples, tokens=tokens, d_model=backbone.d_model)
    plan = price(
        schedule,
        price_of(backbone),
        lambda _: [(config.train.batch_size, source, target)],
        dtype=config.engine.dtype,
        importance=[(scored, source, target)],
        how=config.prompt,
        caching=caching,
        all_examples=[(examples or 0, source, target)],
    )
    return {
        "task": config.task.name,
        "model": config.model.name,
        "schedule": config.schedule.name,
        "batch_size": config.train.batch_size,
        "source_length": source,
        "target_length": target,
        **plan.to_json(),
        "states": caching and caching.to_json(),
    }
