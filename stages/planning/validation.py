"""What validation takes beside training: how often the model is asked, and for which share of the time."""

from dataclasses import dataclass
from math import ceil

from fpt.backbones.shapes import Shape
from fpt.config.run_config import RunConfig
from fpt.pricing.flops import Price
from fpt.tasks.catalogue import most_valid_examples, rules_of
from stages.schedule import Schedule, Stage

# An output grows token by token, and every token reads the decoder's weights: in bfloat16 an H100 reads them in the
# time in which it multiplies so many rows by them (989 TFLOP/s, 3.35 TB/s), so that fewer rows take as long.
ROWS = 300


@dataclass(frozen=True)
class ValidationPlan:
    """All validations of a run.

    Attributes:
        times: in training; in the end the best prompt is scored once more, and the last one where training looked at
            some examples alone.
        examples: outputs in all.
        flops: of these, each as long as a target may be; where labels are scored, of each label.
        share: of the time of training and validation together, where a token of few generated outputs takes as long as
            one of ROWS.
    """

    times: int
    examples: int
    flops: int
    share: float


def plan_validation(
    config: RunConfig, schedule: Schedule, cost: Price, sizes: tuple[int, int], flops: int
) -> ValidationPlan | None:
    """The validations of a run whose training takes `flops`; None: how many examples there are is not known.

    `sizes` are a source's positions, the prompt's included, and an output's.
    """
    total = most_valid_examples(config)
    if total is None:
        return None
    train, task = config.train, config.task
    looked, batch = min(total, train.eval_examples or total), train.eval_batch
    asked = [(stage.shape, looked, times) for stage in schedule.stages if (times := _times(stage, schedule, config))]
    asked.append((schedule.last.shape, total, 2 if looked < total else 1))
    floor = ROWS
    if cost.reads == "mask":  # a word of each label, from one state
        floor = 0
    elif task.answer != "generate":
        number, floor = len(rules_of(task).labels), 0
        if cost.reads == "causal":  # each label goes the source's way
            asked = [(shape, count * number, times) for shape, count, times in asked]
        else:  # all tokens of all labels are there at once
            sizes = sizes[0], sizes[1] * number
    spent = sum(count * times * _flops(cost, shape, sizes, 1, 1) for shape, count, times in asked)
    slow = sum(
        times * ceil(count / batch) * _flops(cost, shape, sizes, min(batch, count), max(floor, min(batch, count)))
        for shape, count, times in asked
    )
    return ValidationPlan(
        times=sum(times for *_, times in asked[:-1]),
        examples=sum(count * times for _, count, times in asked),
        flops=spent,
        share=slow / (slow + flops),
    )


def _times(stage: Stage, schedule: Schedule, config: RunConfig) -> int:
    """How often a stage is validated: now and then, and at its end."""
    if stage is not schedule.last and not config.train.eval_partial:
        return 0
    every = config.train.eval_every
    return stage.end // every - stage.first_update // every + (stage.end % every > 0)


def _flops(cost: Price, shape: Shape, sizes: tuple[int, int], rows: int, rows_of_decoder: int) -> int:
    """Of so many sources that are read, and as many outputs, or more, that are said."""
    source, target = sizes
    read = cost.below(shape, batch=1, source=source, target=1, blocks=shape.source.blocks)
    whole = cost.forward(shape, batch=1, source=source, target=target)
    return rows * read + rows_of_decoder * (whole - read)
