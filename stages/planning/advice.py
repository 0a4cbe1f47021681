"""What would make a run fit into memory that does not: the fewest settings, the mildest first."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig
from fpt.devices.processes import are_typed
from fpt.errors import UserError
from fpt.pricing.memory import is_for_card, is_sharded
from stages.planning.needs import Needs, is_auto

CHANGES = ("micro_batch", "checkpointing", "dtype", "deepspeed", "processes", "offload")  # the mildest first
OF_ONE = CHANGES[:3]  # those that share out nothing
PACKED = ("int8", "nf4")
Advice = tuple[list[str] | None, int | None]


def advise(needs: Needs, config: RunConfig) -> Advice:
    """The words to type that make the largest stage fit, and its total then; None where nothing does."""
    return _fewest(needs, config, CHANGES, range(1, len(CHANGES) + 1))


def advise_packed(needs: Needs, config: RunConfig) -> Advice:
    """The same with packed weights, which lose a little of the score; each process has them all."""
    if config.engine.quantize != "none":
        return None, None
    alone = [] if config.engine.name != "deepspeed" and config.engine.offload == "none" else ["engine=torch"]
    alone += [] if config.engine.offload == "none" else ["engine.offload=none"]
    for number in range(len(OF_ONE) + 1):
        for quantize in PACKED:
            engine = replace(config.engine, name="torch", offload="none", quantize=quantize)
            words, total = _fewest(needs, replace(config, engine=engine), OF_ONE, [number])
            if words is not None:
                return [*alone, *words, f"engine.quantize={quantize}"], total
    return None, None


def _fewest(needs: Needs, config: RunConfig, those: tuple[str, ...], numbers: Iterable[int]) -> Advice:
    """Of some changes so many, or none."""
    for number in numbers:
        for changes in combinations(those, number):
            for words, changed in _changed(config, changes):
                if not needs.fits(changed, needs.weights(changed)):
                    continue
                micro_batch = needs.largest(changed) if "micro_batch" in changes else needs.micro_batch(changed)
                if micro_batch is None or not needs.fits(changed, total := needs.total(changed, micro_batch)):
                    continue
                return [*([f"train.micro_batch={micro_batch}"] if "micro_batch" in changes else []), *words], total
    return None, None


def _changed(config: RunConfig, changes: tuple[str, ...]) -> Iterator[tuple[list[str], RunConfig]]:
    """Each way to make such changes together, with the words to type for it."""
    train, engine = config.train, config.engine
    if any(_idle(config, changes)[change] for change in changes):
        return
    powers = [2**power for power in range(1, 11) if 2**power > engine.processes]
    for processes in powers if "processes" in changes else [engine.processes]:
        settings = [setting for change, setting in _settings(engine, processes).items() if change in changes]
        words = ["train.activation_checkpointing=true"] if "checkpointing" in changes else []
        words += [word for names, _ in settings for word in names]
        checkpointing = True if "checkpointing" in changes else train.activation_checkpointing
        try:
            yield (
                words,
                replace(
                    config,
                    train=replace(train, activation_checkpointing=checkpointing),
                    engine=replace(engine, **{key: value for _, values in settings for key, value in values.items()}),
                ),
            )
        except UserError:  # more processes than the batch has examples
            return


def _idle(config: RunConfig, changes: tuple[str, ...]) -> dict[str, bool]:
    """Whether a change, among those made with it, would change nothing."""
    engine = config.engine
    is_sharded_then = "deepspeed" in changes or is_sharded(engine)
    return {
        "micro_batch": is_auto(config),
        "checkpointing": config.train.activation_checkpointing
        or (config.train.activation_checkpointing is None and is_for_card(engine)),  # there it is on where it helps
        "dtype": engine.dtype == "bfloat16",
        "deepspeed": is_sharded(engine) or engine.quantize != "none",
        "processes": not is_sharded_then or not are_typed(engine),
        "offload": engine.offload != "none" or not is_sharded_then,
    }


def _settings(engine: EngineConfig, processes: int) -> dict[str, tuple[list[str], dict[str, Any]]]:
    """The engine's settings of each change: as typed, and by key."""
    stage = [] if engine.zero_stage == 3 else ["engine.zero_stage=3"]
    return {
        "dtype": (["engine.dtype=bfloat16"], {"dtype": "bfloat16"}),
        "deepspeed": (["engine=deepspeed", *stage], {"name": "deepspeed", "zero_stage": 3}),
        "processes": ([f"engine.processes={processes}"], {"processes": processes}),
        "offload": (["engine.offload=cpu"], {"offload": "cpu"}),
    }
