"""Score a learned prompt on a split of a task, as training does."""

from dataclasses import dataclass
from typing import Any

from fpt.config.schema import RunConfig
from fpt.devices import distributed
from fpt.devices.device import open_device
from fpt.devices.engine import Engine
from fpt.runs.progress import Progress
from fpt.tasks.task import Task
from fpt.training.evaluation import predictions
from stages.inputs import evaluator_of, open_inputs
from stages.models import Models
from stages.using.learned import LearnedPrompt


@dataclass(frozen=True)
class Scored:
    """What a prompt scores: `about` as JSON, and the predictions' lines."""

    about: dict[str, Any]
    predictions: bytes


def evaluate(config: RunConfig, task: Task, split: str | None, prompt: LearnedPrompt, progress: Progress) -> Scored:
    """Generate the split's answers with the prompt, and score them; a test split without labels is not scored.

    Raises:
        UserError: device, weights or prompt cannot be used.
    """
    with distributed.joined(config.engine, open_device(config.engine)):
        inputs = open_inputs(config, task, progress)
        engine = Engine(config.engine, open_device(config.engine))
        models = Models(inputs.backbone, engine, prompt.config, config.train.activation_checkpointing)
        evaluator = evaluator_of(config, inputs, engine, progress)
        data, examples = inputs.valid, task.valid
        if split == "train":
            data, examples = inputs.train, task.train
        elif inputs.test is not None:
            data, examples = inputs.test, task.test
        with progress.running(), models.open(prompt.selection(inputs.backbone), prompt.tensors) as model:
            answers = evaluator.answers(model, data, split or config.task.valid_split)
    metrics = task.score(answers.read, examples) if examples[0].golds else None
    about = {
        "task": task.name,
        "origin": task.origin,
        "model": config.model.name,
        "prompt": prompt.name,
        "split": split or config.task.valid_split,
        "examples": len(examples),
        "metric": task.metric,
        "metrics": metrics,
        "baseline": task.baseline_name if examples is task.valid else None,
        "majority": task.majority if examples is task.valid else None,
    }
    return Scored(about, predictions(answers, task, examples))
