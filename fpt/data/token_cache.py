"""Caches tokenised examples for later runs, keyed by a hash of the texts, the tokenizer and the limits."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import __version__ as tokenizers_version
from torch import Tensor
from transformers import __version__ as transformers_version

from fpt.backbones.backbone import Backbone
from fpt.config.schema import TaskConfig
from fpt.data.encoded import Encoded
from fpt.data.encoding import Tokens, encode, templates_of
from fpt.data.rows import Rows
from fpt.runs.progress import WithBar
from fpt.runs.tensor_cache import find_or_make
from fpt.tasks.task import Example, Task

PART = 10_000  # so many examples are hashed at once
MADE_BY = 4  # to be raised whenever the same texts give other tokens


def tokenised(
    task: Task, backbone: Backbone, config: TaskConfig, cache: Path, with_bar: WithBar
) -> tuple[Encoded, ...]:
    """The task's splits as token ids (training, validation, and the test split if any), from the cache if possible."""
    tokens = Tokens(backbone.tokenizer, backbone.family.row, templates_of(task, config))
    settings = [backbone.vocabulary, config.source_length, config.target_length, not task.labels, tokens.templates]
    settings += [] if tokens.row.reads.sentinel else [tokens.row.reads.name, tokens.row.reads.cue]
    make = partial(
        encode,
        tokens=tokens,
        source_length=config.source_length,
        target_length=config.target_length,
        find_answers=not task.labels,
        with_bar=with_bar,
    )

    def part(examples: Sequence[Example]) -> Encoded:
        kept = find_or_make(cache, "tokens", _key(examples, settings), lambda: _tensors(make(examples)))
        sources, targets = (
            Rows(kept[f"{side}.ids"].numpy(), kept[f"{side}.starts"].numpy()) for side in ("sources", "targets")
        )
        lost_answers, pad = kept["lost answers, pad"].tolist()
        return Encoded(sources, targets, kept["whole"].numpy(), lost_answers, pad=pad, blank=tokens.blank)

    return tuple(map(part, task.parts.values()))


def _tensors(data: Encoded) -> dict[str, Tensor]:
    assert data.whole is not None
    arrays = {
        "sources.ids": data.sources.ids,
        "sources.starts": data.sources.starts,
        "targets.ids": data.targets.ids,
        "targets.starts": data.targets.starts,
        "whole": data.whole,
        "lost answers, pad": np.array([data.lost_answers, data.pad]),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _key(examples: Sequence[Example], settings: list[object]) -> str:
    digest = hashlib.sha256(json.dumps([MADE_BY, tokenizers_version, transformers_version, *settings]).encode())
    for start in range(0, len(examples), PART):
        part = examples[start : start + PART]
        texts = [(example.source, example.target, example.spare, example.golds, example.mask) for example in part]
        digest.update(json.dumps(texts).encode())
    return digest.hexdigest()[:32]
