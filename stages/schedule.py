"""The list of stages: which depth and width, for how many updates; read from `schedule.stages` and checked."""

from dataclasses import astuple, dataclass, replace
from fractions import Fraction
from itertools import accumulate, count, pairwise
from math import inf
from typing import Any

from fpt.backbones.location import config_values
from fpt.backbones.shapes import Shape, Stack, read_shape, row_of
from fpt.config.run_config import RunConfig
from fpt.config.schema import ScheduleConfig
from fpt.errors import UserError, check_among
from fpt.prompts.kinds import kind_of
from stages import resolve

KEYS = ("depth", "width", "share", "updates")


@dataclass(frozen=True)
class Stage:
    """One partial PLM and how long the prompt trains on it."""

    index: int
    shape: Shape
    updates: int
    first_update: int

    @property
    def name(self) -> str:
        """The name of the stage's folder: number, blocks of each stack, neurons of each stack, as in 1-6x24-704x704."""
        blocks, neurons = zip(*map(astuple, self.shape.values()), strict=True)
        return f"{self.index}-{'x'.join(map(str, blocks))}-{'x'.join(map(str, neurons))}"

    @property
    def folder(self) -> str:
        """Where the stage's files are in the run folder."""
        return f"stages/{self.name}"

    @property
    def sizes(self) -> dict[str, int]:
        """The partial PLM's size under result.json's names; 0 for a missing stack. `ffn` is the first stack's width."""
        none = Stack(0, 0)
        encoder, decoder = self.shape.get("encoder", none), self.shape.get("decoder", none)
        return {
            "encoder_layers": encoder.blocks,
            "decoder_layers": decoder.blocks,
            "ffn": self.shape.source.neurons,
            "decoder_ffn": decoder.neurons,
        }

    @property
    def end(self) -> int:
        """The update after the stage's last."""
        return self.first_update + self.updates


@dataclass(frozen=True)
class Schedule:
    """Stages in order; the last is the full model unless schedule.partial_end is set.

    The prompt enters before block `block` of the full model's first stack, and does not change the states of `fixed`
    blocks, which can therefore be kept; None: that is not asked. `keeps` names the rule by which the blocks of a stage
    are chosen.
    """

    stages: tuple[Stage, ...]
    full: Shape
    block: int = 0
    keeps: str = "evenly"
    fixed: int | None = None

    @property
    def last(self) -> Stage:
        """The stage that the run's prompt comes from."""
        return self.stages[-1]

    @property
    def updates(self) -> int:
        """Updates of all stages together."""
        return self.last.end

    def ended_at(self, index: int, update: int) -> "Schedule":
        """The schedule of a run whose stage number `index` ended early, at `update`, where the next one begins."""
        early = self.stages[index - 1].end - update
        stages = [replace(stage, first_update=stage.first_update - early) for stage in self.stages[index:]]
        ended = replace(self.stages[index - 1], updates=self.stages[index - 1].updates - early)
        return replace(self, stages=(*self.stages[: index - 1], ended, *stages))

    def left(self, update: int, *, is_over: bool) -> list[Stage]:
        """The stages to go through after `update` updates; always the last, even when its training is done.

        `is_over` says whether the stage of that update is over: after its last update it may have a validation left.
        """
        return [stage for stage in self.stages if (update, is_over) < (stage.end, True) or stage is self.last]

    def below(self, stage: Stage) -> int:
        """How many of a stage's blocks lie below the prompt."""
        return num_below(stage.shape.source.blocks, self.full.source.blocks, self.block)

    def unchanged(self, stage: Stage) -> int:
        """How many of a stage's blocks have states that the prompt does not change."""
        return num_below(stage.shape.source.blocks, self.full.source.blocks, self.fixed or 0)

    def scored(self) -> list[str]:
        """The stacks of which some stage leaves out neurons, so that their neurons must be scored."""
        return [
            name
            for name, size in self.full.items()
            if any(stage.shape[name].neurons < size.neurons for stage in self.stages)
        ]


def of(config: RunConfig) -> Schedule:
    """The schedule of a run, from the model's shape alone: no weights are read, and nothing heavy is imported."""
    values, where = config_values(config.model)
    full = read_shape(values, where)
    resolve.check(config, values, where)
    config, kind = resolve.for_model(config), kind_of(config.prompt)
    reads, keeps = row_of(values, where).reads, config.schedule.blocks
    updates, reduces = config.train.updates, config.task.reduce_decoder
    schedule = build(config.schedule, full=full, updates=updates, reduce_decoder=reduces)
    keeps, blocks = reads.blocks if keeps == "auto" else keeps, full.source.blocks
    schedule = replace(schedule, block=kind.position(blocks), fixed=kind.kept_blocks(blocks), keeps=keeps)
    _check_seen(schedule, config.prompt.layer)
    return schedule


def num_below(kept: int, total: int, block: int) -> int:
    """How many of `kept` blocks lie below `block`: the same share, rounded, as in the full model of `total` blocks."""
    if block in (0, total):
        return min(kept, block)
    share = (2 * kept * block + total) // (2 * total)
    return max(1, min(share, kept - 1))


def _check_seen(schedule: Schedule, layer: float) -> None:
    """Refuse a prompt that enters after all blocks of a model's only stack: none would see it, so it cannot learn."""
    if schedule.block == 0 or len(schedule.full) > 1:  # a decoder always attends to the encoder's output
        return
    for stage in schedule.stages:
        if schedule.below(stage) == (number := stage.shape.source.blocks):
            raise UserError(
                f"prompt.layer={layer}: all blocks of schedule.stages[{stage.index}] ({number}) lie below it, and none"
                " would see it; give a lower prompt.layer, and keep at least 2 blocks"
            )


def build(config: ScheduleConfig, *, full: Shape, updates: int, reduce_decoder: bool) -> Schedule:
    """The stages for a model of shape `full`.

    Stages given as numbers of updates set the total themselves; stages given as shares divide `updates`.
    """
    if not config.stages:
        raise UserError("schedule.stages: the list is empty; give at least {depth: full, width: full, share: 1.0}")
    reduced = {name: {"task": reduce_decoder, "encoder": False, "both": True}[config.reduce] for name in full}
    reduced[next(iter(full))] = True
    keys = [f"schedule.stages[{number}]" for number in range(1, len(config.stages) + 1)]
    rows = list(map(_checked, config.stages, keys))
    shapes = [_shape(row, key, full, reduced) for row, key in zip(rows, keys, strict=True)]
    _check_growth(shapes, full, config.partial_end)
    counts = _updates(rows, updates)
    spans = zip(count(1), shapes, counts, accumulate(counts, initial=0), strict=False)
    return Schedule(tuple(Stage(*span) for span in spans), full)


def _checked(row: Any, key: str) -> dict[str, Any]:
    """A stage's entry as typed, once its keys and its number or share of updates are checked."""
    if not isinstance(row, dict):
        raise UserError(f"{key}={row}: expected {{depth: …, width: …, share: …}}")
    for name in row:
        check_among(name, KEYS, f"{key}: unknown key '{name}'; allowed are")
    if ("share" in row) == ("updates" in row):
        raise UserError(f"{key}: give either share (a fraction of train.updates) or updates (a number)")
    for name, kinds in {"share": (int, float), "updates": (int,)}.items():
        value = row.get(name, 1)
        if type(value) not in kinds or not 0 < value < inf:
            expected = "a share above 0" if name == "share" else "a whole number above 0"
            raise UserError(f"{key}.{name}={value!r}: expected {expected}")
    return row


def _shape(row: dict[str, Any], key: str, full: Shape, reduced: dict[str, bool]) -> Shape:
    """The shape of a stage's model; `reduced` says for each stack whether a value given for all of them applies."""
    stacks = {}
    for name, whole in full.items():
        depth, width = row.get("depth", "full"), row.get("width", "full")
        blocks = _count(depth, whole.blocks, name, reduced, f"{key}.depth")
        stacks[name] = Stack(blocks, _count(width, whole.neurons, name, reduced, f"{key}.width"))
    return Shape(**stacks)


def _count(value: Any, total: int, stack: str, reduced: dict[str, bool], key: str) -> int:
    """Turn a count, a fraction of `total` or 'full' into a number; one given for this stack alone always applies."""
    is_reduced = reduced[stack]
    if isinstance(value, dict):
        if not value or set(value) - set(reduced):
            raise UserError(f"{key}={value}: expected {{{', '.join(f'{name}: …' for name in reduced)}}}")
        value, is_reduced, key = value.get(stack, "full"), True, f"{key}.{stack}"
    if value == "full" or not is_reduced:
        return total
    if isinstance(value, float) and 0 < value <= 1:
        return max(1, int(Fraction(str(value)) * total + Fraction(1, 2)))
    if type(value) is int and 1 <= value <= total:
        return value
    raise UserError(
        f"{key}={value!r}: expected a count from 1 to {total} (the model's {stack}), a fraction such as 0.25, or full"
    )


def _check_growth(shapes: list[Shape], full: Shape, partial_end: bool) -> None:
    """Refuse a stage that does not grow, and a last stage that is not the full model unless `partial_end` is set."""
    for number, (before, after) in enumerate(pairwise(shapes), 2):
        pairs = [(before[name], after[name]) for name in full]
        is_smaller = any(new.blocks < old.blocks or new.neurons < old.neurons for old, new in pairs)
        if before == after or is_smaller:
            verb = "is smaller in part than" if is_smaller else "is the same as"
            raise UserError(
                f"schedule.stages[{number}]: {_text(after)} {verb} the stage before, {_text(before)}; stages must grow"
            )
    if shapes[-1] != full and not partial_end:
        raise UserError(
            f"schedule.stages[{len(shapes)}]: the last stage is {_text(shapes[-1])}, not the full model,"
            f" {_text(full)}. Write depth: full, width: full, or set schedule.partial_end=true"
        )


def _text(shape: Shape) -> str:
    blocks, neurons = zip(*map(astuple, shape.values()), strict=True)
    return f"{'+'.join(map(str, blocks))} layers of {'/'.join(map(str, neurons))} neurons"


def _updates(rows: list[dict[str, Any]], updates: int) -> list[int]:
    """How many updates each stage has: the number given for it, or its share of `updates`."""
    if all("updates" in row for row in rows):
        return [row["updates"] for row in rows]
    if any("updates" in row for row in rows):
        raise UserError("schedule.stages: give every stage a share, or every stage a number of updates")
    shares = [Fraction(str(row["share"])) for row in rows]
    total = sum(shares, Fraction())
    if abs(total - 1) > Fraction(1, 1000):
        raise UserError(f"schedule.stages: the shares add up to {float(total):g}, not 1")
    bounds = [round(updates * share / total) for share in accumulate(shares, initial=Fraction())]
    counts = [end - start for start, end in pairwise(bounds)]
    if 0 in counts:
        raise UserError(f"train.updates={updates}: too few, stage {counts.index(0) + 1} of {len(rows)} would get none")
    return counts
