"""Describes a task's data as the model sees them: examples, counts, lengths in tokens, and how much is cut."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fpt.backbones.backbone import Backbone, open_backbone
from fpt.backbones.location import config_values
from fpt.config.run_config import RunConfig
from fpt.data.encoded import Encoded
from fpt.data.encoding import check_labels, tokenised, tokenizer_notes
from fpt.data.tokens import tokens_of
from fpt.errors import UserError
from fpt.runs.progress import WithBar
from fpt.tasks.labels import COMMA, NONE
from fpt.tasks.task import SENTINEL, Example, Task
from stages import fits

QUANTILES = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "longest": 1.0}


def described(config: RunConfig, task: Task, number: int, with_bar: WithBar) -> dict[str, Any]:
    """The task's splits in numbers, and `number` training examples evenly spread over the split."""
    backbone = open_backbone(config.model, with_weights=False)
    parts = dict(zip(task.parts, tokenised(task, backbone, config.task, with_bar), strict=True))
    train, number = parts["train"], min(number, len(task.train))
    return {
        "task": task.name,
        "origin": task.origin,
        "model": config.model.name,
        "metric": task.metric,
        "baseline": {"name": task.baseline_name, "score": task.majority},
        "labels": list(task.labels),
        "class_weights": dict(task.class_weights),
        "limits": {"source": config.task.source_length, "target": config.task.target_length},
        "notes": [*task.notes, *_notes(config, task, backbone)],
        "skipped": list(task.skipped),
        "splits": [_split(name, examples, parts[name], task, backbone) for name, examples in task.parts.items()],
        "examples": [
            _example(task.train[index], index, train, backbone)
            for index in (position * len(task.train) // number for position in range(number))
        ],
    }


def _notes(config: RunConfig, task: Task, backbone: Backbone) -> tuple[str, ...]:
    """Why training would be refused or useless: the model does not suit the task, or its tokenizer the texts."""
    try:
        tokens = tokens_of(task, backbone, config.task)
        fits.check(config, *config_values(config.model))
        if task.labels:
            check_labels(task, tokens, chosen=tokens.row.reads.chooses(config.task.answer))
    except UserError as error:
        return (str(error),)
    return tokenizer_notes(task, tokens)


def _split(name: str, examples: Sequence[Example], data: Encoded, task: Task, backbone: Backbone) -> dict[str, Any]:
    """A split in numbers; those of labels and targets are None if it has none."""
    assert data.whole is not None
    answered = bool(examples[0].golds)
    golds = [example.golds[0] for example in examples] if answered and task.labels else []
    labels = (*task.labels, NONE) if task.multilabel else task.labels
    counts = Counter(label for gold in golds for label in (gold.split(COMMA) if task.multilabel else [gold]))
    sources, targets = data.num_cut
    sides = ("source", "target") if answered and not labels else ("source",)
    return {
        "name": name,
        "examples": len(examples),
        "labels": {label: counts[label] for label in labels} if answered else None,
        "source_tokens": _quantiles(data.whole[:, 0]),
        "target_tokens": _quantiles(data.whole[:, 1]) if answered else None,
        "longest": {side: examples[int(np.argmax(data.whole[:, place]))].id for place, side in enumerate(sides)},
        "unknown": _unknown(examples, backbone),
        "cut_sources": sources,
        "cut_targets": targets,
        "lost_answers": data.lost_answers,
    }


def _unknown(examples: Sequence[Example], backbone: Backbone) -> dict[str, int]:
    """Counts of the characters in sources and targets that the tokenizer does not know, the most frequent first."""
    tokenizer, counts = backbone.tokenizer, Counter[str]()
    for example in examples:
        counts.update(example.marked("").source)
        counts.update(example.target.removeprefix(SENTINEL))
    characters = [character for character in counts if not character.isspace()]
    ids = tokenizer(characters, add_special_tokens=False)["input_ids"] if characters else []
    unknown = {one for one, own in zip(characters, ids, strict=True) if tokenizer.unk_token_id in own}
    return {character: count for character, count in counts.most_common() if character in unknown}


def _quantiles(lengths: "np.ndarray[Any, np.dtype[np.int32]]") -> dict[str, int]:
    """The QUANTILES of lengths in tokens, before cutting."""
    return {name: int(np.quantile(lengths, share, method="inverted_cdf")) for name, share in QUANTILES.items()}


def _example(example: Example, index: int, data: Encoded, backbone: Backbone) -> dict[str, Any]:
    assert data.whole is not None
    tokens = backbone.tokenizer.convert_ids_to_tokens
    return {
        "id": example.id,
        "source": example.source,
        "source_tokens": tokens(data.sources[index]),
        "cut": int(data.whole[index, 0]) - len(data.sources[index]),
        "target": example.target if backbone.family.row.reads.sentinel else example.target.removeprefix(SENTINEL),
        "target_tokens": tokens(data.targets[index]),
        "golds": list(example.golds),
    }
