"""Counts the FLOPs of every stage and of validations, on a run's own batches or at the task's length limits."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from fpt.backbones.family_table import Reading
from fpt.backbones.shapes import Shape
from fpt.config.run_config import RunConfig
from fpt.config.schema import PromptConfig
from fpt.data.batches import UpdateOrder, batches_by_length, micro_batches
from fpt.data.encoded import Encoded
from fpt.devices import distributed
from fpt.pricing.flops import SOFT, Price
from fpt.prompts.kinds import kind_of
from fpt.tasks.catalogue import most_examples, rules_of
from stages.inputs import Inputs
from stages.schedule import Schedule, Stage

# The size of one micro-batch: (examples, source length with the prompt, target length).
Size = tuple[int, int, int]


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
    whole, scored = source + config.prompt.length, config.schedule.importance_examples
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
        times * cost(shape, batch=batch, source=source, target=target, **more)
        for (batch, source, target), times in batches.items()
    )


def of_validation(config: RunConfig, schedule: Schedule, price: Price, flops: int) -> dict[str, Any] | None:
    """What validations cost at the length limits, next to training's `flops`; None: the number of examples is unknown.

    `times` is how many validations training has. If they are on a sample, the best prompt and the last one are scored
    on all examples after it. `examples` are all outputs, `flops` theirs, and `share` those of all the run's FLOPs.
    """
    if not (total := most_examples(config)[1]):
        return None
    source, target = config.task.source_length + config.prompt.length, config.task.target_length
    if price.reads.chooses(config.task.answer):
        number = len(rules_of(config.task).labels)
        # A source is read once; its labels follow side by side, and have their first tokens from one place if causal.
        target = 1 + number * (target - 1) if price.reads.reads_target else number * target
    looked = min(total, config.train.eval_examples or total)
    times = {stage: _times(stage, schedule, config) for stage in schedule.stages}
    outputs = {stage: looked * number for stage, number in times.items()}
    if looked < total:
        outputs[schedule.last] += 2 * total
    spent = sum(
        number * price.forward(stage.shape, batch=1, source=source, target=target) for stage, number in outputs.items()
    )
    share = spent / (spent + flops)
    return {"times": sum(times.values()), "examples": sum(outputs.values()), "flops": spent, "share": share}


def _times(stage: Stage, schedule: Schedule, config: RunConfig) -> int:
    """How often a stage is validated: every eval_every updates, and at its end."""
    if stage is not schedule.last and not config.train.eval_partial:
        return 0
    every = config.train.eval_every
    return stage.end // every - stage.first_update // every + (stage.end % every > 0)
