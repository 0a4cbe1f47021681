"""Decides whether states that the prompt does not change are kept in memory; computes them and hands them to stages.

They are the hidden states below a late prompt, or a source's keys and values where the prompt stands behind it. An
example has the same ones every time a stage comes back to it, until an expansion changes the blocks that they come
from. Computing them once takes under a hundredth of a run, so they are not kept for the next run.

Letters: D model, N tokens read of all examples together.
"""

from dataclasses import dataclass, replace

import psutil
import torch

from fpt.config.run_config import RunConfig
from fpt.data.batches import batches_by_length, in_turn
from fpt.data.encoded import Encoded, KeptStates
from fpt.devices import distributed
from fpt.devices.engine import Engine, states_precision
from fpt.devices.processes import counted
from fpt.pricing.flops import Price
from fpt.pricing.memory import is_for_card
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import WithBar
from fpt.training.evaluation import KeptSources
from fpt.units import amount
from stages.schedule import Schedule, Stage

SHARE = 0.25  # the share of free memory that `auto` may take
# On a GPU `auto` keeps states only where copying them is faster than computing them: bytes per second from a process's
# memory, FLOPs per second of a fast GPU under T5. A slower GPU gains more, and can be told to keep them.
COPIED = 10 * 10**9
COMPUTED = 4 * 10**14
SENT = 2**24  # how many numbers the processes exchange at once


@dataclass(frozen=True)
class StatesPlan:
    """What a run does about the states that its prompt does not change."""

    reason: str  # why, in words for the user
    bytes: int  # what the kept states take in each process's memory; 0 if none are kept
    # For each stage compute (before its first update), reuse (those of the stage before), or off (with every update).
    stages: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The plan in words for the user."""
        if not self.bytes:
            return f"states that the prompt does not change are computed with every update: {self.reason}"
        size = f"{amount(self.bytes)}B for each process"
        return f"states that the prompt does not change are kept in memory, {size}: {self.reason}"


def decide(
    config: RunConfig, schedule: Schedule, *, examples: int | None, tokens: int, cost: Price
) -> StatesPlan | None:
    """Decide what every stage does about states that the prompt does not change; None for one before the source.

    In the configuration neither precision nor device may be auto. The number of training examples is None if it is not
    known yet, and `tokens` are read of all of them together.
    """
    if schedule.fixed is None:
        return None
    asked = config.prompt.cache
    below = [(schedule.unchanged(stage), stage.shape.source.neurons) for stage in schedule.stages]

    def off(reason: str) -> StatesPlan:
        return StatesPlan(reason, 0, ("off",) * len(below))

    if asked == "off":
        return off("prompt.cache=off as given")
    if schedule.fixed == 0:
        return off("nothing lies below the prompt")
    if examples is None:
        return off("how many examples there are is known when the data are read")
    again = [stage.updates * config.train.batch_size > examples for stage in schedule.stages]
    stages = _stages(below, [asked == "memory" or comes_back for comes_back in again])
    if "compute" not in stages:
        return off(f"no stage comes back to any of {examples:,} examples")
    itemsize = getattr(torch, states_precision(config.engine)).itemsize
    size = tokens * cost.kept_width(schedule.last.shape, config.prompt) * itemsize
    needed, free = size * counted(config.engine).here, psutil.virtual_memory().available
    room = f"the states to keep take {amount(needed)}B, and {amount(free)}B is free"
    if asked == "memory" and needed > free:
        raise config.prompt.error("cache", f"{room}; with prompt.cache=off the same command goes on without")
    if asked == "memory":
        return StatesPlan("prompt.cache=memory as given", size, stages)
    flops = tokens * cost.below(schedule.full, source=1, target=0, blocks=schedule.fixed)
    if is_for_card(config.engine) and size / COPIED > flops / COMPUTED:
        return off("a card computes them sooner than they are copied from memory")
    if needed > SHARE * free:
        return off(f"{room}, of which auto takes a quarter")
    return StatesPlan(f"{amount(free)}B are free", size, stages)


def going_on(config: RunConfig, schedule: Schedule, now: StatesPlan, before: StatesPlan, update: int) -> StatesPlan:
    """The plan of a run resumed after `update` updates, from the plan it had `before` and the plan made `now`.

    Stages that are over keep what was decided `before`. With `auto` so do the others: otherwise a resumed run would
    compute something else than one that was never stopped.
    """
    if config.prompt.cache == "auto":
        return before
    pairs = zip(schedule.stages, before.stages, now.stages, strict=True)
    return replace(now, stages=tuple(old if update >= stage.end else new for stage, old, new in pairs))


def _stages(below: list[tuple[int, int]], wanted: list[bool]) -> tuple[str, ...]:
    """For every stage, whether its states are computed, taken over from the stage before, or not kept.

    `below` are the numbers of the blocks that states are kept of and of their neurons, by which `stages/selection.py`
    chooses the same blocks and neurons.
    """
    rows, held = [], None
    for is_wanted, lower in zip(wanted, below, strict=True):
        rows.append("reuse" if lower == held else "compute" if is_wanted else "off")
        held = None if rows[-1] == "off" else lower
    return tuple(rows)


def states_below(model: PromptedModel, data: Encoded, batch_size: int, engine: Engine, with_bar: WithBar) -> KeptStates:
    """The states [N, D] to keep for all examples; the processes share the work and exchange the results."""
    # An example has a state for every source token and, below a causal model's prompt, for every target token read.
    starts = data.joined_starts if model.keeps_target else data.sources.starts
    batches = batches_by_length(data, batch_size)
    width = model.below(data.batch(batches[-1][-1:]).to(engine.device)).shape[2]  # of the shortest example
    rows = torch.zeros(int(starts[-1]), width, dtype=engine.states_dtype)
    for indices in with_bar(in_turn(batches, distributed.rank(), distributed.size()), "states to keep"):
        if not indices and not model.in_step:
            continue
        states = model.below(data.batch(indices or batches[0]).to(engine.device)).cpu()
        for index, padded in zip(indices, states, strict=False):
            start, end = starts[index], starts[index + 1]
            rows[start:end] = padded[: end - start]
    distributed.barrier()  # the exchange below would time out on a slow process
    # Every state is nonzero in one process only, so adding the bits as integers leaves them as they are.
    for part in torch.split(rows.view(torch.int32).view(-1), SENT):
        distributed.all_reduce_sum_([part])
    return KeptStates(rows, starts)


def for_validations(
    config: RunConfig, plan: StatesPlan | None, model: PromptedModel, device: torch.device
) -> KeptSources | None:
    """Room for what a stage's validations read every time and its prompt does not change; None if none is kept."""
    is_off = plan is None or config.prompt.cache == "off" or model.keeps_target or model.in_step
    if is_off or device.type != "cpu":  # a GPU's memory is planned without them
        return None
    return KeptSources(int(SHARE * psutil.virtual_memory().available / counted(config.engine).here))


class StateKeeper:
    """Gives every stage its training data, with states that the prompt does not change where the plan keeps them.

    The states of one stage are held at a time; a stage that needs the same ones takes them over.
    """

    def __init__(self, plan: StatesPlan | None, batch_size: int, engine: Engine, with_bar: WithBar) -> None:
        self._plan, self._batch_size, self._engine, self._with_bar = plan, batch_size, engine, with_bar
        self._held: KeptStates | None = None

    def given_to(self, stage: Stage, data: Encoded, model: PromptedModel) -> Encoded:
        """The examples `data` as a stage trains its model on them."""
        does = self._plan.stages[stage.index - 1] if self._plan else "off"
        if does != "reuse":
            self._held = None  # frees the last stage's states before new ones are made
        if does == "off":
            return data
        self._held = self._held or states_below(model, data, self._batch_size, self._engine, self._with_bar)
        return replace(data, below=self._held)
