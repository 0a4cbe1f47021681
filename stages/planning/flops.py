"""What every stage will cost, before anything is trained: shape, parameters, memory of weights, FLOPs."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from fpt.backbones.families import family_of, read_config
from fpt.backbones.location import config_values
from fpt.backbones.shapes import Shape
from fpt.config.run_config import RunConfig
from fpt.config.schema import PromptConfig
from fpt.data.batches import UpdateOrder, batches_by_length, micro_batches
from fpt.data.encoded import Encoded
from fpt.devices import distributed
from fpt.devices.precision import name_of
from fpt.pricing.flops import SOFT, Price, price_of
from fpt.prompts.kinds import kind_of
from fpt.tasks.catalogue import most_train_examples
from stages import importance
from stages.inputs import Inputs
from stages.planning.kept_states import KeptStatesPlan, decide
from stages.planning.validation import plan_validation
from stages.schedule import Schedule, Stage
from stages.selection import num_below

# An update's batches, micro-batch by micro-batch: (examples, source length with the prompt, target length).
Size = tuple[int, int, int]
Sizes = Callable[[int], Iterable[Size]]


@dataclass(frozen=True)
class StagePlan:
    """One stage's size, with result.json's names, and its price: FLOPs in all, memory in bytes.

    The ratio is against the full model on the same batches.

    `flops_states` of the FLOPs are for the states below a late prompt, computed before the first update.
    """

    name: str
    encoder_layers: int
    decoder_layers: int
    ffn: int
    decoder_ffn: int
    first_update: int
    updates: int
    parameters: int
    weight_bytes: int
    flops_per_update: int
    flops: int
    flops_ratio: float
    flops_states: int = 0


@dataclass(frozen=True)
class FlopsPlan:
    """The stages' prices and the whole against vanilla prompt tuning on the same batches.

    `flops` counts the stages' updates and the forward passes that score neurons, not validation. Vanilla prompt
    tuning's prompt is `vectors_pt` before the input, as many as this one has wherever it enters. `ends_whole`: the last
    stage's model is the full one.
    """

    stages: list[StagePlan]
    updates: int
    trainable_parameters: int
    flops_importance: int
    flops: int
    flops_pt: int
    flops_ratio: float
    vectors_pt: int | None = None  # plans of an fpt that did not say these two
    ends_whole: bool | None = None

    @property
    def flops_of_stages(self) -> int:
        """What the stages spend, without the scoring of neurons."""
        return self.flops - self.flops_importance

    def flops_before(self, update: int) -> int:
        """What the stages have spent when `update` updates are done."""
        return sum(
            row.flops_states + row.flops_per_update * min(update - row.first_update, row.updates)
            for row in self.stages
            if update > row.first_update
        )


def price(
    schedule: Schedule,
    cost: Price,
    sizes: Sizes,
    *,
    dtype: str,
    quantize: str = "none",
    importance: Iterable[Size],
    prompt: PromptConfig = SOFT,
    kept_states: KeptStatesPlan | None = None,
    all_examples: Iterable[Size] = (),
) -> FlopsPlan:
    """Price a schedule.

    Args:
        schedule: the stages.
        cost: prices of their models.
        sizes: the batches of an update.
        dtype: of the weights.
        quantize: how they are packed.
        importance: the batches that score neurons, if any do.
        prompt: what it is, and where it enters; vanilla prompt tuning's is as long, and enters before the first block.
        kept_states: what stages do about the states below it.
        all_examples: the batches in which such states are computed.
    """
    full, kind, counted_all = schedule.full, kind_of(prompt), Counter(all_examples)
    position = kind.position(full.source.blocks)
    rows, vanilla = [], 0
    for stage in schedule.stages:
        batches = Counter(size for update in range(stage.first_update, stage.end) for size in sizes(update))
        below = num_below(stage.shape.source.blocks, full.source.blocks, position)
        does = kept_states.stages[stage.index - 1].does if kept_states else "off"
        updates = _total(cost.update, stage.shape, batches, below=below, prompt=prompt, is_kept=does != "off")
        states = _states(cost, stage.shape, counted_all, below, prompt.length) if does == "compute" else 0
        whole = _total(cost.update, full, batches)
        weights = cost.weight_bytes(stage.shape, dtype, quantize)
        rows.append(_row(stage, cost.parameters(stage.shape), weights, updates, states, whole))
        vanilla += whole
    scoring = _total(cost.forward, full, Counter(importance), below=position, prompt=prompt)
    total = scoring + sum(row.flops for row in rows)
    learned = kind.num_learned(cost.d_model)
    ends_whole = schedule.last.shape == full
    return FlopsPlan(
        rows, schedule.updates, learned, scoring, total, vanilla, total / vanilla, prompt.length, ends_whole
    )


def _row(stage: Stage, parameters: int, weights: int, updates: int, states: int, whole: int) -> StagePlan:
    """A stage's price from what its updates, its kept states and the full model's updates cost."""
    return StagePlan(
        name=stage.name,
        **stage.sizes,
        first_update=stage.first_update,
        updates=stage.updates,
        parameters=parameters,
        weight_bytes=weights,
        flops_per_update=updates // stage.updates,
        flops=updates + states,
        flops_ratio=(updates + states) / whole,
        flops_states=states,
    )


def _states(cost: Price, shape: Shape, batches: Counter[Size], below: int, prompt_length: int) -> int:
    """What the states below the prompt cost; sizes count its positions, which are not there."""
    return sum(
        times * cost.below(shape, batch=batch, source=source - prompt_length, target=target, blocks=below)
        for (batch, source, target), times in batches.items()
    )


def _total(cost: Callable[..., int], shape: Shape, batches: Counter[Size], **more: Any) -> int:
    """What all batches cost together."""
    return sum(
        times * cost(shape, batch=batch, source=source, target=target, **more)
        for (batch, source, target), times in batches.items()
    )


def price_run(
    config: RunConfig, schedule: Schedule, inputs: Inputs, kept_states: KeptStatesPlan | None, micro_batch: int
) -> FlopsPlan:
    """The schedule priced on the very batches that training sees."""
    train, prompt_length = inputs.train, config.prompt.length
    order = UpdateOrder(train, batch_size=config.train.batch_size, seed=config.seed)
    processes = distributed.size()

    def sizes(data: Encoded, batches: Iterable[list[int]]) -> list[Size]:
        padded = (data.padded_size(indices) for indices in batches if indices)
        return [(batch, prompt_length + source, target) for batch, source, target in padded]

    def of_update(update: int) -> list[Size]:
        indices = order.indices(update)
        parts = (micro_batches(indices, micro_batch, process=own, processes=processes) for own in range(processes))
        return sizes(train, chain.from_iterable(parts))

    scored: list[Size] = []
    if any(schedule.reduces_width().values()):
        sample = importance.sample(train, config.schedule.importance_examples, config.seed)
        scored = sizes(sample, batches_by_length(sample, config.train.eval_batch))
    are_kept = kept_states is not None and kept_states.files > 0
    return price(
        schedule,
        price_of(inputs.backbone.config),
        of_update,
        dtype=name_of(config.engine),
        quantize=config.engine.quantize,
        importance=scored,
        prompt=config.prompt,
        kept_states=kept_states,
        all_examples=sizes(train, batches_by_length(train, config.train.batch_size)) if are_kept else [],
    )


def nominal(config: RunConfig, schedule: Schedule) -> dict[str, Any]:
    """The plan of a configuration at its length limits, without weights or data, with result.json's names."""
    source, target = config.task.source_length + config.prompt.length, config.task.target_length
    backbone = read_config(*config_values(config.model))
    cost = price_of(backbone)
    examples = most_train_examples(config)
    config, scored = config.with_batches_of(examples), 0
    if any(schedule.reduces_width().values()):
        scored = min(config.schedule.importance_examples, examples or config.schedule.importance_examples)
    tokens = (examples or 0) * family_of(backbone).positions(config.task.source_length, config.task.target_length)
    kept_states = decide(config, schedule, examples=examples, tokens=tokens, cost=cost)
    plan = price(
        schedule,
        cost,
        lambda _: [(config.train.batch_size, source, target)],
        dtype=name_of(config.engine),
        quantize=config.engine.quantize,
        importance=[(scored, source, target)],
        prompt=config.prompt,
        kept_states=kept_states,
        all_examples=[(examples or 0, source, target)],
    )
    validation = plan_validation(config, schedule, cost, (source, target), plan.flops)
    return {
        "task": config.task.name,
        "model": config.model.name,
        "schedule": config.schedule.name,
        "batch_size": config.train.batch_size,
        "source_length": source,
        "target_length": target,
        **asdict(plan),
        "validation": validation and asdict(validation),
        "states": kept_states and kept_states.to_json(),
    }
