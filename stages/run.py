"""The story of a run: one prompt, carried through growing partial PLMs to the full model."""

import json
from typing import Any

import torch
from torch import Tensor

from fpt.backbones.family import Selection
from fpt.checkpoint import RunFolder, TrainState, dump_prompt, dump_state
from fpt.config import RunConfig
from fpt.engine import dtype_of
from fpt.evaluation import predictions
from fpt.loop import Hooks, Span, train
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.soft import SoftPrompt
from fpt.tasks.task import Task
from fpt.tracking import Tracker
from stages import partial, prepare, recycle, resume, selection
from stages.plan import Plan
from stages.prepare import Beginning, Materials
from stages.result import summarise
from stages.schedule import Schedule, Stage


def run(config: RunConfig, schedule: Schedule, task: Task, tracker: Tracker) -> dict[str, Any]:
    """Train the prompt through the schedule's stages, going on where an earlier run stopped; returns result.json.

    Raises:
        UserError: the device, the weights, the prompt's start or the run folder cannot be used.
    """
    materials = prepare.gather(config, schedule, task, tracker)
    folder, state = resume.open_run(config, schedule)
    try:
        if resume.RESULT in folder:
            tracker.say(f"{folder.path}: this run is finished; resume=never starts over")
            return dict(json.loads(folder.read(resume.RESULT)))
        with tracker.running():
            return _run(materials, folder, state)
    finally:
        folder.close()


def _run(materials: Materials, folder: RunFolder, state: TrainState | None) -> dict[str, Any]:
    prompt = materials.initial_prompt()
    beginning = prepare.begin(folder, materials, prompt)
    plan = prepare.plan(materials)
    folder.write_json(resume.PLAN, plan.to_json())
    state = state or TrainState(update=0, prompt=prompt)
    materials.tracker.expect(plan.flops - plan.flops_importance, done=plan.flops_before(state.update))
    model = None
    for stage in materials.schedule.stages:
        if state.update >= stage.end or (state.done and state.update > stage.first_update):
            continue
        model = None  # the smaller model goes before the larger one is built
        model = _open_stage(materials, folder, stage, beginning.scores, state.prompt)
        if state.update == stage.first_update:
            state = recycle.carry(state, materials.config.recycle)
        state = _train_stage(materials, folder, stage, model, plan, state)
    last = materials.schedule.stages[-1]
    model = model or _open_stage(materials, folder, last, beginning.scores, state.prompt)
    return _finish(materials, folder, model, beginning, plan, state)


def _open_stage(
    materials: Materials, folder: RunFolder, stage: Stage, scores: dict[str, Tensor], prompt: Tensor
) -> PromptedModel:
    """The stage's partial PLM with the prompt before it."""
    chosen = _selection(materials, folder, stage, scores)
    body = partial.build(materials.backbone, chosen, dtype=dtype_of(materials.config.engine), device=materials.device)
    return PromptedModel(body, SoftPrompt(prompt).to(materials.device))


def _selection(materials: Materials, folder: RunFolder, stage: Stage, scores: dict[str, Tensor]) -> Selection:
    """What the stage keeps: chosen once, then read from the run folder."""
    name = f"stages/{stage.name}/selection.safetensors"
    if name not in folder:
        chosen = selection.choose(stage.shape, materials.backbone.shape, scores)
        folder.write(name, selection.dump(chosen))
        shape = {"encoder_blocks": chosen.encoder.blocks, "decoder_blocks": chosen.decoder.blocks}
        span = {"first_update": stage.first_update, "updates": stage.updates}
        folder.write_json(f"stages/{stage.name}/stage.json", {"index": stage.index, **stage.sizes, **shape, **span})
    return selection.load(folder.read(name))


def _train_stage(
    materials: Materials, folder: RunFolder, stage: Stage, model: PromptedModel, plan: Plan, state: TrainState
) -> TrainState:
    """Train the prompt on one stage's model, from wherever the state is."""
    config, tracker, metric = materials.config, materials.tracker, materials.task.metric
    last = materials.schedule.stages[-1]

    def where(update: int) -> str:
        return f"stage {stage.index}/{last.index}  update {update}/{last.end}"

    def updated(update: int, loss: float) -> None:
        folder.log({"update": update, "stage": stage.index, "loss": loss, "lr": config.optim.lr})
        tracker.updated(where(update), loss=loss, flops=plan.stages[stage.index - 1].flops_per_update)

    def validate(update: int, loss: float) -> float:
        metrics = materials.evaluate(model).metrics
        folder.log({"update": update, "stage": stage.index, "split": "validation", **metrics})
        tracker.scored(where(update), loss=loss, score=metrics[metric])
        return metrics[metric]

    def save(reached: TrainState) -> None:
        folder.write(resume.state_file(stage), dump_state(reached, folder.metrics_mark()))

    state = train(
        model,
        materials.train,
        state,
        Span(stage.end, keep_best=stage is last),
        Hooks(updated, validate, save),
        train=config.train,
        optim=config.optim,
        seed=config.seed,
        device=materials.device,
    )
    folder.write(f"stages/{stage.name}/prompt.safetensors", dump_prompt(state.prompt, stage=stage.name))
    return state


def _finish(
    materials: Materials,
    folder: RunFolder,
    model: PromptedModel,
    beginning: Beginning,
    plan: Plan,
    state: TrainState,
) -> dict[str, Any]:
    """Evaluate the best prompt and write what a finished run leaves behind."""
    assert state.best_prompt is not None
    with torch.no_grad():
        model.prompt.vectors.copy_(state.best_prompt)
    evaluation = materials.evaluate(model)
    if state.update < plan.updates:
        plan = prepare.plan(materials, prepare.ended_at(materials.schedule, state.update))
    states = [resume.read_state(folder, stage) for stage in materials.schedule.stages]
    result = summarise(materials, beginning, plan, states, evaluation)
    folder.write(resume.PREDICTIONS, predictions(evaluation, materials.task.valid))
    folder.write(resume.PROMPT, dump_prompt(state.best_prompt, model=materials.backbone.fingerprint))
    folder.write_json(resume.RESULT, result)
    return result
