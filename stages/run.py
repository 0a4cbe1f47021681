"""The method, top to bottom: one prompt, carried through growing partial PLMs to the full model."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fpt.config.run_config import RunConfig
from fpt.devices import distributed
from fpt.devices.device import open_device
from fpt.devices.engine import Engine
from fpt.devices.meter import Meter, peak_flops
from fpt.runs.progress import Progress, Stopwatch
from fpt.runs.run import RESULT, SKIPPED
from fpt.runs.shared_folder import SharedFolder
from fpt.runs.trackers import Harmless, MetricsLine, open_sink
from fpt.tasks.task import Task
from fpt.training.checkpoint import TrainState
from fpt.training.loop import Recipe, Saved, Span, Ungraphed, train
from stages import recycle, resume
from stages.inputs import Inputs, check_unchanged, evaluator_of, open_inputs
from stages.journal import Journal
from stages.measured import measure
from stages.models import Models
from stages.planning.settled import Settled, settle
from stages.result import finish
from stages.schedule import Schedule
from stages.start import Start, start_of
from stages.state_keeper import StateKeeper


def run(config: RunConfig, schedule: Schedule, read: Callable[[], Task], progress: Progress) -> dict[str, Any]:
    """Train the prompt through the schedule's stages, going on where an earlier run stopped; returns result.json.

    In a run of several processes each calls this; the main one writes. `read` gives the task.

    Raises:
        UserError: the device, the weights, the prompt's start or the run folder cannot be used.
        Interrupted: the run was told to stop, and has saved its state.
    """
    with distributed.joined(config.engine, open_device(config.engine)):
        return run_joined(config, schedule, read, progress)


def run_joined(config: RunConfig, schedule: Schedule, read: Callable[[], Task], progress: Progress) -> dict[str, Any]:
    """The same, with processes that can reach each other."""
    inputs = open_inputs(config, distributed.main_first(read), progress)
    if schedule.updates != config.train.updates:
        progress.say(
            f"train.updates={config.train.updates} is set aside: the stages' own updates add up to {schedule.updates}"
        )
    folder, state, mark = resume.open_folder(config, schedule)
    try:
        start = start_of(config, inputs)
        check_unchanged(config, inputs, start.identity, folder, progress)
        if inputs.task.skipped:
            folder.write(SKIPPED, "".join(f"{fault}\n" for fault in inputs.task.skipped).encode())
        if RESULT in folder:
            progress.say(f"{folder.path}: this run is finished; resume=never starts over")
            return dict(json.loads(folder.read(RESULT)))
        state = state or TrainState(update=0, prompt=start.prompt)
        asked, config = config.train.batch_size, config.with_batches_of(len(inputs.train))
        if config.train.batch_size < asked:
            progress.say(f"train.batch_size={asked}: an update takes all {len(inputs.train):,} training examples, once")
        if inputs.backbone.family.row.asks_card:
            config = replace(config, engine=replace(config.engine, graphs=False))
        settled = settle(config, schedule, inputs, folder, state.update)
        for sentence in settled.sentences(config.engine):
            progress.say(sentence)

        def sink(kept: list[MetricsLine]) -> Harmless | None:
            progress.goes_on(kept)
            return open_sink(config, kept, progress.say)

        folder.open_metrics(mark, sink)
        with progress.running():
            return _through_stages(config, schedule, inputs, start, settled, folder, state, progress)
    finally:
        folder.close()


def _through_stages(
    config: RunConfig,
    schedule: Schedule,
    inputs: Inputs,
    start: Start,
    settled: Settled,
    folder: SharedFolder,
    state: TrainState,
    progress: Progress,
) -> dict[str, Any]:
    """Stage by stage: select, build the partial PLM, train the prompt on it, recycle; the last is the full model."""
    config = replace(config, engine=settled.engine(config.engine))
    engine = Engine(config.engine, open_device(config.engine))
    models = Models(inputs.backbone, engine, config.prompt, settled.memory.activation_checkpointing)
    evaluator = evaluator_of(config, inputs, engine, progress)
    recipe = Recipe(
        config.train,
        config.optim,
        settled.micro_batch,
        config.seed,
        engine.device,
        in_step=engine.is_sharded,
        graphs=settled.has_graphs(config.engine),
    )
    meter = Meter(engine.device, peak_flops(engine.device, config.engine.dtype, distributed.size()))
    measured = measure(config, schedule, inputs, start, models, evaluator, folder, progress)
    keeper = StateKeeper(settled.kept_states, config, inputs, engine, progress)
    progress.expect(settled.flops.flops_of_stages, done=settled.flops.flops_before(state.update))
    for stage in schedule.stages:
        is_last = stage is schedule.last
        if resume.is_over(stage, state) and not is_last:
            continue
        selection = resume.selection_of(stage, folder, schedule.full, measured.scores, start.block)
        with models.open(selection, state.prompt) as model:
            if not resume.is_over(stage, state):
                if state.update == stage.first_update:
                    state = recycle.carry(state, config.recycle)
                stopwatch, data = Stopwatch(), keeper.data(stage, selection, model, state.update)
                state = replace(state, seconds=state.seconds + stopwatch.seconds)
                journal = Journal(folder, progress, stage, schedule, settled.flops, measured.seconds, start, meter)
                meter.begin(settled.flops.stages[stage.index - 1].flops_per_update, state.seconds)
                span = Span(stage.end, schedule.updates, keep_best=is_last)
                for event in train(model, data, state, span, evaluator.look, recipe):
                    journal.record(event)
                    if isinstance(event, Ungraphed):
                        recipe = replace(recipe, graphs=False)
                    state = event.state if isinstance(event, Saved) else state
            if is_last:
                return finish(config, schedule, inputs, start, settled, measured, evaluator, model, state, folder)
        del model  # the smaller one goes before the larger one is built
    raise AssertionError("a schedule has a last stage")
