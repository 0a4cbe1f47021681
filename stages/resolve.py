"""Resolves what a configuration leaves open: by the model's family, the number of training examples, the embeddings."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from fpt.backbones.location import config_values
from fpt.backbones.shapes import read_shape, row_of
from fpt.config.keys import stages_of
from fpt.config.run_config import RunConfig
from fpt.config.schema import RELATIVE_LR, OptimConfig
from fpt.errors import UserError
from fpt.prompts.kinds import NUM_COMMON, kind_of
from fpt.tasks.catalogue import most_examples
from fpt.tasks.opening import open_task

if TYPE_CHECKING:
    from fpt.backbones.backbone import Backbone


def for_training(config: RunConfig) -> RunConfig:
    """The configuration with what suits the model's family, and with `train.updates` in place of `train.epochs`."""
    config = for_model(config)
    return config if config.train.epochs is None else _in_updates(config, len(open_task(config).train))


def for_plan(config: RunConfig) -> RunConfig:
    """As `for_training`, before any data are read."""
    config = for_model(config)
    if config.train.epochs is None:
        return config
    number = most_examples(config)[0]
    if number is None:
        raise UserError(
            f"train.epochs={config.train.epochs:g}: how many training examples there are is not known before they are"
            " read; plan with train.updates=N"
        )
    return _in_updates(config, number)


def for_model(config: RunConfig) -> RunConfig:
    """The configuration without `auto` in what depends on the model's family; a rate that needs weights stays null."""
    values, where = config_values(config.model)
    reads, blocks, optim = row_of(values, where).reads, read_shape(values, where).source.blocks, config.optim
    name = reads.learning.optimizer if optim.name == "auto" else optim.name
    schedule = reads.learning.schedule if optim.schedule == "auto" else optim.schedule
    rate = reads.learning.lr if optim.lr is None else optim.lr
    prompt, train = kind_of(config.prompt).resolved(reads, blocks), config.train
    train = replace(train, bucket=train.bucket or reads.learning.bucket)
    optim, grows = replace(optim, name=name, schedule=schedule, lr=rate), config.schedule
    if grows.name == "auto" and not grows.stages:
        grows = replace(grows, name=reads.schedule, stages=stages_of(reads.schedule))
    return replace(config, prompt=prompt, schedule=grows, optim=optim, train=train)


def _in_updates(config: RunConfig, examples: int) -> RunConfig:
    assert config.train.epochs is not None
    updates = math.ceil(examples * config.train.epochs / config.train.batch_size)
    return replace(config, train=replace(config.train, updates=updates, epochs=None))


def rate_of(optim: OptimConfig, place: str, backbone: "Backbone") -> float:
    """The highest learning rate, to two digits: as set, or relative to frequent tokens' embeddings, by the place."""
    if optim.lr is not None:
        return optim.lr
    embeddings = backbone.embeddings(list(range(min(NUM_COMMON, backbone.sizes.vocabulary))))
    return float(f"{RELATIVE_LR[place] * embeddings.square().mean().sqrt().item():.2g}")


def learning(config: RunConfig) -> str:
    """How the prompt of a resolved configuration learns, as settings."""
    name, schedule, lr = config.optim.name, config.optim.schedule, config.optim.lr
    share = RELATIVE_LR[config.prompt.place]
    peak = f"{lr:g}" if lr else f"{share} of the root mean square of the model's embeddings"
    warmup = f", optim.warmup={config.optim.warmup:g}" if config.optim.warmup else ""
    return f"prompt.init={config.prompt.init}, optim.name={name}, optim.schedule={schedule}{warmup}, optim.lr={peak}"
