"""What a run needs before its first update: inputs opened and checked, neurons scored."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from fpt.backbones.backbone import Backbone, open_backbone
from fpt.backbones.family import STACKS
from fpt.cache import kept
from fpt.config import RunConfig
from fpt.data import Encoded
from fpt.engine import dtype_of, open_device
from fpt.errors import UserError
from fpt.evaluation import Answers, Evaluation, generate, longest_answer
from fpt.folder import RunFolder
from fpt.prompts import soft
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.soft import SoftPrompt
from fpt.tasks.task import Task
from fpt.tokens import tokenised
from fpt.tracking import Stopwatch, Tracker
from stages import importance, partial, resume, selection
from stages.schedule import Schedule

INPUTS = "inputs.json"
MEASURED = "measured.json"
SCORES = "scores.safetensors"


@dataclass(frozen=True)
class Materials:
    """Everything opened and checked; no model built yet."""

    config: RunConfig
    backbone: Backbone
    schedule: Schedule
    task: Task
    train: Encoded
    valid: Encoded
    test: Encoded | None
    device: torch.device
    tracker: Tracker

    def initial_prompt(self) -> Tensor:
        """Where the prompt starts, [P, D]; the same under every schedule."""
        config = self.config
        return soft.initial(config.prompt, self.backbone, labels=self.task.labels, seed=config.seed)

    def full_model(self, prompt: Tensor) -> PromptedModel:
        """The whole backbone with a prompt."""
        body = partial.build(
            self.backbone,
            selection.everything(self.backbone.shape),
            dtype=dtype_of(self.config.engine),
            device=self.device,
        )
        return PromptedModel(body, SoftPrompt(prompt).to(self.device))

    def evaluate(self, model: PromptedModel) -> Evaluation:
        """The prompt's scores and answers on the validation examples."""
        answers = self._answers(model, self.valid, "validation")
        return Evaluation(self.task.score(answers.read, self.task.valid), answers)

    def answer_test(self, model: PromptedModel) -> Answers | None:
        """The prompt's answers to the test split, if one was asked for."""
        return self._answers(model, self.test, "test") if self.test else None

    def _answers(self, model: PromptedModel, data: Encoded, what: str) -> Answers:
        config, tokenizer = self.config, self.backbone.tokenizer
        return generate(
            model,
            self.task,
            data,
            tokenizer,
            batch_size=config.train.eval_batch,
            max_new_tokens=longest_answer(self.task, self.train, config.task.target_length),
            device=self.device,
            watch=self.tracker.watch,
            what=what,
        )


@dataclass(frozen=True)
class Measured:
    """What is measured once, before the first update.

    Attributes:
        scores: importance [L, F] of each stack whose width is reduced.
        untrained: the initial prompt's score on the full model, where it was asked for.
        seconds: what scoring the neurons took.
    """

    scores: dict[str, Tensor]
    untrained: float | None
    seconds: float


def gather(config: RunConfig, schedule: Schedule, task: Task, tracker: Tracker) -> Materials:
    """Open the model and tokenise the data.

    Raises:
        UserError: the device, the model or its tokenizer cannot be used.
    """
    device = open_device(config.engine)
    backbone = open_backbone(config.model)
    with tracker.running():
        parts = tokenised(task, backbone, config.task, Path(config.cache_dir).expanduser(), tracker.watch)
    largest = max(int(rows.ids.max()) for data in parts for rows in (data.sources, data.targets))
    if largest >= backbone.config.vocab_size:
        raise UserError(
            f"{backbone.folder}: the tokenizer makes token {largest}, but config.json says"
            f" vocab_size={backbone.config.vocab_size}; they do not belong together"
        )
    if task.labels and any(data.num_cut[1] for data in parts):
        raise UserError(
            f"task.target_length={config.task.target_length}: cuts the labels of {task.name}"
            f" ({', '.join(task.labels)}), and a label that is cut is never right. Give a larger one"
        )
    for note in task.notes:
        tracker.say(note)
    for split, data in zip(("training", "validation", "test"), parts, strict=False):
        sources, targets = data.num_cut
        if sources or targets:
            lost = f" ({data.lost_answers:,} answers lost by it)" if data.lost_answers else ""
            tracker.say(
                f"{split}: {sources:,} of {len(data):,} sources{lost} cut to {config.task.source_length} tokens,"
                f" {targets:,} targets to {config.task.target_length}"
            )
    if schedule.updates != config.train.updates:
        tracker.say(
            f"train.updates={config.train.updates} is set aside: the stages' own updates add up to {schedule.updates}"
        )
    train, valid, *tests = parts
    test = tests[0] if tests else None
    return Materials(config, backbone, schedule, task, train, valid, test, device, tracker)


def check_inputs(folder: RunFolder, materials: Materials, prompt: Tensor) -> None:
    """Record what the run begins with, or compare it with what it began with.

    Raises:
        UserError: weights, data, configuration or the prompt's start are not those the run began with.
    """
    inputs = {
        "model": materials.backbone.fingerprint,
        "data": _digest(*filter(None, (materials.train, materials.valid, materials.test))),
        "prompt's start": hashlib.sha256(prompt.numpy().tobytes()).hexdigest(),
        "configuration": hashlib.sha256(json.dumps(resume.fixed(materials.config)).encode()).hexdigest(),
    }
    threads = torch.get_num_threads()
    if INPUTS not in folder:
        folder.write_json(INPUTS, {**inputs, "threads": threads})
        return
    began = json.loads(folder.read(INPUTS))
    for name, value in inputs.items():
        if began[name] != value:
            raise UserError(
                f"run.dir={folder.path}: the {name} has changed since this run began."
                " Give another run.dir, or start over with resume=never"
            )
    if began["threads"] != threads:
        materials.tracker.say(
            f"this run began with {began['threads']} threads and goes on with {threads}:"
            " its prompt may differ in the last bits from an uninterrupted run's"
        )


def measure(folder: RunFolder, materials: Materials, prompt: Tensor) -> Measured:
    """Score the neurons, and the untrained prompt if asked for; read from the run folder if they are there."""
    if MEASURED in folder:
        values = json.loads(folder.read(MEASURED))
        scores = load(folder.read(SCORES)) if SCORES in folder else {}
        if sorted(scores) == values["scored"]:
            return Measured(scores, values["untrained"], values["seconds"])
    watch = Stopwatch()
    scores = _scores(materials, prompt)
    seconds = watch.seconds
    untrained = None
    if materials.config.train.score_untrained:
        untrained = materials.evaluate(materials.full_model(prompt)).metrics[materials.task.metric]
    if scores:
        folder.write(SCORES, save(scores))
    folder.write_json(MEASURED, {"scored": sorted(scores), "untrained": untrained, "seconds": seconds})
    return Measured(scores, untrained, seconds)


def _scores(materials: Materials, prompt: Tensor) -> dict[str, Tensor]:
    config = materials.config
    reduced = [name for name in STACKS if materials.schedule.reduces_width()[name]]
    if not reduced:
        return {}
    sample = importance_sample(materials)
    key = importance.key(
        materials.backbone.fingerprint,
        dtype=config.engine.dtype,
        device=materials.device.type,
        batch_size=config.train.eval_batch,
        task=config.task.name,
        prompt=prompt,
        examples=sample,
    )

    def compute() -> dict[str, Tensor]:
        return importance.measure(
            materials.full_model(prompt),
            sample,
            batch_size=config.train.eval_batch,
            device=materials.device,
            watch=materials.tracker.watch,
        )

    found = kept(Path(config.cache_dir).expanduser(), "importance", key, compute)
    return {name: found[name] for name in reduced}


def importance_sample(materials: Materials) -> Encoded:
    """The training examples that score the neurons."""
    config = materials.config
    return importance.sample(materials.train, config.schedule.importance_examples, config.seed)


def _digest(*parts: Encoded) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for rows in (part.sources, part.targets):
            digest.update(rows.ids.data)
            digest.update(rows.starts.data)
    return digest.hexdigest()
