"""Finds settings with which a run that does not fit into memory would: one after the other, the mildest first."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from fpt.config.run_config import RunConfig
from fpt.devices.processes import are_typed
from stages.planning.memory import PACKED, Memory
from stages.planning.plan import Advice

Settings = dict[str, Any]  # values of keys of `train` and `engine`

MILD: list[Settings] = [
    {"train.micro_batch": "auto"},
    {"train.activation_checkpointing": True},
    {"engine.dtype": "bfloat16"},
]
PROCESSES = [2**power for power in range(1, 11)]


def advise(memory: Memory, config: RunConfig) -> list[Advice]:
    """Settings with which the largest stage fits; then others with quantised weights, which cost a little score."""
    if config.engine.quantize != "none":  # packed weights cannot be sharded: every process holds them all
        ways = [_fewest(memory, config, MILD, {})]
    else:
        alone = {"engine.offload": "none", "engine.name": "torch"}
        packed = (_fewest(memory, config, MILD, {**alone, "engine.quantize": quantize}) for quantize in PACKED)
        ways = [_fewest(memory, config, [*MILD, *_sharing(config)], {}), next(filter(None, packed), None)]
    return [way for way in ways if way]


def _sharing(config: RunConfig) -> Iterator[Settings]:
    """Changes that shard the model, over more and more processes, or keep it off the device."""
    shared = {"engine.name": "deepspeed"}
    yield shared
    for processes in PROCESSES if are_typed(config.engine) else ():
        if config.engine.processes < processes <= config.train.batch_size:
            yield {**shared, "engine.processes": processes}
    yield {**shared, "engine.offload": "cpu"}


def _fewest(memory: Memory, config: RunConfig, changes: Sequence[Settings], always: Settings) -> Advice | None:
    """As many of the first changes as make the largest stage fit together with `always`, less those it fits without."""
    for number in range(len(changes) + 1):
        taken = changes[:number]
        if way := _way(memory, config, [*taken, always]):
            break
    else:
        return None
    for change in reversed(taken):
        others = [other for other in taken if other is not change]
        if less := _way(memory, config, [*others, always]):
            taken, way = others, less
    return way


def _way(memory: Memory, config: RunConfig, changes: Sequence[Settings]) -> Advice | None:
    """The advice to make all of these changes; None if the largest stage does not fit even so."""
    settings = {key: value for change in changes for key, value in change.items()}
    changed = config
    for key, value in settings.items():
        group, _, name = key.partition(".")
        changed = replace(changed, **{group: replace(getattr(changed, group), **{name: value})})
    if not memory.holds_weights(changed) or not (fit := memory.fit(changed)).fits:
        return None
    if "train.micro_batch" in settings:
        settings["train.micro_batch"] = fit.micro_batch
    new = {key: value for key, value in settings.items() if attrgetter(key)(config) != value}
    words = [f"{'engine' if key == 'engine.name' else key}={str(value).lower()}" for key, value in new.items()]
    return Advice(words, fit.total, is_packed="engine.quantize" in settings)
