"""The story of a run: one prompt, carried through growing partial PLMs to the full model."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fpt.backbones.shapes import Selection
from fpt.config.schema import RunConfig
from fpt.devices import distributed
from fpt.devices.device import open_device
from fpt.devices.processes import is_worker
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import Progress, Stopwatch
from fpt.runs.run import PLAN, PREDICTIONS, PROMPT, RESULT, TEST_PREDICTIONS
from fpt.runs.shared_folder import SharedFolder
from fpt.runs.trackers import open_sink
from fpt.tasks.task import Task
from fpt.training.checkpoint import Tensors, TrainState, dump_state
from fpt.training.evaluation import predictions
from fpt.training.loop import Hooks, Span, train
from fpt.training.optimizer import rate
from stages import prepare, recycle, resume, selection
from stages.planning import kept_states as caching
from stages.planning import memory as fit
from stages.planning.flops import Plan, price_run
from stages.planning.kept_states import Keeper
from stages.prepare import Materials, Measured
from stages.result import summarise
from stages.schedule import Schedule, Stage


def run(config: RunConfig, schedule: Schedule, read: Callable[[], Task], progress: Progress) -> dict[str, Any]:
    """Train the prompt through the schedule's stages, going on where an earlier run stopped; returns result.json.

    In a run of several processes each calls this; the main one writes. `read` gives the task.

    Raises:
        UserError: the device, the weights, the prompt's start or the run folder cannot be used.
        Interrupted: the run was told to stop, and has saved its state.
    """
    reason = None
    if config.engine.name == "auto" and not is_worker():
        config, reason = fit.with_engine(config, schedule)
    with distributed.joined(config.engine, open_device(config.engine)):
        return run_joined(config, schedule, read, progress, reason)


def run_joined(
    config: RunConfig, schedule: Schedule, read: Callable[[], Task], progress: Progress, reason: str | None = None
) -> dict[str, Any]:
    """The same, with processes that can reach each other; `reason` says why this engine."""
    if config.engine.name == "auto":  # several, started by another launcher than ours
        config, reason = distributed.broadcast_from_main(lambda: fit.with_engine(config, schedule))
    materials = prepare.gather(config, schedule, distributed.main_first(read), progress)
    if schedule.updates != config.train.updates:
        progress.say(
            f"train.updates={config.train.updates} is set aside: the stages' own updates add up to {schedule.updates}"
        )
    folder, state, mark = resume.open_folder(config, schedule)
    try:
        prompt = materials.initial_prompt()
        prepare.check_inputs(folder, materials, prompt)
        if RESULT in folder:
            progress.say(f"{folder.path}: this run is finished; resume=never starts over")
            return dict(json.loads(folder.read(RESULT)))
        if reason is not None:
            progress.say(reason)
        folder.open_metrics(mark, lambda kept: open_sink(config, kept, progress.say))
        with progress.running():
            return _run(materials, folder, state or TrainState(update=0, prompt=prompt), prompt)
    finally:
        folder.close()


@dataclass(frozen=True)
class _Told:
    """What stays the same from the first stage to the last."""

    materials: Materials
    folder: SharedFolder
    plan: Plan
    measured: Measured
    keeper: Keeper


def _run(materials: Materials, folder: SharedFolder, state: TrainState, prompt: Tensors) -> dict[str, Any]:
    config, schedule, lengths = materials.config, materials.schedule, fit.longest(materials.train)
    before = json.loads(folder.read(PLAN)).get("states") if PLAN in folder else None
    states = distributed.broadcast_from_main(lambda: caching.decide_for_run(materials, state.update, before))
    beside = caching.beside(config, states)
    memory = distributed.broadcast_from_main(lambda: fit.plan_memory(beside, schedule, lengths))
    settled = distributed.broadcast_from_main(lambda: fit.with_micro_batch(beside, schedule, lengths))
    materials = replace(materials, config=replace(config, train=settled.train))
    measured = prepare.measure(folder, materials, prompt)
    plan = price_run(materials, schedule, states)
    about = {"memory": memory.to_json(), "states": states and states.to_json()}
    folder.write_json(PLAN, {**plan.to_json(), **about})
    if states is not None:
        materials.progress.say(states.told)
    materials.progress.expect(plan.flops - plan.flops_importance, done=plan.flops_before(state.update))
    told = _Told(materials, folder, plan, measured, Keeper(materials, states))
    for stage in schedule.stages[:-1]:
        if not _is_over(stage, state):
            chosen = _selection(materials, folder, stage, measured.scores)
            with materials.model(chosen, state.prompt) as model:
                state = _train_stage(told, stage, chosen, model, state)
            del model  # the smaller model goes before the larger one is built
    chosen = _selection(materials, folder, schedule.last, measured.scores)
    with materials.model(chosen, state.prompt) as model:
        if not _is_over(schedule.last, state):
            state = _train_stage(told, schedule.last, chosen, model, state)
        return _finish(told, model, state)


def _is_over(stage: Stage, state: TrainState) -> bool:
    """Whether the state lies past the stage, or in it with nothing left to do (it ran out of patience)."""
    if state.update < stage.end:
        return state.done and state.update > stage.first_update
    return state.update > stage.end or state.judged == stage.end


def _selection(materials: Materials, folder: SharedFolder, stage: Stage, scores: dict[str, Tensor]) -> Selection:
    """What the stage keeps: chosen once, then read from the run folder."""
    name, about = f"stages/{stage.name}/selection.safetensors", f"stages/{stage.name}/stage.json"
    if name not in folder or about not in folder:
        chosen = selection.choose(stage.shape, materials.backbone.shape, scores, layer=materials.layer)
        blocks = {"encoder_blocks": chosen.encoder.blocks, "decoder_blocks": chosen.decoder.blocks}
        span = {"first_update": stage.first_update, "updates": stage.updates}
        folder.write(name, selection.dump(chosen))
        folder.write_json(about, {"index": stage.index, **stage.sizes, **blocks, **span})
    return selection.load(folder.read(name))


def _train_stage(told: _Told, stage: Stage, chosen: Selection, model: PromptedModel, state: TrainState) -> TrainState:
    """Train the prompt on one stage's model, from wherever the state is."""
    materials, folder, plan, price = told.materials, told.folder, told.plan, told.plan.stages[stage.index - 1]
    config, progress, metric = materials.config, materials.progress, materials.task.metric
    last = materials.schedule.last
    earlier = [resume.read_state(folder, before).seconds for before in materials.schedule.stages[: stage.index - 1]]
    if state.update == stage.first_update:
        state = recycle.carry(state, config.recycle)
    stopwatch = Stopwatch()
    # Stopped in its last validation, a stage has no update left to do.
    data = told.keeper.data(stage, chosen, model) if state.update < stage.end else materials.train
    state = replace(state, seconds=state.seconds + stopwatch.seconds)
    if state.update == stage.first_update:
        progress.passed(price.flops_states)

    def where(update: int) -> str:
        return f"stage {stage.index}/{last.index}  update {update}/{last.end}"

    def spent(update: int, seconds: float) -> dict[str, float]:
        """Of the run so far; the scoring of neurons is part of it."""
        flops = plan.flops_importance + plan.flops_before(update)
        return {"flops": flops, "seconds": round(told.measured.seconds + sum(earlier) + seconds, 3)}

    def updated(update: int, loss: float, seconds: float) -> None:
        about = {"update": update, "stage": stage.index, **spent(update, seconds)}
        folder.log({**about, "loss": loss, "lr": rate(config.optim, update - 1, last.end)})
        progress.updated(where(update), loss=loss, flops=price.flops_per_update)

    def validate(update: int, seconds: float) -> float:
        metrics = materials.evaluate(model).metrics
        about = {"update": update, "stage": stage.index, **spent(update, seconds)}
        folder.log({**about, "split": "validation", **metrics})
        progress.scored(where(update), score=metrics[metric])
        return metrics[metric]

    def save(reached: TrainState) -> None:
        if reached.done:  # before the state, which says that nothing is left to do
            folder.write(f"stages/{stage.name}/prompt.safetensors", materials.dump(reached.prompt, stage=stage.name))
        folder.write(resume.state_file(stage), dump_state(reached, folder.metrics_mark()))

    return train(
        model,
        data,
        state,
        Span(stage.end, last.end, keep_best=stage is last),
        Hooks(updated, validate, save),
        config=config.train,
        optim=config.optim,
        seed=config.seed,
        device=materials.engine.device,
    )


def _finish(told: _Told, model: PromptedModel, state: TrainState) -> dict[str, Any]:
    """Evaluate the best prompt and write what a finished run leaves behind."""
    materials, folder, plan = told.materials, told.folder, told.plan
    assert state.best_prompt is not None
    model.learn(state.best_prompt)
    evaluation, tested = materials.evaluate(model), materials.answer_test(model)
    if state.update < plan.updates:
        plan = price_run(materials, materials.schedule.ended_at(state.update), told.keeper.caching)
    states = [resume.read_state(folder, stage) for stage in materials.schedule.stages]
    result = summarise(materials, told.measured, plan, states, evaluation, tested)
    folder.write(PREDICTIONS, predictions(evaluation.answers, materials.task, materials.task.valid))
    if tested:
        folder.write(TEST_PREDICTIONS, predictions(tested, materials.task, materials.task.test))
    folder.write(PROMPT, materials.dump(state.best_prompt, model=materials.backbone.fingerprint))
    folder.write_json(RESULT, result)
    return result
