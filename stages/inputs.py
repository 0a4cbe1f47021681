"""Opens and checks a run's model, task and token ids, and records their hashes so that a resumed run can compare."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fpt.backbones.backbone import Backbone, open_backbone
from fpt.backbones.location import read_values
from fpt.config.mixture import tasks_of
from fpt.config.run_config import RunConfig
from fpt.data.batches import in_epoch
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
from fpt.training.evaluation import Choice, Evaluator, MixedEvaluator, longest_answer
from stages import resolve


@dataclass(frozen=True)
class Inputs:
    """The backbone, the task, and the task's splits as token ids; no model is built yet."""

    backbone: Backbone
    task: Task
    train: Encoded
    valid: Encoded
    test: Encoded | None
    parts: Mapping[str, "Inputs"] = field(default_factory=dict)  # of each task of a mixture

    @property
    def longest(self) -> tuple[int, int]:
        """The longest source and the longest target to train on, in tokens."""
        sources, targets = zip(*self.train.lengths, strict=True)
        return max(sources), max(targets)

    def to_score(self, config: RunConfig) -> Encoded:
        """A random sample of the training examples, on which neurons are scored; all of them if they are few."""
        count = config.num_scored
        if self.train.mixed:  # in the shares of training
            return self.train.taken(in_epoch(self.train, config.seed, 0)[:count].tolist())
        return self.train.taken(drawn(len(self.train), count, config.seed, "importance"))


def open_inputs(config: RunConfig, task: Task, progress: Progress) -> Inputs:
    """Open the model and tokenise the data."""
    backbone = distributed.main_first(lambda: open_backbone(config.model))
    resolve.check_positions(config, read_values(backbone.folder), str(backbone.folder))
    if not task.tasks:
        return _inputs(config, task, backbone, progress)
    parts = {
        name: _inputs(own, task.tasks[name], backbone, progress, f"{name}: ") for name, own in tasks_of(config).items()
    }
    train = Encoded.joined([part.train for part in parts.values()], task.counts)
    valid = Encoded.joined([part.valid for part in parts.values()], [len(part.valid) for part in parts.values()])
    train, valid = _padded_for(config, backbone, [train, valid])
    return Inputs(backbone, task, train, valid, None, parts)


def _inputs(config: RunConfig, task: Task, backbone: Backbone, progress: Progress, title: str = "") -> Inputs:
    """The inputs of one task, which messages name if there are several."""
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
        progress.say(f"{title}{note}")
    for split, data in zip(("training", "validation", "test"), splits, strict=False):
        sources, targets = data.num_cut
        if sources or targets:
            progress.say(
                f"{title}{split}: {sources:,} of {len(data):,} sources cut to {config.task.source_length} tokens,"
                f" {targets:,} targets to {config.task.target_length}"
            )
    train, valid, *tests = _padded_for(config, backbone, splits)
    if task.class_weights:
        weights = [task.class_weights[example.golds[0]] for example in task.train]
        train = replace(train, weights=np.array(weights, np.float32))
    return Inputs(backbone, task, train, valid, tests[0] if tests else None)


def _padded_for(config: RunConfig, backbone: Backbone, splits: Sequence[Encoded]) -> list[Encoded]:
    """The splits, padded in batches as suits the run's device."""
    if named(config.engine.device).type != "cuda":
        return list(splits)
    most = resolve.most_padded(read_values(backbone.folder), str(backbone.folder))
    return [data.for_card(config.prompt.length, most) for data in splits]


def _check_vocabulary(backbone: Backbone, splits: tuple[Encoded, ...]) -> None:
    largest = max(int(rows.ids.max()) for data in splits for rows in (data.sources, data.targets))
    if largest >= backbone.sizes.vocabulary:
        raise UserError(
            f"{backbone.folder}: the tokenizer makes token {largest}, but config.json says"
            f" vocab_size={backbone.sizes.vocabulary}; they do not belong together"
        )


def evaluator_of(config: RunConfig, inputs: Inputs, engine: Engine, progress: Progress) -> Evaluator:
    """The evaluator that scores a model and its prompt on the task, or on each task of a mixture."""
    tokenizer, batch_size = inputs.backbone.tokenizer, config.train.eval_batch
    count, some = config.train.eval_examples, None
    if count is not None and count < len(inputs.valid):
        some = drawn(len(inputs.valid), count, config.seed, "looks")
    own = inputs.task, inputs.valid, tokenizer, engine, progress.with_bar, batch_size
    if inputs.parts:
        parts = [evaluator_of(one, inputs.parts[name], engine, progress) for name, one in tasks_of(config).items()]
        return MixedEvaluator(*own, max(part.max_new_tokens for part in parts), some, parts=parts)
    longest = config.task.max_new_tokens or longest_answer(inputs.task, inputs.train, config.task.target_length)
    return Evaluator(*own, longest, some, choice_for(config, inputs.task, inputs.backbone))


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
