"""Gathers all that a run has before its first update: resolved configuration, data, start, plan, engine, folder."""

import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from fpt.backbones.shapes import Selection
from fpt.config.literal import dump
from fpt.config.run_config import RunConfig
from fpt.config.stored import differences, stored
from fpt.devices import distributed
from fpt.devices.engine import Engine, open_device
from fpt.errors import UserError
from fpt.prompts.files import initial
from fpt.prompts.kinds import kind_of
from fpt.prompts.modules import Tensors
from fpt.prompts.prompted import PromptedModel
from fpt.runs import metrics
from fpt.runs.folder import STATE, check_metrics, set_aside
from fpt.runs.progress import Progress
from fpt.runs.run import CONFIG, RESULT, SKIPPED, configuration, reading
from fpt.runs.shared_folder import SharedFolder
from fpt.training.checkpoint import TrainState, dump_prompt, load_state
from fpt.training.evaluation import Evaluator
from fpt.training.loop import Recipe
from stages.inputs import Inputs, check_unchanged, evaluator_of
from stages.partial import opened, prompt_in
from stages.planning.decide import Plan, ended_early, plan_run
from stages.schedule import Schedule, Stage


@dataclass(frozen=True)
class Start:
    """A run's prompt before its first update: its tensors by name, and the metadata that its prompt files carry."""

    prompt: Tensors
    metadata: dict[str, Any]

    @property
    def identity(self) -> bytes:
        """Bytes that are equal only for equal starts."""
        use = json.dumps(self.metadata).encode() if self.metadata else b""
        return b"".join([*(tensor.numpy().tobytes() for tensor in self.prompt.values()), use])

    def dump(self, learned: Tensors, **origin: str) -> bytes:
        """The bytes of a prompt file with the tensors learned from this start, and with their `origin`."""
        return dump_prompt(learned, **origin, **self.metadata)


@dataclass(frozen=True)
class Setup:
    """Everything that the stages of a run have in common, and the states from which it goes on.

    `config` has the plan's decisions in place of every `auto`. In `schedule` and `plan` stages that ended early have
    the updates that they had, in `planned` those that they were to have. `states` are the latest ones of the stages
    that were begun; training goes on from the last one, in a new run the only one.
    """

    config: RunConfig
    planned: Schedule
    schedule: Schedule
    inputs: Inputs
    start: Start
    plan: Plan
    engine: Engine
    folder: SharedFolder
    progress: Progress
    states: list[TrainState]

    def ended_at(self, index: int, update: int) -> "Setup":
        """The setup once stage number `index` is over, at `update`, which may be early."""
        schedule = self.schedule.ended_at(index, update)
        return replace(self, schedule=schedule, plan=ended_early(self.plan, self.config, schedule, self.inputs))

    def seconds_until(self, stage: Stage, measuring: float) -> float:
        """The seconds of the run after which a stage ends: stages share what measuring leaves of train.max_seconds."""
        limit, planned = self.config.train.max_seconds, self.planned
        if limit is None:
            return math.inf
        return measuring + (limit - measuring) * planned.stages[stage.index - 1].end / planned.updates

    def opened(self, selection: Selection, prompt: Tensors) -> AbstractContextManager[PromptedModel]:
        """A context in which the engine holds the selection's partial PLM, with a prompt made of these tensors."""
        backbone, checkpointing = self.inputs.backbone, bool(self.config.train.activation_checkpointing)
        module = prompt_in(backbone, selection, self.config.prompt, prompt)
        return opened(backbone, selection, self.engine, module, checkpointing=checkpointing)

    @cached_property
    def evaluator(self) -> Evaluator:
        """Scores a model on the validation split."""
        return evaluator_of(self.config, self.inputs, self.engine, self.progress)

    @property
    def recipe(self) -> Recipe:
        """The settings that every stage's updates share."""
        config, plan = self.config, self.plan
        return Recipe(config.train, config.optim, plan.micro_batch, config.seed, self.engine.device, plan.graphs)


@contextmanager
def opened_folder(config: RunConfig) -> Iterator[SharedFolder]:
    """A context with the run's folder, whose files are undamaged and of this configuration; every process enters it."""
    distributed.broadcast_from_main(lambda: _make_way(config))
    with closing(SharedFolder(config.folder)) as folder:
        if CONFIG not in folder:
            folder.write(CONFIG, dump(stored(config)).encode())
        if wrong := differences(configuration(folder.path / CONFIG, folder.read(CONFIG)), config):
            raise UserError(
                f"run.dir={folder.path}: holds a run with another configuration ({'; '.join(wrong)})."
                " Give another run.dir, or start over with resume=never"
            )
        yield folder


def _make_way(config: RunConfig) -> None:
    """Do what `resume` asks with a run that is in the folder already."""
    if config.resume == "never":
        set_aside(config.folder)
    if config.resume == "must" and not (config.folder / CONFIG).is_file():
        raise UserError(f"resume=must: there is no run in {config.folder} to go on with; resume=auto starts one")


def prepare(
    config: RunConfig, schedule: Schedule, inputs: Inputs, folder: SharedFolder, progress: Progress
) -> Setup | None:
    """Plan the run, or read back the plan it began with; None if the run is already finished."""
    if (updates := schedule.updates) != config.train.updates:
        progress.say(f"train.updates={config.train.updates} is set aside: the stages' own updates add up to {updates}")
    prompt = initial(config.prompt, inputs.backbone, labels=inputs.task.labels, seed=config.seed)
    start = Start(prompt, kind_of(config.prompt).metadata(schedule.block))
    check_unchanged(inputs, start.identity, folder)
    if inputs.task.skipped:
        folder.write(SKIPPED, "".join(f"{fault}\n" for fault in inputs.task.skipped).encode())
    states, mark = saved_states(folder, schedule)
    if RESULT in folder:
        return None
    states = states or [TrainState(update=0, prompt=start.prompt)]
    planned = schedule
    for stage, state in zip(planned.stages, states, strict=False):
        if state.done:  # it may be early, out of time or patience
            schedule = schedule.ended_at(stage.index, state.update)
    plan = plan_run(config, schedule, inputs, folder, states[-1].update)
    resolved = plan.resolved(config)
    if (size := config.train.batch_size) > plan.batch_size:
        progress.say(f"train.batch_size={size}: an update takes all {len(inputs.train):,} training examples, once")
    for sentence in plan.sentences(config.engine.device):
        progress.say(sentence)
    folder.open_metrics(mark, lambda kept: metrics.open_tracker(resolved, kept, progress.say))
    engine = Engine(resolved.engine, open_device(resolved.engine))
    return Setup(resolved, planned, schedule, inputs, start, plan, engine, folder, progress, states)


def saved_states(folder: SharedFolder, schedule: Schedule) -> tuple[list[TrainState], dict[str, Any] | None]:
    """The latest state of each stage that has one, and the last one's mark in metrics.jsonl, checked up to there."""
    states: list[TrainState] = []
    mark: dict[str, Any] | None = None
    for name in filter(folder.__contains__, (f"{stage.folder}/{STATE}" for stage in schedule.stages)):
        with reading(folder.path / name):
            state, mark = load_state(folder.read(name))
        states.append(state)
    if mark:
        distributed.broadcast_from_main(partial(check_metrics, folder.path, mark))
    return states, mark
