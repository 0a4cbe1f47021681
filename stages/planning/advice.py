"""Finds the fewest settings with which a run that does not fit into memory would fit, trying the mildest first."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig
from fpt.devices.processes import are_typed
from fpt.errors import UserError
from fpt.pricing.memory import is_for_card, is_sharded
from stages.planning.memory import PACKED, Memory, is_auto
from stages.planning.plan import Advice

CHANGES = ("micro_batch", "checkpointing", "dtype", "deepspeed", "processes", "offload")  # the mildest first
OF_ONE = CHANGES[:3]  # those that do not shard the model
MOST_PROCESSES = 10  # the exponent: 2**10 processes at most
Settings = tuple[list[str], dict[str, Any], dict[str, Any]]  # overrides; the same as fields of `train` and of `engine`


def advise(memory: Memory, config: RunConfig) -> list[Advice]:
    """Overrides with which the largest stage fits; then others with quantised weights, which cost a little score."""
    plain = _fewest(memory, config, CHANGES, range(1, len(CHANGES) + 1))
    return [*([Advice(*plain, is_packed=False)] if plain else []), *_advise_packed(memory, config)]


def _advise_packed(memory: Memory, config: RunConfig) -> Iterator[Advice]:
    """Advice with quantised weights, which cannot be sharded: every process holds them all."""
    engine = config.engine
    if engine.quantize != "none":
        return
    alone = [] if engine.name != "deepspeed" and engine.offload == "none" else ["engine=torch"]
    alone += [] if engine.offload == "none" else ["engine.offload=none"]
    for number in range(len(OF_ONE) + 1):
        for quantize in PACKED:
            packed = replace(config, engine=replace(engine, name="torch", offload="none", quantize=quantize))
            if found := _fewest(memory, packed, OF_ONE, [number]):
                yield Advice([*alone, *found[0], f"engine.quantize={quantize}"], found[1], is_packed=True)
                return


def _fewest(
    memory: Memory, config: RunConfig, those: Sequence[str], numbers: Iterable[int]
) -> tuple[list[str], int] | None:
    """The fewest of `those` changes with which the largest stage fits, as overrides, and its bytes then."""
    for changes in (changes for number in numbers for changes in combinations(those, number)):
        for words, changed in _changed(config, changes):
            if memory.holds_weights(changed) and (fit := memory.fit(changed)).fits:
                first = [f"train.micro_batch={fit.micro_batch}"] if "micro_batch" in changes else []
                return [*first, *words], fit.total
    return None


def _changed(config: RunConfig, changes: Sequence[str]) -> Iterator[tuple[list[str], RunConfig]]:
    """Each configuration in which all of these changes are made, with the overrides that lead to it."""
    if any(_is_idle(config, change, changes) for change in changes):
        return
    powers = [2**power for power in range(1, MOST_PROCESSES + 1) if 2**power > config.engine.processes]
    for processes in powers if "processes" in changes else [config.engine.processes]:
        table = _settings(config.engine, processes)
        words, train, engine = [], dict[str, Any](), dict[str, Any]()
        for own_words, own_train, own_engine in (table[change] for change in changes):
            words += own_words
            train |= own_train
            engine |= own_engine
        try:
            changed = replace(config, train=replace(config.train, **train), engine=replace(config.engine, **engine))
        except UserError:  # more processes than the batch has examples
            return
        yield words, changed


def _settings(engine: EngineConfig, processes: int) -> dict[str, Settings]:
    """What each change sets; the override for the micro-batch is added once its size is known."""
    stage = [] if engine.zero_stage == 3 else ["engine.zero_stage=3"]
    return {
        "micro_batch": ([], {"micro_batch": "auto"}, {}),
        "checkpointing": (["train.activation_checkpointing=true"], {"activation_checkpointing": True}, {}),
        "dtype": (["engine.dtype=bfloat16"], {}, {"dtype": "bfloat16"}),
        "deepspeed": (["engine=deepspeed", *stage], {}, {"name": "deepspeed", "zero_stage": 3}),
        "processes": ([f"engine.processes={processes}"], {}, {"processes": processes}),
        "offload": (["engine.offload=cpu"], {}, {"offload": "cpu"}),
    }


def _is_idle(config: RunConfig, change: str, changes: Sequence[str]) -> bool:
    """Whether a change would have no effect together with these other changes."""
    engine, asked = config.engine, config.train.activation_checkpointing
    is_sharded_then = "deepspeed" in changes or is_sharded(engine)
    return {
        "micro_batch": is_auto(config),
        "checkpointing": is_for_card(engine) if asked is None else asked,  # by default a GPU has it where it helps
        "dtype": engine.dtype == "bfloat16",
        "deepspeed": is_sharded(engine) or engine.quantize != "none",
        "processes": not is_sharded_then or not are_typed(engine),
        "offload": engine.offload != "none" or not is_sharded_then,
    }[change]
