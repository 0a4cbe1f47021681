"""Resolves what a configuration leaves open until the model and the data are known: epochs, and how a prompt learns."""

import math
from dataclasses import replace

from fpt.backbones.location import config_values
from fpt.backbones.shapes import read_shape, row_of
from fpt.config.run_config import RunConfig
from fpt.errors import UserError
from fpt.prompts.kinds import kind_of
from fpt.tasks.catalogue import most_train_examples
from fpt.tasks.opening import open_task
from stages.schedule import resolved


def in_updates(config: RunConfig) -> RunConfig:
    """The configuration with `train.updates` in place of `train.epochs`, and with what suits the model's family."""
    config = _of_family(config)
    return config if config.train.epochs is None else _of(config, len(open_task(config).train))


def _of_family(config: RunConfig) -> RunConfig:
    """The configuration without `auto` in prompt, schedule and optimizer; a rate that needs weights stays null."""
    values, where = config_values(config.model)
    reads, blocks, optim = row_of(values, where).reads, read_shape(values, where).source.blocks, config.optim
    name = reads.learning.optimizer if optim.name == "auto" else optim.name
    schedule = reads.learning.schedule if optim.schedule == "auto" else optim.schedule
    rate = reads.learning.lr if optim.lr is None else optim.lr
    prompt = kind_of(config.prompt).resolved(reads, blocks)
    stages = resolved(config.schedule, reads.schedule)
    optim = replace(optim, name=name, schedule=schedule, lr=rate)
    return replace(config, prompt=prompt, schedule=stages, optim=optim)


def expected(config: RunConfig) -> RunConfig:
    """As `in_updates`, before any data are read."""
    config = _of_family(config)
    if config.train.epochs is None:
        return config
    number = most_train_examples(config)
    if number is None:
        raise UserError(
            f"train.epochs={config.train.epochs:g}: how many training examples there are is not known before they are"
            " read; plan with train.updates=N"
        )
    return _of(config, number)


def _of(config: RunConfig, examples: int) -> RunConfig:
    assert config.train.epochs is not None
    updates = math.ceil(examples * config.train.epochs / config.train.batch_size)
    return replace(config, train=replace(config.train, updates=updates, epochs=None))
