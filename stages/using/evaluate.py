"""Score a learned prompt on a split of a task, as training does."""

from dataclasses import dataclass
from typing import Any

from fpt.config.schema import RunConfig
from fpt.devices import distributed
from fpt.devices.device import open_device
from fpt.runs.progress import Progress
from fpt.tasks.task import Task
from fpt.training.evaluation import predictions
from stages import prepare, schedule
from stages.using.learned import LearnedPrompt


@dataclass(frozen=True)
class Scored:
    """What a prompt scores: `about` as JSON, and the predictions' lines."""

    about: dict[str, Any]
    predictions: bytes


def evaluate(config: RunConfig, task: Task, split: str | None, trained: LearnedPrompt, progress: Progress) -> Scored:
    """Generate the split's answers with the prompt, and score them; a test split without labels is not scored.

    Raises:
        UserError: device, weights or prompt cannot be used.
    """
    device = open_device(config.engine)
    with distributed.joined(config.engine, device):
        materials = prepare.gather(config, schedule.of(config), task, progress)
        chosen = trained.selection(materials.backbone)
        with progress.running(), materials.model(chosen, trained.prompt, trained.how) as model:
            data, examples = materials.valid, task.valid
            if split == "train":
                data, examples = materials.train, task.train
            elif materials.test is not None:
                data, examples = materials.test, task.test
            answers = materials.answers(model, data, split or config.task.valid_split)
    metrics = task.score(answers.read, examples) if examples[0].golds else None
    about = {
        "task": task.name,
        "origin": task.origin,
        "model": config.model.name,
        "prompt": trained.name,
        "split": split or config.task.valid_split,
        "examples": len(examples),
        "metric": task.metric,
        "metrics": metrics,
        "baseline": task.baseline_name if examples is task.valid else None,
        "majority": task.majority if examples is task.valid else None,
    }
    return Scored(about, predictions(answers, task, examples))
