"""Tokenised examples, kept for the next run by their content, the tokenizer's and the limits."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import __version__ as tokenizers_version
from transformers import __version__ as transformers_version

from fpt.backbones.backbone import Backbone
from fpt.config.schema import TaskConfig
from fpt.data.encoded import Encoded, Rows
from fpt.data.encoding import encode
from fpt.runs.progress import WithBar
from fpt.runs.tensor_cache import kept
from fpt.tasks.example_cache import CachedExamples
from fpt.tasks.task import Example, Task

PART = 10_000  # examples that are hashed at once
MADE_BY = 1  # one more whenever the same texts give other tokens


def tokenised(
    task: Task, backbone: Backbone, config: TaskConfig, cache: Path, with_bar: WithBar
) -> tuple[Encoded, ...]:
    """The task's parts as token ids, training first, then validation; from the cache where they are there.

    Raises:
        UserError: the tokenizer or the cache's folder cannot be used.
    """
    return tuple(_tokenised(part, task, backbone, config, cache, with_bar) for part in task.parts.values())


def _tokenised(
    examples: Sequence[Example], task: Task, backbone: Backbone, config: TaskConfig, cache: Path, with_bar: WithBar
) -> Encoded:
    def compute() -> dict[str, torch.Tensor]:
        data = encode(
            examples,
            backbone.tokenizer,
            source_length=config.source_length,
            target_length=config.target_length,
            find_answers=not task.labels,
            with_bar=with_bar,
        )
        assert data.whole is not None
        return {
            "sources.ids": torch.from_numpy(data.sources.ids),
            "sources.starts": torch.from_numpy(data.sources.starts),
            "targets.ids": torch.from_numpy(data.targets.ids),
            "targets.starts": torch.from_numpy(data.targets.starts),
            "whole": torch.from_numpy(data.whole),
            "lost answers, pad": torch.tensor([data.lost_answers, data.pad]),
        }

    about = [backbone.vocabulary, config.source_length, config.target_length, not task.labels]
    found = kept(cache, "tokens", _key(examples, about), compute)
    sources, targets = (Rows(found[f"{side}.ids"].numpy(), found[f"{side}.starts"].numpy()) for side in _SIDES)
    return Encoded(sources, targets, found["whole"].numpy(), *found["lost answers, pad"].tolist())


_SIDES = ("sources", "targets")


def _key(examples: Sequence[Example], about: list[object]) -> str:
    versions = [MADE_BY, tokenizers_version, transformers_version]
    digest = hashlib.sha256(json.dumps([*versions, *about]).encode())
    if isinstance(examples, CachedExamples):
        digest.update(examples.fingerprint.encode())
        return digest.hexdigest()[:32]
    for start in range(0, len(examples), PART):
        texts = [
            (example.source, example.target, example.spare, example.golds) for example in examples[start : start + PART]
        ]
        digest.update(json.dumps(texts).encode())
    return digest.hexdigest()[:32]
