"""Finishes a run: scores its best prompt and writes the prompt, its answers, and result.json."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fpt import __version__
from fpt.prompts.kinds import TENSOR
from fpt.prompts.nearest import nearest
from fpt.prompts.prompted import PromptedModel
from fpt.runs.metrics import lost_at
from fpt.runs.run import PREDICTIONS, PROMPT, RESULT, TEST_PREDICTIONS, UPDATES
from fpt.runs.shared_folder import SharedFolder
from fpt.training.checkpoint import TrainState
from fpt.training.evaluation import Evaluation, predictions
from stages.measured import Measured
from stages.planning.decide import StagePlan
from stages.schedule import Stage
from stages.setup import Setup

LIBRARIES = ("torch", "transformers", "safetensors", "omegaconf", "hydra-core")
COSTS = ("flops", "flops_importance", "flops_pt", "flops_ratio", "vectors_pt")


def finish(
    setup: Setup, measured: Measured, model: PromptedModel, ends: Sequence[TrainState], best: Evaluation | None
) -> dict[str, Any]:
    """Score the best prompt on the last stage's model and write the run's results; returns result.json.

    `ends` are the states in which the stages ended, `best` the evaluation by which the best prompt was chosen, if this
    process made it.
    """
    state = ends[-1]
    assert state.best_prompt is not None
    config, inputs, folder, evaluator = setup.config, setup.inputs, setup.folder, setup.evaluator
    task, plan, last = inputs.task, setup.plan, state.score
    if evaluator.some is not None:  # validations in training used a sample of the examples
        model.prompt.learn(state.kept_prompt)
        ended = evaluator.validate(model)
        last, best = ended.score, ended if state.best_update == state.update else None
    model.prompt.learn(state.best_prompt)
    evaluation = best or evaluator.validate(model)
    tested = evaluator.answers(model, inputs.test, "test") if inputs.test else None
    stages = setup.schedule.stages
    lines = folder.metrics()
    lost = [lost_at(stage.index, lines) for stage in stages]
    vectors = state.best_prompt.get(TENSOR)
    result = {
        "task": task.name,
        "model": config.model.name,
        "schedule": config.schedule.name,
        "seed": config.seed,
        "dtype": config.engine.dtype,
        "quantize": config.engine.quantize,
        # The best prompt was chosen on the split that it is scored on; the last one was not chosen by any score.
        "metric": {"name": task.metric, "value": evaluation.score, "last": last},
        "metrics": evaluation.metrics,
        "test": tested
        and {"split": task.test_split, "examples": len(task.test), "metrics": task.score_test(tested.read)},
        "baseline": task.baseline_name,
        "majority": task.majority,
        "untrained": measured.untrained,
        "max_new_tokens": evaluator.max_new_tokens,
        "trainable_parameters": plan.trainable_parameters,
        "updates": plan.updates,
        "ended": _ended(setup, state),
        "best_update": state.best_update,
        **{name: getattr(plan, name) for name in COSTS},
        "seconds": measured.seconds + sum(end.seconds for end in ends),
        "seconds_importance": measured.seconds,
        "data": {"origin": task.origin, "train": len(inputs.train), "validation": len(inputs.valid)},
        "stages": [_stage(folder, *rows) for rows in zip(stages, plan.stages, ends, lost, strict=True)],
        "learned": None if vectors is None else nearest(vectors.cpu(), inputs.backbone),
        "versions": {
            "fpt": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
    }
    folder.write(PREDICTIONS, predictions(evaluation.answers, task, task.valid))
    if tested:
        folder.write(TEST_PREDICTIONS, predictions(tested, task, task.test))
    folder.write(PROMPT, setup.start.dump(state.best_prompt, model=inputs.backbone.fingerprint))
    folder.write_json(RESULT, result)
    return result


def _ended(setup: Setup, state: TrainState) -> str:
    """What ended the run: its updates, patience, or time, if that ended any of its stages."""
    if state.update == setup.planned.updates:
        return "updates"
    patience = setup.config.train.patience
    return "time" if patience is None or state.stale < patience else "patience"


def _stage(
    folder: SharedFolder, stage: Stage, plan: StagePlan, end: TrainState, lost: dict[str, float] | None
) -> dict[str, Any]:
    """A stage's row in result.json: sizes, costs, its last score on its own partial PLM, what its expansion lost."""
    done = {"updates": plan.updates, "flops": plan.flops, "seconds": end.seconds, "score": end.score, "lost": lost}
    return {**stage.sizes, **done, **folder.read_json(f"{stage.folder}/{UPDATES}")}
