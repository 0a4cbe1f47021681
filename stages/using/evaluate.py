"""Scores a learned prompt on a split of a task, in the same way as training does."""

from collections.abc import Callable
from typing import Any

from fpt.config.run_config import RunConfig
from fpt.devices import distributed
from fpt.devices.device import open_device, with_precision
from fpt.devices.engine import Engine
from fpt.runs.progress import Progress
from fpt.tasks.splits import is_drawn, name_of_validation
from fpt.tasks.task import Task
from fpt.training.evaluation import predictions
from stages.inputs import evaluator_of, open_inputs
from stages.partial import opened, prompt_in
from stages.using.learned import LearnedPrompt


def evaluate(
    config: RunConfig, read: Callable[[], Task], split: str | None, prompt: LearnedPrompt, progress: Progress
) -> tuple[dict[str, Any], bytes]:
    """Answer a split with the prompt; returns the scores, if the split has labels, and the lines of predictions.jsonl.

    Every process calls this, and each gets the whole result.
    """
    device = open_device(config.engine)
    with distributed.joined(config.engine, device):
        task = distributed.main_first(read)
        inputs = open_inputs(config, task, progress)
        engine = Engine(with_precision(config.engine, inputs.backbone.sizes.width), device)
        evaluator = evaluator_of(config, inputs, engine, progress)
        data, examples = inputs.valid, task.valid
        if split == "train":
            data, examples = inputs.train, task.train
        elif inputs.test is not None and (split == "test" or not is_drawn(config.task)):
            data, examples = inputs.test, task.test
        backbone, selection = inputs.backbone, prompt.selection(inputs.backbone)
        module = prompt_in(backbone, selection, prompt.config, prompt.tensors)
        with progress.running(), opened(backbone, selection, engine, module) as model:
            answers = evaluator.answers(model, data, split or config.task.valid_split)
    name = split or name_of_validation(config.task)
    # The baseline comes from training examples; without any, the validation file stands in for the training file.
    has_baseline = examples is task.valid and (config.task.valid is None or config.task.train != config.task.valid)
    scores = {
        "task": task.name,
        "origin": task.origin,
        "model": config.model.name,
        "prompt": prompt.name,
        "split": name,
        "examples": len(examples),
        "metric": task.metric,
        "metrics": task.score(answers.read, examples) if examples[0].golds else None,
        "baseline": task.baseline_name if has_baseline else None,
        "majority": task.majority if has_baseline else None,
    }
    return scores, predictions(answers, task, examples)
