"""Opens and checks a run's model, task and token ids, and records their hashes so that a resumed run can compare."""

import hashlib
import json
from dataclasses import dataclass, replace

import numpy as np

from fpt.backbones.backbone import Backbone, open_backbone
from fpt.backbones.location import read_values
from fpt.config.run_config import RunConfig
from fpt.data.encoded import Encoded
from fpt.data.encoding import check_labels, lost_targets, tokenised
from fpt.data.tokens import tokens_of
from fpt.devices import distributed
from fpt.devices.engine import Engine, named
from fpt.errors import UserError
from fpt.random_streams import drawn
from fpt.runs.progress import Progress
from fpt.runs.run import INPUTS
from fpt.runs.shared_folder import SharedFolder
from fpt.tasks.task import Task, TaskRules
from fpt.training.evaluation import Choice, Evaluator, longest_answer
from stages import resolve


@dataclass(frozen=True)
class Inputs:
    """The backbone, the task, and the task's splits as token ids; no model is built yet."""

    backbone: Backbone
    task: Task
    train: Encoded
    valid: Encoded
    test: Encoded | None

    @property
    def longest(self) -> tuple[int, int]:
        """The longest source and the longest target to train on, in tokens."""
        sources, targets = zip(*self.train.lengths, strict=True)
        return max(sources), max(targets)

    def to_score(self, config: RunConfig) -> Encoded:
        """A random sample of the training examples, on which neurons are scored; all of them if they are few."""
        return self.train.taken(drawn(len(self.train), config.schedule.importance_examples, config.seed, "importance"))


def open_inputs(config: RunConfig, task: Task, progress: Progress) -> Inputs:
    """Open the model and tokenise the data."""
    backbone = distributed.main_first(lambda: open_backbone(config.model))
    values = read_values(backbone.folder), str(backbone.folder)
    resolve.check_positions(config, *values)
    tokens = tokens_of(task, backbone, config.task)
    with progress.running():
        splits = tokenised(task, tokens, config.task, progress.with_bar)
    _check_vocabulary(backbone, splits)
    choice_for(config, task, backbone)
    if task.labels and any(data.num_cut[1] for data in splits):
        raise UserError(
            f"task.target_length={config.task.target_length}: cuts the labels of {task.name}"
            f" ({', '.join(task.labels)}), and a label that is cut is never right. Give a larger one"
        )
    for note in (*task.notes, *lost_targets(task, tokens)):
        progress.say(note)
    for split, data in zip(("training", "validation", "test"), splits, strict=False):
        sources, targets = data.num_cut
        if sources or targets:
            progress.say(
                f"{split}: {sources:,} of {len(data):,} sources cut to {config.task.source_length} tokens,"
                f" {targets:,} targets to {config.task.target_length}"
            )
    if named(config.engine.device).type == "cuda":
        most = resolve.most_padded(*values)
        splits = tuple(data.for_card(config.prompt.length, most) for data in splits)
    train, valid, *tests = splits
    if task.class_weights:
        weights = [task.class_weights[example.golds[0]] for example in task.train]
        train = replace(train, weights=np.array(weights, np.float32))
    return Inputs(backbone, task, train, valid, tests[0] if tests else None)


def _check_vocabulary(backbone: Backbone, splits: tuple[Encoded, ...]) -> None:
    largest = max(int(rows.ids.max()) for data in splits for rows in (data.sources, data.targets))
    if largest >= backbone.sizes.vocabulary:
        raise UserError(
            f"{backbone.folder}: the tokenizer makes token {largest}, but config.json says"
            f" vocab_size={backbone.sizes.vocabulary}; they do not belong together"
        )


def evaluator_of(config: RunConfig, inputs: Inputs, engine: Engine, progress: Progress) -> Evaluator:
    """The evaluator that scores a model and its prompt on the task."""
    longest = config.task.max_new_tokens or longest_answer(inputs.task, inputs.train, config.task.target_length)
    tokenizer, batch_size = inputs.backbone.tokenizer, config.train.eval_batch
    count, some = config.train.eval_examples, None
    if count is not None and count < len(inputs.valid):
        some = drawn(len(inputs.valid), count, config.seed, "looks")
    choice = choice_for(config, inputs.task, inputs.backbone)
    return Evaluator(inputs.task, inputs.valid, tokenizer, engine, progress.with_bar, batch_size, longest, some, choice)


def choice_for(config: RunConfig, rules: TaskRules, backbone: Backbone) -> Choice | None:
    """The labels to choose between if the model scores labels (a masked model always does); None if it generates."""
    if not rules.labels:
        return None
    tokens, answer = tokens_of(rules, backbone, config.task), config.task.answer
    chosen = tokens.row.reads.chooses(answer)
    rows = check_labels(rules, tokens, chosen=chosen)
    return Choice(rules.labels, rows, answer) if chosen else None


def check_unchanged(inputs: Inputs, start: bytes, folder: SharedFolder) -> None:
    """Record the hashes of a new run's inputs, or compare them with those that a resumed run began with."""
    digests = {
        "model": inputs.backbone.fingerprint,
        "tokenizer": inputs.backbone.vocabulary,
        "data": _digest(*filter(None, (inputs.train, inputs.valid, inputs.test))),
        "prompt's start": hashlib.sha256(start).hexdigest(),
    }
    if len(set(distributed.all_gather(json.dumps(digests)))) > 1:
        raise UserError("the processes read different models or data; give all machines the same files")
    if INPUTS not in folder:
        folder.write_json(INPUTS, digests)
    began = folder.read_json(INPUTS)
    for name, value in digests.items():
        if began.get(name, value) != value:  # earlier versions did not record the tokenizer
            raise UserError(
                f"run.dir={folder.path}: the {name} has changed since this run began."
                " Give another run.dir, or start over with resume=never"
            )


def _digest(*splits: Encoded) -> str:
    digest = hashlib.sha256()
    for data in splits:
        for rows in (data.sources, data.targets):
            digest.update(rows.ids.data)
            digest.update(rows.starts.data)
    return digest.hexdigest()
