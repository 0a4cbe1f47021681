"""Resolves what a configuration leaves open until the model and the data are known: epochs, and the prompt's `auto`."""

import math
from dataclasses import replace

from fpt.backbones.location import config_values
from fpt.backbones.shapes import read_shape, row_of
from fpt.config.run_config import RunConfig
from fpt.errors import UserError
from fpt.prompts.kinds import kind_of
from fpt.tasks.catalogue import most_train_examples
from fpt.tasks.opening import open_task


def in_updates(config: RunConfig) -> RunConfig:
    """The configuration with `train.updates` in place of `train.epochs`, and every `auto` of the prompt resolved."""
    values, where = config_values(config.model)
    reads, blocks = row_of(values, where).reads, read_shape(values, where).source.blocks
    config = replace(config, prompt=kind_of(config.prompt).resolved(reads, blocks))
    return config if config.train.epochs is None else _of(config, len(open_task(config).train))


def expected(config: RunConfig) -> RunConfig:
    """The configuration with `train.updates` in place of `train.epochs`, before any data are read."""
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
