"""What a finished run leaves behind: its best prompt, its answers, and result.json."""

import platform
from importlib.metadata import version
from typing import Any

from fpt import __version__
from fpt.prompts.prompted import PromptedModel
from fpt.runs.records import RESULT
from fpt.runs.run import PREDICTIONS, PROMPT, TEST_PREDICTIONS, UPDATES
from fpt.runs.shared_folder import SharedFolder
from fpt.tasks.task import Task
from fpt.training.checkpoint import TrainState
from fpt.training.evaluation import Answers, Evaluation, predictions
from stages.measured import Measured
from stages.planning.decide import ended_at
from stages.planning.plan import Plan, StagePlan
from stages.resume import read_state
from stages.schedule import Stage
from stages.setup import Setup

LIBRARIES = ("torch", "transformers", "safetensors", "omegaconf", "hydra-core")


def finish(setup: Setup, measured: Measured, model: PromptedModel, state: TrainState) -> dict[str, Any]:
    """Score the best prompt on the last stage's model and write all; returns result.json."""
    assert state.best_prompt is not None
    config, inputs, schedule, folder = setup.config, setup.inputs, setup.schedule, setup.folder
    evaluator, last = setup.evaluator, state.score
    if evaluator.some is not None:  # training has looked at some examples alone
        model.learn(state.kept_prompt)
        last = evaluator.validate(model).score
    model.learn(state.best_prompt)
    task, plan = inputs.task, setup.plan
    evaluation = evaluator.validate(model)
    tested = evaluator.answers(model, inputs.test, "test") if inputs.test else None
    if state.update < plan.updates:  # it ran out of patience
        plan = ended_at(plan, config, schedule, inputs, state.update)
    ends = [read_state(folder, stage) for stage in schedule.stages]
    result = {
        "task": task.name,
        "model": config.model.name,
        "schedule": config.schedule.name,
        "seed": config.seed,
        "dtype": config.engine.dtype,
        "quantize": config.engine.quantize,
        **_scores(task, evaluation, tested, last, measured.untrained),
        "max_new_tokens": evaluator.max_new_tokens,
        **_cost(plan, measured, ends),
        "data": {"origin": task.origin, "train": len(inputs.train), "validation": len(inputs.valid)},
        "stages": [_stage(folder, *rows) for rows in zip(schedule.stages, plan.stages, ends, strict=True)],
        "versions": _versions(),
    }
    folder.write(PREDICTIONS, predictions(evaluation.answers, task, task.valid))
    if tested:
        folder.write(TEST_PREDICTIONS, predictions(tested, task, task.test))
    folder.write(PROMPT, setup.start.dump(state.best_prompt, model=inputs.backbone.fingerprint))
    folder.write_json(RESULT, result)
    return result


def _stage(folder: SharedFolder, stage: Stage, row: StagePlan, end: TrainState) -> dict[str, Any]:
    """A stage's score is its last, on its own partial PLM."""
    done = {"updates": row.updates, "flops": row.flops, "seconds": end.seconds, "score": end.score}
    name = f"stages/{stage.name}/{UPDATES}"  # not there where the stage was trained by an fpt that did not measure
    return {**stage.sizes, **done, **(folder.read_json(name) if name in folder else {})}


def _versions() -> dict[str, str]:
    return {"fpt": __version__, "python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def _scores(
    task: Task, evaluation: Evaluation, tested: Answers | None, last: float | None, untrained: float | None
) -> dict[str, Any]:
    """Scores between 0 and 100, of the best prompt on the last model, beside what needs no training.

    The best prompt is chosen on the split that it is scored on; the last one is not chosen at all.
    """
    test = tested and {
        "split": task.test_split,
        "examples": len(task.test),
        "metrics": task.score_test(tested.read),
    }
    return {
        "metric": {"name": task.metric, "value": evaluation.score, "last": last},
        "metrics": evaluation.metrics,
        "test": test,
        "baseline": task.baseline_name,
        "majority": task.majority,
        "untrained": untrained,
    }


def _cost(plan: Plan, measured: Measured, ends: list[TrainState]) -> dict[str, Any]:
    """Updates, FLOPs and seconds in all."""
    return {
        "trainable_parameters": plan.trainable_parameters,
        "updates": plan.updates,
        "best_update": ends[-1].best_update,
        "flops": plan.flops,
        "flops_importance": plan.flops_importance,
        "flops_pt": plan.flops_pt,
        "flops_ratio": plan.flops_ratio,
        "vectors_pt": plan.vectors_pt,
        "seconds": measured.seconds + sum(end.seconds for end in ends),
        "seconds_importance": measured.seconds,
    }
