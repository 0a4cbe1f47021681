"""result.json: what a finished run did, what it cost, and what it scored."""

import platform
from importlib.metadata import version
from typing import Any

from fpt import __version__
from fpt.training.checkpoint import TrainState
from fpt.training.evaluation import Answers, Evaluation
from stages.planning.flops import Plan
from stages.prepare import Materials, Measured

LIBRARIES = ("torch", "transformers", "safetensors", "omegaconf", "hydra-core")


def summarise(
    materials: Materials,
    measured: Measured,
    plan: Plan,
    states: list[TrainState],
    evaluation: Evaluation,
    tested: Answers | None,
) -> dict[str, Any]:
    """The values of result.json; scores between 0 and 100, FLOPs and seconds in all.

    A stage's score is its last, on its own partial PLM; the run's value is the best prompt's, on the last model.
    """
    config, task = materials.config, materials.task
    test = tested and {
        "split": task.test_split,
        "examples": len(task.test),
        "metrics": task.score_test(tested.read),
    }
    stages = [
        {**row.sizes, "updates": row.updates, "flops": row.flops, "seconds": state.seconds, "score": state.score}
        for row, state in zip(plan.stages, states, strict=True)
    ]
    return {
        "task": task.name,
        "model": config.model.name,
        "schedule": config.schedule.name,
        "seed": config.seed,
        "metric": {"name": task.metric, "value": evaluation.metrics[task.metric]},
        "metrics": evaluation.metrics,
        "test": test,
        "baseline": task.baseline_name,
        "majority": task.majority,
        "untrained": measured.untrained,
        "max_new_tokens": materials.max_new_tokens,
        "trainable_parameters": plan.trainable_parameters,
        "updates": plan.updates,
        "best_update": states[-1].best_update,
        "flops": plan.flops,
        "flops_importance": plan.flops_importance,
        "flops_pt": plan.flops_pt,
        "flops_ratio": plan.flops_ratio,
        "seconds": measured.seconds + sum(state.seconds for state in states),
        "seconds_importance": measured.seconds,
        "data": {"origin": task.origin, "train": len(materials.train), "validation": len(materials.valid)},
        "stages": stages,
        "versions": {
            "fpt": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
    }
