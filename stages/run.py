"""The method, top to bottom: one prompt, carried through growing partial PLMs to the full model."""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

from fpt.config.run_config import RunConfig
from fpt.config.schema import RecycleConfig
from fpt.devices import distributed
from fpt.devices.engine import open_device
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import Progress
from fpt.runs.run import RESULT
from fpt.tasks.task import Task
from fpt.training.checkpoint import TrainState
from fpt.training.evaluation import Evaluation
from fpt.training.loop import Changed, Span, train
from stages.inputs import open_inputs
from stages.journal import Journal
from stages.kept_states import StateKeeper, for_validations
from stages.measured import measure
from stages.result import finish
from stages.schedule import Schedule
from stages.selection import selection_of
from stages.setup import Setup, opened_folder, prepare


def run(config: RunConfig, schedule: Schedule, read: Callable[[], Task], progress: Progress) -> dict[str, Any]:
    """Train the prompt through the schedule's stages, going on where an earlier run stopped; returns result.json.

    Every process of a run calls this; only the main one writes. `read` opens the task.

    Raises:
        Interrupted: the run was told to stop, and has saved its state.
    """
    with distributed.joined(config.engine, open_device(config.engine)):
        inputs = open_inputs(config, distributed.main_first(read), progress)
        with opened_folder(config) as folder:
            setup = prepare(config, schedule, inputs, folder, progress)
            if setup is None:
                progress.say(f"{folder.path}: this run is finished; resume=never starts over")
                return folder.read_json(RESULT)
            with progress.running():
                return _through_stages(setup)


def _through_stages(setup: Setup) -> dict[str, Any]:
    """Stage by stage: select, build the partial PLM, recycle the prompt, train it; the last is the full model."""
    state, recipe = setup.states[-1], setup.recipe
    journal, measured = Journal(setup), measure(setup)
    keeper = StateKeeper(setup.plan.states, setup.config.train.batch_size, setup.engine, setup.progress.with_bar)
    left = [stage.index for stage in setup.schedule.left(state.update, is_over=state.done)]
    ends = setup.states[: left[0] - 1]
    for index in left:
        schedule, stage = setup.schedule, setup.schedule.stages[index - 1]
        selection = selection_of(stage, setup.folder, schedule, measured.scores)
        with setup.opened(selection, state.prompt) as model:
            if state.update == stage.first_update:
                state = recycled(state, setup.config.recycle)
            began, data = perf_counter(), setup.inputs.train  # frees the last stage's states before others are made
            if state.update < stage.end and not state.done:  # otherwise at most a validation is left
                data = keeper.given_to(stage, data, model)
            state = replace(state, seconds=state.seconds + perf_counter() - began)
            spent = measured.seconds + sum(end.seconds for end in ends)
            journal.begin(setup, stage, state.seconds, before=spent)
            seconds = setup.seconds_until(stage, measured.seconds) - spent
            span = Span(stage.end, schedule.updates, keep_best=stage is schedule.last, seconds=seconds)
            for event in train(model, data, state, span, _validation(setup, model), recipe):
                journal.record(event)
                state = event if isinstance(event, TrainState) else state
                recipe = event.recipe if isinstance(event, Changed) else recipe
            setup = setup.ended_at(index, state.update)  # it may be early, out of time or patience
            ends.append(state)
            if stage is schedule.last:
                return finish(setup, measured, model, ends, journal.best)
        del model  # frees the smaller model before the larger one is built
    raise AssertionError("a schedule has a last stage")


def _validation(setup: Setup, model: PromptedModel) -> Callable[[PromptedModel], Evaluation]:
    """A stage's validation in training, which holds what it keeps of its sources until the stage is over."""
    kept = for_validations(setup.config, setup.plan.states, model, setup.engine.device)
    return replace(setup.evaluator, kept=kept).validate_in_training


def recycled(state: TrainState, config: RecycleConfig) -> TrainState:
    """The state in which the next stage starts (Huang et al. 2022): the prompt goes on, only the model changes."""
    optimizer = state.optimizer if config.optimizer else {}
    return TrainState(
        update=state.update, prompt=state.prompt, optimizer=optimizer, mean=state.mean, judged=state.judged
    )
