"""Settles a configuration for its model: what it leaves open is resolved, what the model cannot do is refused."""

import math
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from fpt.backbones.family_table import FamilyRow, StackRow, value_at
from fpt.backbones.location import config_values
from fpt.backbones.shapes import read_shape, row_of
from fpt.config.keys import stages_of
from fpt.config.mixture import tasks_of
from fpt.config.run_config import RunConfig
from fpt.config.schema import RELATIVE_LR, OptimConfig
from fpt.errors import UserError
from fpt.prompts.kinds import NUM_COMMON, kind_of
from fpt.tasks.catalogue import is_own, most_examples, rules_of
from fpt.tasks.opening import open_task
from fpt.tasks.task import MASK, Template

if TYPE_CHECKING:
    from fpt.backbones.backbone import Backbone


def for_training(config: RunConfig) -> RunConfig:
    """The configuration with what suits the model's family, and with `train.updates` in place of `train.epochs`."""
    return _in_updates(for_model(config), lambda own: len(open_task(own).train))


def for_plan(config: RunConfig) -> RunConfig:
    """As `for_training`, before any data are read."""
    return _in_updates(for_model(config), lambda own: most_examples(own)[0])


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


def _in_updates(config: RunConfig, num_examples: Callable[[RunConfig], int | None]) -> RunConfig:
    if config.train.epochs is None:
        return config
    if (number := num_examples(config)) is None:
        epochs = f"train.epochs={config.train.epochs:g}"
        raise UserError(f"{epochs}: how many examples there are is not known yet; plan with train.updates=N")
    updates = math.ceil(number * config.train.epochs / config.train.batch_size)
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


def check(config: RunConfig, values: dict[str, Any], where: str) -> None:
    """Refuse a run whose model cannot do its task or tasks; `values` are the model's config.json."""
    if config.task.of is not None:
        for own in tasks_of(config).values():
            check(own, values, where)
        return
    row, task, model = row_of(values, where), config.task, f"model={config.model.name}"
    if config.engine.quantize != "none" and row.first.ffn.transposed:
        why = f"packs linear layers, and {model} has layers of another kind; leave it out"
        raise config.engine.error("quantize", why)
    if task.chat and not row.reads.reads_target:
        raise UserError(f"task.chat=true: chat templates are for causal models, and {model} is none; leave it out")
    if task.add_bos_token and (task.chat or not row.reads.reads_target):
        why = "a chat template begins as it must" if task.chat else f"is for causal models, and {model} is none"
        raise UserError(f"task.add_bos_token=true: {why}; leave it out")
    widths = {value_at(values, stack.key(stack.width)) for stack in row.stacks.values()}
    if config.prompt.place == "suffix" and len(widths) > 1:
        raise config.prompt.error("place", f"the stacks of {model} have states of unlike widths; leave it out")
    check_positions(config, values, where)
    if is_own(task) and task.train is None:  # a plan needs no training file
        return
    rules = rules_of(task)
    if not row.reads.writes and not rules.classes:
        raise UserError(f"{model}: answers by one label at a mask, unlike {task.name}; take a model that writes")
    _check_mask(model, row, rules.template)


def _check_mask(model: str, row: FamilyRow, template: Template) -> None:
    """Refuse a template whose mask stands where the model cannot answer."""
    masks = template.masks
    if len(masks) > 1:
        raise UserError(f"task.template: has {len(masks)} times {MASK} for one answer; leave one: {template.text}")
    if masks and (wrong := row.reads.wrong_mark(is_last=masks[0] + 1 == len(template.parts))):
        raise UserError(f"{model}: {wrong}; this one is {template.text}")


def check_positions(config: RunConfig, values: dict[str, Any], where: str) -> None:
    """Refuse texts that need more positions than the model has; `values` are its config.json."""
    row, task, model = row_of(values, where), config.task, f"model={config.model.name}"
    written = max(task.target_length, task.max_new_tokens or 0)
    key = f"task.{'target_length' if written == task.target_length else 'max_new_tokens'}"
    target = row.reads.positions(0, written)
    # Where positions are embedded, the prompt's vectors are inserted after that and take up no position.
    vectors = config.prompt.length if row.positions is None else 0
    known = num_positions(row, row.first, values)
    if task.source_length + target + vectors > known:
        left = known - target - vectors
        way = f"task.source_length={left} or less" if left >= 2 else f"a lower {key if target else 'prompt.length'}"
        has = f"{model} has {known} positions, of which {target} are for {key}={written} and {vectors} for the prompt"
        raise task.error("source_length", f"{has}; give {way}")
    known = num_positions(row, row.last, values)
    if len(row.stacks) > 1 and written > known:
        raise UserError(f"{key}={written}: {model} writes up to {known} tokens; give {key}={known} or less")


def num_positions(row: FamilyRow, stack: StackRow, values: dict[str, Any]) -> float:
    """How many positions a stack has."""
    key, reserved = row.positions or ("max_position_embeddings", 0)
    known = value_at(values, stack.key(key))
    return known - reserved if isinstance(known, int) else inf


def most_padded(values: dict[str, Any], where: str) -> float:
    """How many positions a padded batch may have; only position embeddings set a limit."""
    row = row_of(values, where)
    return num_positions(row, row.first, values) if row.positions else inf


def check_options(config: RunConfig, *, max_new_tokens: int | None) -> None:
    """Refuse a limit of outputs where nothing is generated, or that the model has no positions for."""
    values, where = config_values(config.model)
    longest = max_new_tokens or config.task.max_new_tokens
    check_positions(replace(config, task=replace(config.task, max_new_tokens=longest)), values, where)
    answer = config.task.answer
    if max_new_tokens is not None and row_of(values, where).reads.chooses(answer):
        why = "a masked model" if answer == "generate" else f"task.answer={answer}"
        option = f"max-new-tokens={max_new_tokens}"
        raise UserError(f"{option}: is of generation; with {why} nothing is generated, so leave it out")
